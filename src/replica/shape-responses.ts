/** The Responses API of OpenAI: one message with one text. Pure; see shape.ts for the parts. */
import type { Generation } from './generation.ts';
import { wireJson } from './http-writer.ts';
import { cachedJson, choiceText, type Shape, tokensOf } from './shape.ts';

export function createResponsesShape(generation: Generation, id: string, created: number): Shape {
  return new ResponsesShape(generation, id, created);
}

class ResponsesShape implements Shape {
  readonly #generation: Generation;
  readonly #itemId: string;
  readonly #head: string;
  #sequence = 0;

  constructor(generation: Generation, id: string, created: number) {
    this.#generation = generation;
    this.#itemId = `msg_${id}`;
    const previous = wireJson(generation.previous ?? null);
    this.#head = `{"id":"resp_${id}","object":"response","created_at":${created},"model":${wireJson(generation.model)},"previous_response_id":${previous},`;
  }

  open(): string {
    const response = `"response":${this.#head}"status":"in_progress","output":[],"usage":null}`;
    return (
      this.#event('response.created', response) +
      this.#event('response.in_progress', response) +
      this.#event(
        'response.output_item.added',
        `"output_index":0,"item":${this.#item('in_progress', '')}`,
      ) +
      this.#event('response.content_part.added', `${this.#place()},"part":${part('')}`)
    );
  }

  delta(choice: number, _step: number, text: string): string {
    if (choice > 0) return '';
    return this.#event('response.output_text.delta', `${this.#place()},"delta":"${text}"`);
  }

  close(): string {
    const choice = this.#generation.choices[0];
    const text = choice === undefined ? '' : choiceText(choice);
    const item = this.#item('completed', part(text));
    const type = this.#cut() ? 'response.incomplete' : 'response.completed';
    return (
      this.#event('response.output_text.done', `${this.#place()},"text":"${text}"`) +
      this.#event('response.content_part.done', `${this.#place()},"part":${part(text)}`) +
      this.#event('response.output_item.done', `"output_index":0,"item":${item}`) +
      this.#event(type, `"response":${this.whole([text])}`)
    );
  }

  whole(texts: readonly string[]): string {
    const tokens = tokensOf(this.#generation);
    const prompt = this.#generation.promptTokens;
    const status = this.#cut()
      ? '"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"}'
      : '"status":"completed","incomplete_details":null';
    const details = cachedJson(this.#generation, 'input_tokens_details');
    const usage = `{"input_tokens":${prompt},"output_tokens":${tokens},"total_tokens":${prompt + tokens}${details}}`;
    const item = this.#item('completed', part(texts[0] ?? ''));
    return `${this.#head}${status},"output":[${item}],"usage":${usage}}`;
  }

  #cut(): boolean {
    return this.#generation.choices[0]?.finish === 'length';
  }

  #item(status: string, content: string): string {
    return `{"type":"message","id":"${this.#itemId}","status":"${status}","role":"assistant","content":[${content}]}`;
  }

  #place(): string {
    return `"item_id":"${this.#itemId}","output_index":0,"content_index":0`;
  }

  #event(type: string, fields: string): string {
    return `event: ${type}\ndata: {"type":"${type}","sequence_number":${this.#sequence++},${fields}}\n\n`;
  }
}

function part(text: string): string {
  return `{"type":"output_text","text":"${text}","annotations":[]}`;
}

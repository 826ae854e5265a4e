/** The Responses API of OpenAI: one message with one text. Pure; see shape.ts for the parts. */
import type { Generation } from './generation.ts';
import { wireJson } from './http-writer.ts';
import { cachedJson, choiceText, logprobsJson, type Shape, tokensOf, unsureJson } from './shape.ts';

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
      this.#event('response.content_part.added', `${this.#place()},"part":${this.#part('')}`)
    );
  }

  delta(choice: number, _step: number, text: string): string {
    if (choice > 0 || this.#isFiltered()) return '';
    return this.#event(`response.${this.#kind}.delta`, `${this.#place()},"delta":"${text}"`);
  }

  close(): string {
    const choice = this.#generation.choices[0];
    const text = choice === undefined ? '' : choiceText(choice);
    const item = this.#item('completed', this.#part(text));
    const isCut = this.#cut() || this.#isFiltered();
    const type = isCut ? 'response.incomplete' : 'response.completed';
    const textKey = this.#generation.refuses ? 'refusal' : 'text';
    return (
      this.#event(`response.${this.#kind}.done`, `${this.#place()},"${textKey}":"${text}"`) +
      this.#event('response.content_part.done', `${this.#place()},"part":${this.#part(text)}`) +
      this.#event('response.output_item.done', `"output_index":0,"item":${item}`) +
      this.#event(type, `"response":${this.whole([text])}`)
    );
  }

  whole(texts: readonly string[]): string {
    const tokens = tokensOf(this.#generation);
    const prompt = this.#generation.promptTokens;
    const reason = this.#isFiltered() ? 'content_filter' : 'max_output_tokens';
    const status =
      this.#cut() || this.#isFiltered()
        ? `"status":"incomplete","incomplete_details":{"reason":"${reason}"}`
        : '"status":"completed","incomplete_details":null';
    const details = cachedJson(this.#generation, 'input_tokens_details');
    const usage = `{"input_tokens":${prompt},"output_tokens":${tokens},"total_tokens":${prompt + tokens}${details}}`;
    const item = this.#item('completed', this.#part(texts[0] ?? ''));
    const unsure = unsureJson(this.#generation);
    return `${this.#head}${unsure}${status},"output":[${item}],"usage":${usage}}`;
  }

  #cut(): boolean {
    return this.#generation.choices[0]?.finish === 'length';
  }

  #isFiltered(): boolean {
    return this.#generation.choices[0]?.finish === 'content_filter';
  }

  get #kind(): string {
    return this.#generation.refuses ? 'refusal' : 'output_text';
  }

  #part(text: string): string {
    if (this.#generation.refuses) return `{"type":"refusal","refusal":"${text}"}`;
    const choice = this.#generation.choices[0];
    const hasLogprobs = this.#generation.logprob !== undefined && choice !== undefined;
    const logprobs = hasLogprobs ? `,"logprobs":${logprobsJson(this.#generation, choice)}` : '';
    return `{"type":"output_text","text":"${text}","annotations":[]${logprobs}}`;
  }

  #item(status: string, content: string): string {
    return `{"type":"message","id":"${this.#itemId}","status":"${status}","role":"assistant","content":[${content}]}`;
  }

  #place(): string {
    return `"item_id":"${this.#itemId}","output_index":0,"content_index":0`;
  }

  #event(type: string, fields: string): string {
    return `event: ${type}\ndata: {"type":"${type}","sequence_number":${this.#sequence++},${unsureJson(this.#generation)}${fields}}\n\n`;
  }
}

/** Chat completions and text completions as vLLM sends them. Pure; see shape.ts for the parts. */
import type { Choice, Generation } from './generation.ts';
import { wireJson } from './http-writer.ts';
import {
  choiceTokenIds,
  logprobsJson,
  type Shape,
  tokensOf,
  tokensThrough,
  unsureJson,
  usageJson,
} from './shape.ts';
import { promptTokenIds, tokenId } from './tokens.ts';

const DONE = 'data: [DONE]\n\n';
/** Arguments of a forced call are `{"echo":"<the tokens>"}`, as a JSON text inside JSON. */
const ARGUMENTS_OPEN = '{\\"echo\\":\\"';
const ARGUMENTS_CLOSE = '\\"}';

export function createOpenAiShape(generation: Generation, id: string, created: number): Shape {
  return new OpenAiShape(generation, id, created);
}

class OpenAiShape implements Shape {
  readonly #generation: Generation;
  readonly #chat: boolean;
  /** Up to the list of choices. */
  readonly #streamHead: string;
  readonly #wholeHead: string;
  readonly #callId: string;
  readonly #toolJson: string;

  constructor(generation: Generation, id: string, created: number) {
    this.#generation = generation;
    this.#chat = generation.api === 'chat';
    const unsure = unsureJson(generation);
    const rest = `","created":${created},"model":${wireJson(generation.model)},${unsure}`;
    const name = this.#chat
      ? `{"id":"chatcmpl-${id}","object":"chat.completion`
      : `{"id":"cmpl-${id}","object":"text_completion`;
    this.#streamHead = `data: ${name}${this.#chat ? '.chunk' : ''}${rest}`;
    this.#wholeHead = name + rest;
    this.#callId = `call_${id}`;
    this.#toolJson = wireJson(generation.tool ?? '');
  }

  open(): string {
    if (!this.#chat) return '';
    const { choices, tool } = this.#generation;
    let events = '';
    for (let i = 0; i < choices.length; i++) {
      const delta =
        tool === undefined
          ? '{"role":"assistant","content":""}'
          : `{"role":"assistant","content":null,"tool_calls":[{"index":0,"id":"${this.#callId}-${i}","type":"function","function":{"name":${this.#toolJson},"arguments":"${ARGUMENTS_OPEN}"}}]}`;
      events += this.#event(
        `{"index":${i},"delta":${delta},"logprobs":null,"finish_reason":null}`,
        0,
        i === 0,
      );
    }
    return events;
  }

  delta(index: number, step: number, text: string, last: boolean): string {
    const choice = this.#generation.choices[index];
    if (choice === undefined) return '';
    const finish = last ? `"${this.#finish(choice)}"` : 'null';
    const ids = this.#generation.returnTokenIds ? this.#stepIds(choice, step) : '';
    const usage = this.#generation.continuousUsage ? tokensThrough(this.#generation, step) : 0;
    if (!this.#chat) {
      const item = `{"index":${index},"text":"${text}","logprobs":null,"finish_reason":${finish}${ids}}`;
      return this.#event(item, usage, false);
    }
    const delta =
      this.#generation.tool === undefined
        ? `{"${this.#textKey}":"${text}"}`
        : `{"tool_calls":[{"index":0,"function":{"arguments":"${text}${last ? ARGUMENTS_CLOSE : ''}"}}]}`;
    const item = `{"index":${index},"delta":${delta},"logprobs":null,"finish_reason":${finish}${ids}}`;
    return this.#event(item, usage, false);
  }

  close(): string {
    if (!this.#generation.includeUsage) return DONE;
    const usage = usageJson(this.#generation, tokensOf(this.#generation));
    return `${this.#streamHead}"choices":[],"usage":${usage}}\n\n${DONE}`;
  }

  whole(texts: readonly string[]): string {
    let items = '';
    for (let i = 0; i < texts.length; i++)
      items += (i > 0 ? ',' : '') + this.#wholeItem(i, texts[i] ?? '');
    const usage = usageJson(this.#generation, tokensOf(this.#generation));
    const ids = this.#generation.returnTokenIds && this.#chat ? `${this.#promptIds()},` : '';
    return `${this.#wholeHead}${ids}"choices":[${items}],"usage":${usage}}`;
  }

  #wholeItem(index: number, text: string): string {
    const choice = this.#generation.choices[index];
    if (choice === undefined) return '';
    const finish = `"logprobs":${this.#logprobs(choice)},"finish_reason":"${this.#finish(choice)}"`;
    const ids = this.#generation.returnTokenIds
      ? `,"token_ids":[${choiceTokenIds(choice).join()}]`
      : '';
    if (!this.#chat) {
      const prompt = this.#generation.returnTokenIds ? `,${this.#promptIds()}` : '';
      return `{"index":${index},"text":"${text}",${finish}${ids}${prompt}}`;
    }
    const message =
      this.#generation.tool === undefined
        ? this.#messageOf(text)
        : `{"role":"assistant","content":null,"tool_calls":[{"id":"${this.#callId}-${index}","type":"function","function":{"name":${this.#toolJson},"arguments":"${ARGUMENTS_OPEN}${text}${ARGUMENTS_CLOSE}"}}]}`;
    return `{"index":${index},"message":${message},${finish}${ids}}`;
  }

  get #textKey(): string {
    return this.#generation.refuses ? 'refusal' : 'content';
  }

  #messageOf(text: string): string {
    const content = this.#generation.refuses ? '"content":null,' : '';
    return `{"role":"assistant",${content}"${this.#textKey}":"${text}"}`;
  }

  #logprobs(choice: Choice): string {
    const { logprob } = this.#generation;
    if (logprob === undefined) return 'null';
    if (this.#chat) return `{"content":${logprobsJson(this.#generation, choice)},"refusal":null}`;
    return `{"token_logprobs":[${Array(choice.length).fill(logprob).join()}]}`;
  }

  #event(item: string, usageTokens: number, first: boolean): string {
    const { continuousUsage, returnTokenIds } = this.#generation;
    const usage = continuousUsage ? `,"usage":${usageJson(this.#generation, usageTokens)}` : '';
    const ids = first && returnTokenIds ? `,${this.#promptIds()}` : '';
    return `${this.#streamHead}"choices":[${item}]${usage}${ids}}\n\n`;
  }

  #stepIds(choice: Choice, step: number): string {
    if (step >= choice.length) return ',"token_ids":[]';
    const prompt = !this.#chat && step === 0 ? `,${this.#promptIds()}` : '';
    return `,"token_ids":[${tokenId(choice.series, choice.start + step)}]${prompt}`;
  }

  #promptIds(): string {
    return `"prompt_token_ids":[${promptTokenIds(this.#generation.prompt).join()}]`;
  }

  #finish(choice: Choice): string {
    return choice.finish === 'stop' && this.#generation.tool !== undefined
      ? 'tool_calls'
      : choice.finish;
  }
}

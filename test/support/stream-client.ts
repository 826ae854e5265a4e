/** The client of one stream and the attempts that serve it: what it is given of what replicas send. */
import { Delivery } from '../../src/forwarder/delivery.ts';
import { EventStream, type StreamSink } from '../../src/forwarder/event-stream.ts';
import { type Failure, failures } from '../../src/forwarder/failure.ts';
import type { Usage } from '../../src/protocol/completion-observer.ts';
import { type DeliveryMode, planContinuation, planUsage } from '../../src/protocol/continuation.ts';
import type { AnswerShape } from '../../src/protocol/routes.ts';
import { Asks } from '../../src/protocol/stream-options.ts';

interface Options {
  readonly body?: object;
  readonly mode?: DeliveryMode;
  readonly shape?: AnswerShape;
  readonly bytesMax?: number | undefined;
}

const chatPath = '/v1/chat/completions';
export const request = { messages: [{ role: 'user', content: 'x' }], max_tokens: 9 };

export class StreamClient {
  end = '';
  path = '';
  /** By each attempt that is over. */
  readonly used: Usage[] = [];
  readonly delivery: Delivery;
  readonly #body: Buffer;
  readonly #shape: AnswerShape;
  #stream: EventStream | undefined;
  /** Views, as the forwarder keeps them until its turn ends. */
  readonly #given: Uint8Array[] = [];

  constructor({ body = request, shape = 'openai-chat', bytesMax = 1024, mode }: Options = {}) {
    this.#body = Buffer.from(JSON.stringify(body));
    this.#shape = shape;
    const plan =
      mode === 'usage'
        ? planUsage(this.#body, shape, Asks.usageAlways)
        : planContinuation(this.#body, shape, mode);
    if (plan === undefined || typeof plan === 'string') throw new Error(plan);
    this.delivery = new Delivery(plan, bytesMax);
  }

  /** The next attempt, at a replica that `takes` so much; returns the body it sends. */
  attempt(takes: Asks = Asks.usageAlways): {
    messages: { content: string }[];
    prompt?: unknown;
    max_tokens: number;
  } {
    const facts = { status: 200, shape: this.#shape, choices: 1, contentLength: -1 };
    const { path, body } = this.delivery.begin(chatPath, this.#body, [], takes);
    this.path = path;
    const sink: StreamSink = {
      committed: false,
      commit: () => {
        (sink as { committed: boolean }).committed = true;
        return true;
      },
      emit: (bytes) => {
        this.#given.push(bytes);
      },
      whole: () => {},
      token: () => {},
      progress: () => {},
      dropped: () => {},
      complete: () => {
        this.#use();
        this.end = 'complete';
      },
      discard: () => {
        this.end = 'discard';
      },
      fail: () => {
        this.#use();
        this.end = 'fail';
      },
      handOver: () => {
        this.#use();
        this.end = 'handOver';
        this.delivery.suspend(1);
      },
    };
    this.#stream = new EventStream(sink, { ...facts, framed: true, isJson: false }, this.delivery);
    return JSON.parse(body.toString());
  }

  get text(): string {
    return Buffer.concat(this.#given).toString();
  }

  /** Gives back what is new for the client. */
  push(...events: string[]): string {
    const before = this.text.length;
    this.pushBytes(Buffer.from(events.join('')));
    return this.text.slice(before);
  }

  pushBytes(bytes: Uint8Array): void {
    this.#stream?.push(bytes);
  }

  #use(): void {
    if (this.#stream !== undefined) this.used.push(this.#stream.usage);
  }

  break(failure: Failure = failures.truncated): string {
    this.#stream?.end(failure);
    return this.end;
  }
}

export const event = (choice: object, more: object = {}, id = 'one'): string => {
  const head = { id, object: 'chat.completion.chunk', created: 7, model: `m-${id}` };
  return `data: ${JSON.stringify({ ...head, choices: [{ index: 0, ...choice }], ...more })}\n\n`;
};
export const role = (id = 'one') => event({ delta: { role: 'assistant', content: '' } }, {}, id);
export const said = (content: string, id = 'one', usage?: object) =>
  event({ delta: { content } }, usage === undefined ? {} : { usage }, id);
export const finish = (id = 'one') => event({ delta: {}, finish_reason: 'stop' }, {}, id);
export const usageOf = (prompt_tokens: number, completion_tokens: number) => {
  return { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens };
};
export const last = (usage: object, id = 'one') =>
  `data: ${JSON.stringify({ id, choices: [], usage })}\n\n`;
export const done = 'data: [DONE]\n\n';

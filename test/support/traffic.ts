/**
 * Calls of a client against a gateway, over node:http and one connection each: every call keeps what
 * it got, can leave at any moment, and says when it left on the clock of the replicas' ledgers.
 */
import http, { type ClientRequest, type IncomingMessage } from 'node:http';
import { nowMs } from '../../src/lib/clock.ts';
import { renderChat, type TokenSeries, tokenSeries } from '../../src/replica/tokens.ts';
import type { GatewayProcess } from './gateway.ts';
import { readSse, type SseLedger } from './sse-ledger.ts';
import { eventually } from './until.ts';

/** Default of `memory.stream_window`. */
export const streamWindow = 64 * 1024;

/** Below the shortest answer a replica gives by itself, so that every answer has this length. */
export const answerTokens = 15;

export interface CallOptions {
  /** Nonce of the tokens and x-request-id of the request. */
  readonly nonce: string;
  readonly stream?: boolean;
  readonly model?: string;
  /** Tags for the replica, as `[[hold]]`. */
  readonly tags?: string;
  readonly tokens?: number;
  /** The replica may have less to say than it is asked for. */
  readonly isShort?: boolean;
  readonly extra?: Readonly<Record<string, unknown>>;
  readonly headers?: Readonly<Record<string, string>>;
}

/**
 * How a call ended for its client. `silent` is the one that must never be: a stream that ended
 * like a good one, or just stopped, without `[DONE]`, a finish_reason or an error.
 */
export type CallEnd = 'done' | 'http-error' | 'stream-error' | 'left' | 'broken' | 'silent';

export class Call {
  readonly nonce: string;
  readonly series: TokenSeries;
  readonly isStream: boolean;
  /** How many tokens it asked for; -1 when the replica's own end may come before. */
  readonly tokensDue: number;
  readonly startedAt = nowMs();
  /** When the client closed its connection, 0 while it has not. */
  leftAt = 0;
  endedAt = 0;
  status = 0;
  headers: http.IncomingHttpHeaders = {};
  /** The framing of the answer came to its end. */
  isComplete = false;
  /** Resolves when nothing more will come. */
  readonly ended: Promise<this>;
  readonly #request: ClientRequest;
  readonly #chunks: Buffer[] = [];
  #response: IncomingMessage | undefined;
  #bytes = 0;
  #isOver = false;
  #waiters: { readonly test: () => boolean; readonly resolve: () => void }[] = [];

  constructor(port: number, options: CallOptions) {
    const { nonce, model = 'm', tokens = answerTokens, tags = '', stream = false } = options;
    const messages = [{ role: 'user', content: `nonce=${nonce} ${tags}` }];
    const body = JSON.stringify({ model, messages, stream, max_tokens: tokens, ...options.extra });
    this.nonce = nonce;
    this.isStream = stream;
    const isExact = tokens <= answerTokens && options.extra?.max_tokens === undefined;
    this.tokensDue = isExact && options.isShort !== true ? tokens : -1;
    this.series = tokenSeries(renderChat(messages));
    this.#request = http.request({
      host: '127.0.0.1',
      port,
      method: 'POST',
      path: '/v1/chat/completions',
      agent: false,
      headers: {
        'content-type': 'application/json',
        'content-length': Buffer.byteLength(body),
        'x-request-id': nonce,
        ...options.headers,
      },
    });
    this.ended = new Promise((resolve) => {
      this.#request.on('close', () => {
        // The answer has its own 'close', which can come later and is then the end.
        if (this.#response === undefined || this.#response.closed) this.#end(resolve);
        else this.#response.once('close', () => this.#end(resolve));
      });
    });
    this.#request.on('error', () => {}); // how it ended is read from what came
    this.#request.on('response', (response) => this.#onResponse(response));
    this.#request.end(body);
  }

  get body(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Whole token events so far, by their text; cheap enough to be asked at every chunk. */
  get tokens(): number {
    return this.ledger.tokens;
  }

  get ledger(): SseLedger {
    return readSse(this.body, this.series);
  }

  get text(): string {
    const answer = JSON.parse(this.body.toString()) as {
      choices: { message: { content: string } }[];
    };
    return answer.choices[0]?.message.content ?? '';
  }

  get errorCode(): string {
    const answer = JSON.parse(this.body.toString()) as { error: { code: string } };
    return answer.error.code;
  }

  get end(): CallEnd {
    if (this.leftAt > 0) return 'left';
    if (this.status === 0) return 'broken';
    if (this.status >= 400) return this.isComplete ? 'http-error' : 'broken';
    if (!this.isStream) return this.isComplete ? 'done' : 'broken';
    const { sawDone, finishReason, errors } = this.ledger;
    if (errors.length > 0) return sawDone ? 'silent' : 'stream-error';
    const isWhole = sawDone || finishReason !== undefined;
    return isWhole && this.isComplete ? 'done' : 'silent';
  }

  /** Resolves once `test` holds; it is asked at every change. Rejects when the call ends before. */
  until(test: (call: this) => boolean, what = 'a state of a call'): Promise<void> {
    if (test(this)) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const isMet = (): boolean => test(this);
      const settle = (): void => {
        if (isMet()) resolve();
        else reject(new Error(`never came: ${what}; status ${this.status}: ${this.body}`));
      };
      this.#waiters.push({ test: () => this.#isOver || isMet(), resolve: settle });
      this.#changed();
    });
  }

  /**
   * The client leaves, unless it has all of the answer: `fin` closes its side as a process that exits
   * does, `reset` cuts.
   */
  leave(how: 'fin' | 'reset' = 'fin'): void {
    if (this.#isOver || this.isComplete) return;
    this.leftAt = nowMs();
    const { socket } = this.#request;
    if (how === 'reset') socket?.resetAndDestroy();
    this.#request.destroy();
  }

  /** Stops and goes on taking bytes from the connection. */
  pause(): void {
    this.#response?.pause();
  }

  resume(): void {
    this.#response?.resume();
  }

  #onResponse(response: IncomingMessage): void {
    this.#response = response;
    this.status = response.statusCode ?? 0;
    this.headers = response.headers;
    response.on('error', () => {});
    response.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#bytes += chunk.length;
      this.#changed();
    });
    response.on('end', () => {
      this.isComplete = response.complete;
    });
    this.#changed();
  }

  #end(resolve: (call: this) => void): void {
    this.#isOver = true;
    this.endedAt = nowMs();
    resolve(this);
    this.#changed();
  }

  #changed(): void {
    if (this.#waiters.length === 0) return;
    const done = this.#waiters.filter(({ test }) => test());
    this.#waiters = this.#waiters.filter((waiter) => !done.includes(waiter));
    for (const { resolve } of done) resolve();
  }
}

/** Calls by port that nobody has taken yet. */
const callsTo = new Map<number, Call[]>();

/**
 * Starts a call whose answer comes from simulated replicas: it is looked at again when the gateway of
 * the test is over (invariants.ts). For answers of a test's own make there is `new Call`.
 */
export function call(port: number, options: CallOptions): Call {
  const started = new Call(port, options);
  const calls = callsTo.get(port);
  if (calls === undefined) callsTo.set(port, [started]);
  else calls.push(started);
  return started;
}

/** All calls to the port, once. */
export function takeCallsTo(port: number): Call[] {
  const calls = callsTo.get(port) ?? [];
  callsTo.delete(port);
  return calls;
}

/** Asks until the answer is as wanted, and gives it back; for states that nobody announces. */
export async function reached<T>(
  ask: () => Promise<T>,
  wanted: (answer: T) => boolean,
  what: string,
  withinMs = 10_000,
): Promise<T> {
  let answer = await ask();
  if (wanted(answer)) return answer;
  const again = async (): Promise<boolean> => {
    answer = await ask();
    return wanted(answer);
  };
  await eventually(what, again, withinMs);
  return answer;
}

/** For so long the credit is found used up: a stream that moves has some in between. */
const heldBackMs = 200;

/**
 * Resolves once `count` streams of the default window have used up their credit, each, and nothing
 * has moved for a while: `written` is what their replicas have written.
 */
export async function heldBack(
  gateway: GatewayProcess,
  count: number,
  written: () => number,
): Promise<void> {
  let before = -1;
  let movedAt = 0;
  const look = async (): Promise<boolean> => {
    const { rows } = await gateway.slots();
    const held = rows.filter(({ unsent_bytes }) => unsent_bytes >= streamWindow).length;
    if (held !== count || written() !== before) movedAt = nowMs();
    before = written();
    return nowMs() - movedAt >= heldBackMs;
  };
  await eventually(`${count} streams held back`, look, 15_000);
}

/**
 * One request and its answer, as the load generator sees them: when it was meant to be sent, when it
 * was, each token's time, and the verdict. One instance per connection, reused for each request.
 * Pure: the connection passes the time in.
 */
import { AnswerReader } from './answer-reader.ts';
import { Outcome } from './outcome.ts';
import {
  ParseFault,
  type ResponseHead,
  ResponseParser,
  type ResponseSink,
} from './response-parser.ts';

/** Receives the gap between two token events of one stream, in microseconds. */
export type OnTokenGap = (gapUs: number, measured: boolean) => void;

export interface Expectation {
  readonly stream: boolean;
  /** Tokens each answer must have, or -1 when the replica decides. */
  readonly tokens: number;
}

export class Exchange implements ResponseSink {
  readonly answer = new AnswerReader();
  readonly parser: ResponseParser;
  id = '';
  /** False during warm-up: served and checked, but kept out of every figure. */
  measured = true;
  intendedUs = 0;
  /** When a connection took it; the bytes follow at `sentUs`, later if it had to open first. */
  takenUs = 0;
  sentUs = 0;
  firstTokenUs = 0;
  lastTokenUs = 0;

  readonly #expect: Expectation;
  readonly #onTokenGap: OnTokenGap;
  #fault: ParseFault = ParseFault.none;
  #foreignId = false;
  #readUs = 0;

  constructor(expect: Expectation, onTokenGap: OnTokenGap) {
    this.#expect = expect;
    this.#onTokenGap = onTokenGap;
    this.parser = new ResponseParser(this);
  }

  begin(id: string, intendedUs: number, takenUs: number, measured: boolean): void {
    this.id = id;
    this.intendedUs = intendedUs;
    this.takenUs = takenUs;
    this.measured = measured;
    this.sentUs = 0;
    this.firstTokenUs = 0;
    this.lastTokenUs = 0;
    this.#fault = ParseFault.none;
    this.#foreignId = false;
    this.parser.reset();
    this.answer.begin(false);
  }

  /** Takes the bytes of one read. True when nothing more is to be expected of this answer. */
  receive(bytes: Buffer, length: number, atUs: number): boolean {
    this.#readUs = atUs;
    this.#fault = this.parser.execute(bytes, length);
    return this.#fault !== ParseFault.none || this.parser.complete;
  }

  onHead(head: ResponseHead): void {
    this.answer.begin(head.eventStream);
    this.#foreignId = head.requestId !== '' && head.requestId !== this.id;
  }

  onBody(bytes: Buffer, start: number, end: number): void {
    const before = this.answer.tokenEvents;
    this.answer.read(bytes, start, end);
    const arrived = this.answer.tokenEvents - before;
    if (arrived === 0) return;
    if (before === 0) this.firstTokenUs = this.#readUs;
    else this.#onTokenGap(this.#readUs - this.lastTokenUs, this.measured);
    // Tokens of one read reached the client together: no time between them.
    for (let i = 1; i < arrived; i++) this.#onTokenGap(0, this.measured);
    this.lastTokenUs = this.#readUs;
  }

  /** Output tokens: the replica's own count when it gives one, else the content events. */
  get outputTokens(): number {
    return Math.max(this.answer.completionTokens, this.answer.tokenEvents);
  }

  verdict(): Outcome {
    const { parser, answer } = this;
    if (this.#fault === ParseFault.unsolicited) return Outcome.mismatch;
    if (this.#fault !== ParseFault.none) return Outcome.malformed;
    if (!parser.complete) return parser.started ? Outcome.truncated : Outcome.reset;
    if (parser.status !== 200) return statusOutcome(parser.status);
    answer.finish();
    if (answer.sawError) return Outcome.errorBody;
    if (parser.eventStream !== this.#expect.stream) return Outcome.mismatch;
    if (parser.eventStream && !answer.sawDone) return Outcome.truncated;
    if (answer.malformed) return Outcome.malformed;
    if (this.#foreignId) return Outcome.mismatch;
    if (this.#expect.tokens >= 0 && this.outputTokens !== this.#expect.tokens) {
      return Outcome.mismatch;
    }
    return Outcome.ok;
  }
}

function statusOutcome(status: number): Outcome {
  if (status >= 500) return Outcome.status5xx;
  return status >= 400 ? Outcome.status4xx : Outcome.statusOther;
}

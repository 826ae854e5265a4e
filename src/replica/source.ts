/**
 * The bytes of one response as segments, each with its delay, for attempt.ts to play. Pure state.
 *
 * A source is a cursor: next() moves it, the fields describe the segment it is on. One record is
 * reused for all segments, so a stream allocates its text and nothing else.
 */
import { type Answer, answerHead } from './answer.ts';
import { chunk, framingLines, LAST_CHUNK } from './http-writer.ts';

/** What happens after a segment's bytes. `done` is the proper end; `none` goes on to the next. */
export type Ending = 'none' | 'done' | 'fin' | 'reset' | 'stall' | 'hold' | 'kill';

export interface Source {
  /** One character, one byte. */
  readonly text: string;
  /** Delay after the segment before. */
  readonly gapMs: number;
  /** Tokens in this response once the segment is out. */
  readonly tokens: number;
  readonly ending: Ending;
  /** Whether the connection may serve another request after `done`. */
  readonly reusable: boolean;
  /** With an engine: next() may be called once the answer has so many of its steps. */
  readonly stepsNeeded: number;
  /** With an engine: the client sees it take so many times as long. */
  readonly slow: number;
  next(): boolean;
}

/** An answer without faults: a whole one in one segment, a stream in one segment per step. */
export class AnswerSource implements Source {
  text = '';
  gapMs = 0;
  tokens = 0;
  ending: Ending = 'none';
  readonly reusable: boolean;
  readonly slow = 1;
  stepsNeeded: number;
  readonly #answer: Answer;
  readonly #chunked: boolean;
  #step = -2;

  constructor(answer: Answer, keepAlive: boolean, chunkedAllowed: boolean) {
    this.#answer = answer;
    this.#chunked = answer.stream && chunkedAllowed;
    this.reusable = keepAlive && (!answer.stream || chunkedAllowed);
    this.stepsNeeded = answer.stream ? 0 : answer.steps;
  }

  next(): boolean {
    this.#step++;
    if (!this.#answer.stream) return this.#whole();
    this.stepsNeeded++;
    if (this.#step === -1) {
      this.gapMs = this.#answer.headMs;
      const framing = framingLines(this.#chunked ? 'chunked' : 'close', 0, this.reusable);
      this.text = answerHead(this.#answer) + framing;
      return true;
    }
    if (this.#step >= this.#answer.steps) return false;
    const payload = this.#answer.payload(this.#step);
    const last = this.#step === this.#answer.steps - 1;
    this.gapMs = this.#step === 0 ? this.#answer.firstStepMs : this.#answer.stepMs;
    this.text = this.#chunked ? chunk(payload) + (last ? LAST_CHUNK : '') : payload;
    this.tokens = this.#answer.tokensAfter(this.#step);
    if (last) this.ending = 'done';
    return true;
  }

  #whole(): boolean {
    if (this.#step !== -1) return false;
    const body = this.#answer.body();
    this.gapMs = this.#answer.headMs;
    this.text =
      answerHead(this.#answer) + framingLines('length', body.length, this.reusable) + body;
    this.tokens = this.#answer.tokensAfter(this.#answer.steps);
    this.ending = 'done';
    return true;
  }
}

/**
 * One answer that is no event stream. Forwarder threads.
 *
 * Up to `bytesMax` it is collected and passed on as one record when it is complete: a cut or an error
 * in a 200 can then still be asked of another replica, an option that is refused be left out, and a reply
 * that is not wanted be asked of a larger model (small-replies.ts). A larger one is passed on as it comes,
 * under the same credit as a stream; past that point a cut closes the client's connection.
 *
 * Of an answer without a length only the end of the connection says that it is complete (RFC 9112,
 * section 6.3). JSON shows by its brackets whether that is true; of anything else a reset is a cut, an
 * orderly close is taken at its word.
 */

import { Buffer } from 'node:buffer';
import { noBytes } from '../lib/no-bytes.ts';
import { AnswerIdHead } from '../protocol/answer-id-head.ts';
import { CompletionObserver, Observed, type Usage } from '../protocol/completion-observer.ts';
import { isContextOverflow, mayBeOverflow } from '../protocol/context-overflow.ts';
import { namesOptions } from '../protocol/stream-options.ts';
import { UsageScan } from '../protocol/usage-scan.ts';
import type { Answer, AnswerFacts, AnswerSink } from './answer.ts';
import { type Failure, failures } from './failure.ts';
import type { SmallReply } from './small-replies.ts';

/** Speech and images are a few MiB; past this no answer is honest. */
const answerBytesMax = 256 * 1024 * 1024;

/**
 * So much of an answer that is passed on as it comes waits for its end: whoever writes the last bytes to
 * the client must know that they are the last (acceptor/outbox.ts).
 */
const restBytes = 2;
/** Bodies and usages are looked at in one call, so one observer serves all of them. */
const observer = new CompletionObserver();

export interface WholeSink extends AnswerSink {
  /** The replica does not know an option that was added: it is asked without. Only before commit. */
  askAgain(): void;
}

export class WholeAnswer implements Answer {
  readonly #sink: WholeSink;
  readonly #facts: AnswerFacts;
  readonly #bytesMax: number;
  readonly #judge: SmallReply | undefined;
  #chunks: Uint8Array[] = [];
  #bytes = 0;
  /** Last byte so far that is not white space; 0 before it. */
  #lastByte = 0;
  #over = false;
  /** Came last; sent with what follows or with the end. */
  #rest: Uint8Array = noBytes;
  /** Of JSON that is passed on as it comes. */
  #scan: UsageScan | undefined;
  #usage: Usage | undefined;
  id = '';
  /** Of an answer that is passed on as it comes, until its id is known. */
  #head: AnswerIdHead | undefined;

  constructor(sink: WholeSink, facts: AnswerFacts, bytesMax: number, judge?: SmallReply) {
    this.#sink = sink;
    this.#facts = facts;
    this.#bytesMax = bytesMax;
    this.#judge = judge;
    if (facts.contentLength > answerBytesMax) this.#fail(failures.tooLarge);
    else if (facts.contentLength > bytesMax) this.#release();
  }

  /** Of an answer that is passed on as it comes: what has passed has said so. */
  get usage(): Usage | undefined {
    return this.#usage ?? this.#scan?.read(observer, this.#facts.shape);
  }

  push(chunk: Uint8Array): void {
    if (this.#over) return;
    this.#bytes += chunk.length;
    for (let i = chunk.length - 1; i >= 0; i--) {
      const byte = chunk[i] as number;
      if (byte <= 0x20) continue;
      this.#lastByte = byte;
      break;
    }
    if (this.#bytes > answerBytesMax) {
      this.#fail(failures.tooLarge);
      return;
    }
    this.#sink.progress();
    if (this.#sink.committed) {
      this.#emit(chunk);
      return;
    }
    this.#chunks.push(chunk);
    if (this.#bytes > this.#bytesMax) this.#release();
  }

  end(broken: Failure | undefined): void {
    if (this.#over) return;
    if (broken !== undefined) this.#fail(broken);
    else if (this.#sink.committed) this.#finish();
    else this.#decide();
  }

  /** An answer in hand: what a 200 hides, and whether a body without a length is all there. */
  #decide(): void {
    if (this.#isCutJson()) {
      this.#fail(failures.truncated);
      return;
    }
    if (this.#facts.mayAskAgain === true && namesOptions(this.#chunks)) {
      this.#over = true;
      this.#chunks = [];
      this.#sink.askAgain();
      return;
    }
    if (!this.#facts.isJson || this.#bytes === 0) {
      this.#passOn();
      return;
    }
    const [first] = this.#chunks;
    const body =
      this.#chunks.length === 1 && first !== undefined ? first : Buffer.concat(this.#chunks);
    observer.reset(this.#facts.shape, this.#facts.choices);
    const flags = observer.onBody(body, 0, body.length);
    this.#usage = { ...observer.usage };
    this.id = observer.id;
    const { status, mayGoOn } = this.#facts;
    const isSuccess = status < 300;
    if (isSuccess && (flags & Observed.error) !== 0) this.#fail(failures.errorBody);
    else if (!this.#facts.framed && !isArray(body) && (flags & Observed.malformed) !== 0) {
      this.#fail(failures.truncated);
    } else if (mayGoOn === true && mayBeOverflow(status) && isContextOverflow(body)) {
      this.#fail(failures.contextOverflow);
    } else {
      const unwanted = isSuccess ? this.#judge?.ofBody(body) : undefined;
      if (unwanted === undefined) this.#passOn();
      else this.#discard(unwanted);
    }
  }

  #discard(cause: Failure): void {
    this.#over = true;
    this.#chunks = [];
    this.#sink.discard(cause);
  }

  #passOn(): void {
    this.#over = true;
    this.#sink.whole(this.#chunks);
    this.#sink.complete();
  }

  #release(): void {
    if (!this.#sink.commit()) {
      this.#over = true;
      return;
    }
    const { isJson, shape } = this.#facts;
    if (isJson) this.#scan = new UsageScan();
    if (isJson && shape === 'responses') this.#head = new AnswerIdHead();
    for (const chunk of this.#chunks) this.#emit(chunk);
    this.#chunks = [];
  }

  #emit(chunk: Uint8Array): void {
    this.#scan?.push(chunk);
    if (this.#head !== undefined) this.#readId(this.#head, chunk);
    const bytes = chunk.length < restBytes ? Buffer.concat([this.#rest, chunk]) : chunk;
    if (bytes === chunk) this.#sink.emit(this.#rest);
    const at = Math.max(0, bytes.length - restBytes);
    this.#sink.emit(bytes.subarray(0, at));
    this.#rest = bytes.subarray(at);
  }

  #readId(head: AnswerIdHead, chunk: Uint8Array): void {
    this.id = head.push(chunk, observer);
    if (this.id !== '' || head.isFull) this.#head = undefined;
  }

  #emitRest(): void {
    this.#sink.emit(this.#rest);
    this.#rest = noBytes;
  }

  #finish(): void {
    if (this.#isCutJson()) {
      this.#fail(failures.truncated);
      return;
    }
    this.#over = true;
    this.#emitRest();
    this.#sink.complete();
  }

  /** The end of the connection is no end of an answer: JSON without a length must close its brackets. */
  #isCutJson(): boolean {
    const { framed, isJson } = this.#facts;
    return !framed && isJson && this.#lastByte !== 0x7d && this.#lastByte !== 0x5d;
  }

  #fail(failure: Failure): void {
    this.#over = true;
    this.#chunks = [];
    if (this.#sink.committed) this.#emitRest();
    this.#sink.fail(failure);
  }
}

/** The observer follows objects only; rerankers answer with a list. */
function isArray(body: Uint8Array): boolean {
  for (const byte of body) if (byte > 0x20) return byte === 0x5b;
  return false;
}

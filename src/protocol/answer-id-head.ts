/**
 * The id of a JSON answer that is too large to be held, from its first bytes. Pure; forwarder threads.
 *
 * Engines write `id` first. What came is read again with each chunk until the id is whole: a few times, and
 * never more than the bound.
 */
import { Buffer } from 'node:buffer';
import type { CompletionObserver } from './completion-observer.ts';

/** An id has some 40 bytes; an engine that writes instructions and tools before it is not heard out. */
const headBytesMax = 4096;

export class AnswerIdHead {
  readonly #bytes = Buffer.allocUnsafe(headBytesMax);
  #length = 0;

  /** Nothing more is read. */
  get isFull(): boolean {
    return this.#length === headBytesMax;
  }

  /** Takes what comes next; the id of the answer, or '' while it is not known. */
  push(chunk: Uint8Array, observer: CompletionObserver): string {
    const taken = Math.min(chunk.length, headBytesMax - this.#length);
    this.#bytes.set(chunk.subarray(0, taken), this.#length);
    this.#length += taken;
    observer.reset('responses', 1);
    observer.onBody(this.#bytes, 0, this.#length);
    return observer.id;
  }
}

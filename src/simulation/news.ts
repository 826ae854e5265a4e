/**
 * News: tokens that have left an engine and are not heard of yet, in the order of time. Pure.
 *
 * All engines of a run take equally long to pass a token on, so what is added later is due later and a
 * queue is enough.
 */
import { assert } from '../lib/assert.ts';

const initialRoom = 1024;

export class News {
  #us = new Float64Array(initialRoom);
  /** The request for a first token, its complement for an end. */
  #what = new Int32Array(initialRoom);
  #head = 0;
  #tail = 0;
  readonly #taken = { request: 0, isEnd: false };

  get nextUs(): number {
    return this.#head === this.#tail ? Number.POSITIVE_INFINITY : (this.#us[this.#head] as number);
  }

  add(us: number, request: number, isEnd: boolean): void {
    assert(this.#head === this.#tail || us >= (this.#us[this.#tail - 1] as number));
    if (this.#tail === this.#us.length) this.#makeRoom();
    this.#us[this.#tail] = us;
    this.#what[this.#tail++] = isEnd ? ~request : request;
  }

  /** The next one; the record is used again. */
  take(): { readonly request: number; readonly isEnd: boolean } {
    assert(this.#head < this.#tail, 'there is news');
    const what = this.#what[this.#head++] as number;
    this.#taken.isEnd = what < 0;
    this.#taken.request = what < 0 ? ~what : what;
    return this.#taken;
  }

  #makeRoom(): void {
    const count = this.#tail - this.#head;
    if (count * 2 > this.#us.length) {
      const us = new Float64Array(this.#us.length * 2);
      const what = new Int32Array(us.length);
      us.set(this.#us.subarray(this.#head, this.#tail));
      what.set(this.#what.subarray(this.#head, this.#tail));
      this.#us = us;
      this.#what = what;
    } else {
      this.#us.copyWithin(0, this.#head, this.#tail);
      this.#what.copyWithin(0, this.#head, this.#tail);
    }
    this.#head = 0;
    this.#tail = count;
  }
}

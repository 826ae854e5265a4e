/**
 * The free slots of one acceptor: a FIFO over its own partition of the slot table.
 *
 * Private to the acceptor's thread; never blocks. First in, first out, so that a slot rests as long as
 * possible before its next generation begins and late messages meet a free row rather than a new one.
 */
import { assert } from '../lib/assert.ts';

export class SlotsPool {
  /** First slot of the partition. */
  readonly first: number;
  readonly size: number;
  readonly #ring: Int32Array;
  #head = 0;
  #count: number;

  constructor(first: number, size: number) {
    assert(first >= 0);
    assert(size > 0, 'an acceptor has at least one slot');
    this.first = first;
    this.size = size;
    this.#ring = Int32Array.from({ length: size }, (_, index) => first + index);
    this.#count = size;
  }

  /** Slots split evenly; what is left over belongs to nobody. */
  static partition(slots: number, acceptors: number, index: number): SlotsPool {
    const size = Math.floor(slots / acceptors);
    return new SlotsPool(index * size, size);
  }

  get inUse(): number {
    return this.size - this.#count;
  }

  /** The slot that has been free the longest, or -1. */
  take(): number {
    if (this.#count === 0) return -1;
    const slot = this.#ring[this.#head];
    assert(slot !== undefined);
    this.#head = this.#head + 1 === this.size ? 0 : this.#head + 1;
    this.#count--;
    return slot;
  }

  give(slot: number): void {
    assert(slot >= this.first && slot < this.first + this.size, 'a slot of this partition');
    assert(this.#count < this.size, 'a slot is given back once');
    const tail = this.#head + this.#count;
    this.#ring[tail >= this.size ? tail - this.size : tail] = slot;
    this.#count++;
  }
}

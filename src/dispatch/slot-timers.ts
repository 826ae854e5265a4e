/**
 * Timers of slots: a binary heap by time, at most one entry a slot. Pure.
 *
 * A heap and not a wheel: only requests that wait have an entry, so it holds at most `queue.max` a
 * model and is empty while replicas have room; its first entry is exactly when the scheduler must
 * wake. Deadlines differ per request, so the order of arrival would not do. A request that is
 * running is not here: its clocks belong to the forwarder that owns it.
 */
import { assert } from '../lib/assert.ts';
import { NONE } from './candidates.ts';

export class SlotTimers {
  #length = 0;
  readonly #heap: Int32Array;
  readonly #place: Int32Array;
  readonly #atUs: Float64Array;

  constructor(slots: number) {
    this.#heap = new Int32Array(slots);
    this.#place = new Int32Array(slots).fill(NONE);
    this.#atUs = new Float64Array(slots);
  }

  get length(): number {
    return this.#length;
  }

  /** When the earliest timer is due; Infinity when there is none. */
  get nextUs(): number {
    return this.#length === 0 ? Number.POSITIVE_INFINITY : this.#time(0);
  }

  /** The slot whose timer is earliest; NONE when there is none. */
  get first(): number {
    return this.#length === 0 ? NONE : (this.#heap[0] as number);
  }

  has(slot: number): boolean {
    return this.#place[slot] !== NONE;
  }

  set(slot: number, atUs: number): void {
    assert(this.#place[slot] === NONE, 'one timer a slot');
    this.#atUs[slot] = atUs;
    this.#put(this.#length, slot);
    this.#length++;
    this.#rise(this.#length - 1);
  }

  /** The timer of one slot, if it has one, becomes that of another. */
  move(from: number, to: number): void {
    if (!this.has(from)) return;
    const atUs = this.#atUs[from] as number;
    this.clear(from);
    this.set(to, atUs);
  }

  clear(slot: number): void {
    const index = this.#place[slot] as number;
    assert(index !== NONE, 'the slot has a timer');
    this.#place[slot] = NONE;
    this.#length--;
    if (index === this.#length) return;
    this.#put(index, this.#heap[this.#length] as number);
    this.#rise(index);
    this.#sink(index);
  }

  #time(index: number): number {
    return this.#atUs[this.#heap[index] as number] as number;
  }

  #put(index: number, slot: number): void {
    this.#heap[index] = slot;
    this.#place[slot] = index;
  }

  #swap(a: number, b: number): void {
    const slot = this.#heap[a] as number;
    this.#put(a, this.#heap[b] as number);
    this.#put(b, slot);
  }

  #rise(index: number): void {
    let at = index;
    while (at > 0) {
      const parent = (at - 1) >>> 1;
      if (this.#time(parent) <= this.#time(at)) return;
      this.#swap(at, parent);
      at = parent;
    }
  }

  #sink(index: number): void {
    let at = index;
    for (;;) {
      const left = 2 * at + 1;
      if (left >= this.#length) return;
      const right = left + 1;
      const child = right < this.#length && this.#time(right) < this.#time(left) ? right : left;
      if (this.#time(at) <= this.#time(child)) return;
      this.#swap(at, child);
      at = child;
    }
  }
}

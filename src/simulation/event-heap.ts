/**
 * Event heap: (time, source) pairs, the earliest first. Pure.
 *
 * Each source has at most one time, so setting it again moves it: no stale entries. Ties go to the
 * lower source, so the order of events depends on nothing but times and numbers. O(log n) a change.
 */
import { assert } from '../lib/assert.ts';

const ABSENT = -1;

export class EventHeap {
  readonly #heap: Int32Array;
  readonly #place: Int32Array;
  readonly #timeUs: Float64Array;
  #length = 0;

  /** Sources are 0 to `sources` - 1. */
  constructor(sources: number) {
    this.#heap = new Int32Array(sources);
    this.#place = new Int32Array(sources).fill(ABSENT);
    this.#timeUs = new Float64Array(sources);
  }

  /** Time of the next event; Infinity for none. */
  get nextUs(): number {
    return this.#length === 0 ? Number.POSITIVE_INFINITY : this.#timeOf(0);
  }

  /** Source of the next event; there is one. */
  get next(): number {
    assert(this.#length > 0, 'an event is due');
    return this.#heap[0] as number;
  }

  /** The source's time from here on; Infinity takes it out. */
  set(source: number, timeUs: number): void {
    const place = this.#place[source] as number;
    this.#timeUs[source] = timeUs;
    if (timeUs === Number.POSITIVE_INFINITY) {
      if (place !== ABSENT) this.#remove(place);
    } else if (place === ABSENT) {
      this.#put(this.#length, source);
      this.#rise(this.#length++);
    } else {
      this.#rise(place);
      this.#sink(this.#place[source] as number);
    }
  }

  #remove(place: number): void {
    this.#place[this.#heap[place] as number] = ABSENT;
    const last = this.#heap[--this.#length] as number;
    if (place === this.#length) return;
    this.#put(place, last);
    this.#rise(place);
    this.#sink(this.#place[last] as number);
  }

  #rise(from: number): void {
    let place = from;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (!this.#isBefore(place, parent)) return;
      this.#swap(place, parent);
      place = parent;
    }
  }

  #sink(from: number): void {
    let place = from;
    for (;;) {
      let child = 2 * place + 1;
      if (child >= this.#length) return;
      if (child + 1 < this.#length && this.#isBefore(child + 1, child)) child++;
      if (!this.#isBefore(child, place)) return;
      this.#swap(child, place);
      place = child;
    }
  }

  #isBefore(a: number, b: number): boolean {
    const difference = this.#timeOf(a) - this.#timeOf(b);
    return (
      difference < 0 || (difference === 0 && (this.#heap[a] as number) < (this.#heap[b] as number))
    );
  }

  #timeOf(place: number): number {
    return this.#timeUs[this.#heap[place] as number] as number;
  }

  #swap(a: number, b: number): void {
    const first = this.#heap[a] as number;
    this.#put(a, this.#heap[b] as number);
    this.#put(b, first);
  }

  #put(place: number, source: number): void {
    this.#heap[place] = source;
    this.#place[source] = place;
  }
}

/**
 * Outbox: the scheduler's end of one SPSC ring, which never refuses a record.
 *
 * Scheduler thread; never blocks. A ring has room for what its consumer can owe at once, so it is
 * full only while that thread is stalled. What does not fit then waits here in order, at most
 * `capacity` records more, and is published by flush(). Records waiting here are lost if the thread
 * dies; its successor rebuilds them from the slot table (rebuild.ts).
 */
import { assert } from '../lib/assert.ts';
import type { FieldSpec } from '../shm/layout.ts';
import { type SpscLayout, SpscProducer } from '../shm/spsc-ring.ts';

export class Outbox<F extends Record<string, FieldSpec>> {
  /** Fields of the next record, in the order of the layout; fill it, then send(). */
  readonly record: Int32Array;
  /** Records published since the last look of the owner. */
  published = 0;
  readonly #ring: SpscProducer<F>;
  readonly #width: number;
  readonly #waiting: Int32Array;
  readonly #capacity: number;
  #first = 0;
  #count = 0;

  constructor(layout: SpscLayout<F>, region: SharedArrayBuffer, capacity: number) {
    this.#ring = new SpscProducer(layout, region, capacity);
    const offsets = Object.values(this.#ring.at);
    assert(
      offsets.every((offset, i) => offset === i),
      'cells are packed in order',
    );
    this.#width = offsets.length;
    this.#capacity = capacity;
    this.record = new Int32Array(this.#width);
    this.#waiting = new Int32Array(capacity * this.#width);
  }

  /** Records that wait for room. */
  get waiting(): number {
    return this.#count;
  }

  /** Publishes the record, or keeps it until there is room. False: the ring was full. */
  send(): boolean {
    if (this.#count === 0 && this.#publish(this.record, 0)) return true;
    assert(this.#count < this.#capacity, 'a stalled thread owes a bounded number of records');
    const last = (this.#first + this.#count) % this.#capacity;
    this.#waiting.set(this.record, last * this.#width);
    this.#count++;
    return false;
  }

  flush(): void {
    while (this.#count > 0 && this.#publish(this.#waiting, this.#first * this.#width)) {
      this.#first = (this.#first + 1) % this.#capacity;
      this.#count--;
    }
  }

  #publish(source: Int32Array, from: number): boolean {
    const cell = this.#ring.begin();
    if (cell < 0) return false;
    const { words } = this.#ring;
    for (let i = 0; i < this.#width; i++) words[cell + i] = source[from + i] as number;
    this.#ring.commit();
    this.published++;
    return true;
  }
}

/**
 * SPSC ring of fixed records: one producer thread, one consumer thread, positions unwrapped int32.
 *
 * The producer fills the cell that `begin()` names with plain writes and publishes it with
 * `commit()`; the consumer reads the cell that `peek()` names and frees it with `advance()`. Neither
 * allocates. Death: a producer that dies before commit() leaves nothing visible; a consumer that dies
 * before advance() leaves the record for its successor, who may therefore see one record twice. So a
 * successor of either end goes on at the positions in the region, and the other end need not know.
 */
import { assert } from '../lib/assert.ts';
import { cells, defineLayout, type FieldSpec, type Layout, word } from './layout.ts';

type Fields = Record<string, FieldSpec>;
type SpscSpec<F extends Fields> = {
  tail: ReturnType<typeof word>;
  head: ReturnType<typeof word>;
  cell: ReturnType<typeof cells<F>>;
};
export type SpscLayout<F extends Fields> = Layout<SpscSpec<F>>;

/** The layout of a ring from `producer` to `consumer` whose records have the given fields. */
export function defineSpscLayout<F extends Fields>(
  name: string,
  producer: string,
  consumer: string,
  fields: F,
): SpscLayout<F> {
  return defineLayout(name, {
    tail: word(producer, 'Next position to write; publishes the record before it.'),
    head: word(consumer, 'Next position to read; frees the record before it.'),
    cell: cells(fields),
  });
}

/** A fresh region whose first position is `start`. */
export function createSpscRing<F extends Fields>(
  layout: SpscLayout<F>,
  capacity: number,
  start = 0,
): SharedArrayBuffer {
  assert(Number.isInteger(Math.log2(capacity)), 'capacity is a power of two');
  const region = layout.create({ cell: capacity });
  const { at } = layout.place({ cell: capacity });
  const words = new Int32Array(region);
  words[at.tail] = start | 0;
  words[at.head] = start | 0;
  return region;
}

class SpscView<F extends Fields> {
  /** The region; index it with `begin()` or `peek()` plus a field offset of `at`. */
  readonly words: Int32Array;
  readonly at: { readonly [K in keyof F]: number };
  protected readonly tail: number;
  protected readonly head: number;
  protected readonly capacity: number;
  readonly #base: number;
  readonly #stride: number;

  constructor(layout: SpscLayout<F>, region: SharedArrayBuffer, capacity: number) {
    const { at } = layout.attach(region, { cell: capacity });
    const cell = at.cell as {
      base: number;
      stride: number;
      at: { readonly [K in keyof F]: number };
    };
    this.words = new Int32Array(region);
    this.at = cell.at;
    this.tail = at.tail as number;
    this.head = at.head as number;
    this.capacity = capacity;
    this.#base = cell.base;
    this.#stride = cell.stride;
  }

  protected cellAt(position: number): number {
    return this.#base + (position & (this.capacity - 1)) * this.#stride;
  }

  /** Records published and not yet freed, 0 to capacity; for gauges. */
  depth(): number {
    // The head first: a head read after the tail may have passed it.
    const head = Atomics.load(this.words, this.head);
    return Math.min((Atomics.load(this.words, this.tail) - head) | 0, this.capacity);
  }
}

export class SpscProducer<F extends Fields> extends SpscView<F> {
  #position: number;
  /** The head as last seen; re-read only when the ring looks full. */
  #seenHead: number;

  constructor(layout: SpscLayout<F>, region: SharedArrayBuffer, capacity: number) {
    super(layout, region, capacity);
    this.#position = Atomics.load(this.words, this.tail);
    this.#seenHead = (this.#position - capacity) | 0; // looks full: the first record loads the head
  }

  /** Word index of the record to fill, or -1 when the ring is full. */
  begin(): number {
    if (((this.#position - this.#seenHead) | 0) >= this.capacity) {
      // Acquires the free cell. Pairs with the store in advance().
      this.#seenHead = Atomics.load(this.words, this.head);
      if (((this.#position - this.#seenHead) | 0) >= this.capacity) return -1;
    }
    return this.cellAt(this.#position);
  }

  /** Publishes the record that begin() named. */
  commit(): void {
    this.#position = (this.#position + 1) | 0;
    // Publishes the record. Pairs with the load in peek().
    Atomics.store(this.words, this.tail, this.#position);
  }
}

export class SpscConsumer<F extends Fields> extends SpscView<F> {
  #position: number;
  /** The tail as last seen; re-read only when the ring looks empty. */
  #seenTail: number;

  constructor(layout: SpscLayout<F>, region: SharedArrayBuffer, capacity: number) {
    super(layout, region, capacity);
    this.#position = Atomics.load(this.words, this.head);
    this.#seenTail = this.#position;
  }

  /** Word index of the oldest record, or -1 when the ring is empty. */
  peek(): number {
    if (this.#position === this.#seenTail) {
      // Acquires the records. Pairs with the store in commit().
      this.#seenTail = Atomics.load(this.words, this.tail);
      if (this.#position === this.#seenTail) return -1;
    }
    return this.cellAt(this.#position);
  }

  /** Frees the record that peek() named. */
  advance(): void {
    this.#position = (this.#position + 1) | 0;
    // Frees the cell. Pairs with the load in begin().
    Atomics.store(this.words, this.head, this.#position);
  }
}

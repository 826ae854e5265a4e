/**
 * MPSC ring with a sequence per cell (after D. Vyukov's bounded queue), at most one claim in flight
 * per producer.
 *
 * Producers never wait for each other: a full ring is a return value. Death: a producer that dies
 * between claim and publish would stop the consumer for ever at that cell; `tombstone(producer)`
 * publishes the cell as one that the consumer skips, once the thread is known to be gone (acceptors
 * alone produce, and the process ends with one, so only tests call it). A consumer that dies loses
 * nothing: its successor goes on at the head, and the slot table says what was already acted on.
 * Positions are unwrapped int32 and compared by difference.
 */
import { assert } from '../lib/assert.ts';
import { RequestKind, RequestRingLayout } from './request-ring.layout.ts';

export interface RequestRingSize {
  readonly capacity: number;
  readonly producers: number;
}

const counts = (size: RequestRingSize) => ({ intent: size.producers, cell: size.capacity });

/** Half the number circle away from `position`: the intent of a producer that claims nothing there. */
const elsewhere = (position: number): number => position ^ 0x80000000;

/** A fresh region whose first position is `start` (tests start near 2^31 and 2^32). */
export function createRequestRing(size: RequestRingSize, start = 0): SharedArrayBuffer {
  // With one cell, published and free for the next lap would be the same sequence.
  assert(size.capacity >= 2 && Number.isInteger(Math.log2(size.capacity)), 'capacity: 2, 4, 8, …');
  const region = RequestRingLayout.create(counts(size));
  const { at } = RequestRingLayout.place(counts(size));
  const words = new Int32Array(region);
  words[at.tail] = start | 0;
  words[at.head] = start | 0;
  for (let i = 0; i < size.producers; i++) {
    words[at.intent.base + i * at.intent.stride] = elsewhere(start);
  }
  for (let i = 0; i < size.capacity; i++) {
    // Cell i is first used by the position p >= start with p & mask === i.
    const ahead = (i - start) & (size.capacity - 1);
    words[at.cell.base + i * at.cell.stride + at.cell.at.sequence] = (start + ahead) | 0;
  }
  return region;
}

class RequestRingView {
  protected readonly words: Int32Array;
  protected readonly tail: number;
  protected readonly head: number;
  protected readonly capacity: number;
  readonly #base: number;
  readonly #stride: number;
  readonly #intent: number;
  readonly #intentStride: number;

  constructor(region: SharedArrayBuffer, size: RequestRingSize) {
    const { at } = RequestRingLayout.attach(region, counts(size));
    this.words = new Int32Array(region);
    this.tail = at.tail;
    this.head = at.head;
    this.capacity = size.capacity;
    this.#base = at.cell.base;
    this.#stride = at.cell.stride;
    this.#intent = at.intent.base;
    this.#intentStride = at.intent.stride;
    assert(at.cell.at.sequence === 0 && at.cell.at.lease === 3, 'cell fields as declared');
  }

  protected cellAt(position: number): number {
    return this.#base + (position & (this.capacity - 1)) * this.#stride;
  }

  protected intentAt(producer: number): number {
    return this.#intent + producer * this.#intentStride;
  }

  /** Claimed messages not yet consumed, 0 to capacity; for gauges. */
  depth(): number {
    // The head first: a head read after the tail may have passed it.
    const head = Atomics.load(this.words, this.head);
    return Math.min((Atomics.load(this.words, this.tail) - head) | 0, this.capacity);
  }
}

/** What `tombstone` found of a dead producer's last claim. */
export const Tombstone = { nothing: 0, written: 1, askAgain: 2 } as const;
export type Tombstone = (typeof Tombstone)[keyof typeof Tombstone];

/** The main thread's end: repairs what a dead producer left behind. */
export class RequestRingRepair extends RequestRingView {
  readonly #producers: number;

  constructor(region: SharedArrayBuffer, size: RequestRingSize) {
    super(region, size);
    this.#producers = size.producers;
  }

  /**
   * Publishes the unpublished claim of `producer`, whose thread is known to be gone, as a tombstone.
   * `askAgain`: a live producer is at the same position; it publishes or moves on within a few steps.
   */
  tombstone(producer: number, isLive: (producer: number) => boolean): Tombstone {
    const words = this.words;
    const position = words[this.intentAt(producer)]!; // its only writer is gone
    // In this order: who claimed the position before this load has named it in its intent until it
    // published, so whoever still holds it is seen by the scan, and whoever published by the last look.
    if (((Atomics.load(words, this.tail) - position) | 0) <= 0) return Tombstone.nothing;
    let isHeld = false;
    for (let other = 0; other < this.#producers; other++) {
      if (other === producer || !isLive(other)) continue;
      if (Atomics.load(words, this.intentAt(other)) === position) isHeld = true;
    }
    const cell = this.cellAt(position);
    if (Atomics.load(words, cell) !== position) return Tombstone.nothing;
    if (isHeld) return Tombstone.askAgain;
    words[cell + 1] = RequestKind.tombstone;
    Atomics.store(words, cell, (position + 1) | 0);
    return Tombstone.written;
  }
}

/** One producer's end. One instance per thread; `producer` is its row in the intent table. */
export class RequestRingProducer extends RequestRingView {
  readonly #intent: number;

  constructor(region: SharedArrayBuffer, size: RequestRingSize, producer: number) {
    super(region, size);
    this.#intent = this.intentAt(producer);
  }

  /** Publishes one message. False: the ring is full and nothing was written. */
  push(kind: RequestKind, slot: number, lease: number): boolean {
    const words = this.words;
    for (;;) {
      const position = Atomics.load(words, this.tail);
      const cell = this.cellAt(position);
      // A cell of the last lap: the message of `capacity` positions ago is still there, so the tail
      // has not moved and the ring is full. A cell that is ahead: the claim below fails.
      if (((Atomics.load(words, cell) - position) | 0) < 0) return false;
      // The intent precedes the claim: a claim without an intent could not be tombstoned.
      Atomics.store(words, this.#intent, position);
      if (Atomics.compareExchange(words, this.tail, position, (position + 1) | 0) !== position) {
        // An idle producer must not name a position whose claimant may die: see tombstone().
        Atomics.store(words, this.#intent, elsewhere(position));
        continue;
      }
      words[cell + 1] = kind;
      words[cell + 2] = slot;
      words[cell + 3] = lease;
      // Publishes the cell. Pairs with the load in RequestRingConsumer.peek().
      Atomics.store(words, cell, (position + 1) | 0);
      return true;
    }
  }
}

/** The scheduler's end. After `peek()` returned true the message stays readable until `advance()`. */
export class RequestRingConsumer extends RequestRingView {
  kind = 0;
  slot = 0;
  lease = 0;
  #position: number;

  constructor(region: SharedArrayBuffer, size: RequestRingSize) {
    super(region, size);
    const position = this.words[this.head]!; // written by the consumer alone
    this.#position = position;
    // A predecessor may have died inside advance(): the head has moved, the cell behind it was not freed.
    const behind = this.cellAt(position - 1);
    if (Atomics.load(this.words, behind) === position) {
      Atomics.store(this.words, behind, (position - 1 + this.capacity) | 0);
    }
  }

  /** True when a message was read into kind, slot and lease. Tombstones are skipped here. */
  peek(): boolean {
    for (;;) {
      const cell = this.cellAt(this.#position);
      // Acquires the fields. Pairs with the publishing store in push() and tombstone().
      if (Atomics.load(this.words, cell) !== ((this.#position + 1) | 0)) return false;
      this.kind = this.words[cell + 1]!;
      if (this.kind !== RequestKind.tombstone) {
        this.slot = this.words[cell + 2]!;
        this.lease = this.words[cell + 3]!;
        return true;
      }
      this.advance();
    }
  }

  /** Frees the cell that peek() read. */
  advance(): void {
    const position = this.#position;
    // The head moves first: a successor of a dead consumer starts there and finds at most one cell
    // to free. The other way round it could wait for a message that was already consumed.
    Atomics.store(this.words, this.head, (position + 1) | 0);
    Atomics.store(this.words, this.cellAt(position), (position + this.capacity) | 0);
    this.#position = (position + 1) | 0;
  }
}

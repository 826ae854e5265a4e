/**
 * Credit of the streams: how much of an answer its client has not taken yet. Forwarder threads.
 *
 * Produced bytes are counted here, consumed bytes by the acceptor; both wrap, their difference does
 * not. Counted are the payload bytes of `chunk` records; those of a `whole`, which ends its answer, as produced alone. At `window` unconsumed bytes a stream writes
 * no further record and its replica is paused, so the ring holds at most window + one record of it.
 */
import type { RequestSlots } from '../shm/request-slots.ts';

export interface CreditUser {
  /** Answer bytes in the response ring so far; wraps. */
  produced: number;
  /** Int32 index of the slot row. */
  readonly row: number;
}

export class Credit {
  readonly window: number;
  readonly #words: Int32Array;
  readonly #consumedAt: number;
  readonly #producedAt: number;

  constructor(slots: RequestSlots, window: number) {
    this.window = window;
    this.#words = slots.words;
    this.#consumedAt = slots.at.consumedBytes;
    this.#producedAt = slots.at.producedBytes;
  }

  /** What the acceptor has counted; a new answer starts to count from here. */
  consumed(row: number): number {
    // Pairs with the store of the acceptor; a value that is late is only less credit.
    return Atomics.load(this.#words, row + this.#consumedAt);
  }

  /** Counts bytes that go into the ring, in the slot too: the slot dump shows what a client holds up. */
  spend(user: CreditUser, bytes: number): void {
    user.produced = (user.produced + bytes) | 0;
    this.#words[user.row + this.#producedAt] = user.produced;
  }

  unconsumed(user: CreditUser): number {
    return (user.produced - this.consumed(user.row)) | 0;
  }

  exhausted(user: CreditUser): boolean {
    return this.unconsumed(user) >= this.window;
  }
}

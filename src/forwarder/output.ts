/**
 * What one attempt still has to tell its client: head, body bytes, then one notice that settles.
 * Forwarder threads; filled by the exchange, emptied into the response ring by response-writer.ts.
 *
 * Invariant: bytes leave in the order they came, none twice, and the notice is last.
 */
import { assert } from '../lib/assert.ts';
import type { Bagged } from '../lib/bag.ts';

/** What comes behind the bytes: the record that ends an answer, or no record: others go on. */
export const Notice = { none: 0, end: 1, whole: 2, handOver: 3 } as const;
export type Notice = (typeof Notice)[keyof typeof Notice];

/** How the exchange behind an output takes part in its end. */
export interface OutputOwner {
  /** Moves the slot to settled; false: it is no longer ours and nothing may be published. */
  claimSettlement(): boolean;
  /** The last bytes of a good answer come into the ring next, before `position`. */
  completes(position: number): void;
  /** The settling record is in the ring. */
  settled(): void;
  /** The bytes before a hand-over are in the ring. */
  handedOver(): void;
  /** All that could be written for the time being has been. */
  written(): void;
}

export class Output implements Bagged {
  readonly owner: OutputOwner;
  readonly slot: number;
  readonly lease: number;
  readonly row: number;
  /** Answer bytes in the response ring so far; wraps. */
  produced: number;
  /** ResponseHead and header blob, until they are in the ring; part of the record of a `whole`. */
  head: Uint8Array | undefined;
  notice: Notice = Notice.none;
  /** Catalogue number of an `end`. */
  error = 0;
  /** In the queue of the writer. */
  queued = false;
  /** Among the starved of the writer. */
  place = -1;
  #segments: Uint8Array[] = [];
  /** Bytes of the first segment that have been written. */
  #offset = 0;
  #bytes = 0;

  constructor(owner: OutputOwner, slot: number, lease: number, row: number, produced: number) {
    this.owner = owner;
    this.slot = slot;
    this.lease = lease;
    this.row = row;
    this.produced = produced;
  }

  /** Body bytes waiting. */
  get bytes(): number {
    return this.#bytes;
  }

  push(segment: Uint8Array): void {
    assert(this.notice === Notice.none, 'nothing follows the notice');
    if (segment.length === 0) return;
    this.#segments.push(segment);
    this.#bytes += segment.length;
  }

  /** Forgets the bytes nobody will read. */
  clear(): void {
    this.#segments = [];
    this.#offset = 0;
    this.#bytes = 0;
  }

  /** Takes everything back that is not in the ring. */
  withdraw(): void {
    this.clear();
    this.head = undefined;
    this.notice = Notice.none;
  }

  /** Moves `count` waiting bytes to `target` at `at`. */
  moveTo(target: Uint8Array, at: number, count: number): void {
    assert(count <= this.#bytes);
    const first = this.#segments[0];
    if (this.#offset === 0 && first !== undefined && first.length === count) {
      target.set(first, at); // by far the most frequent case: one read, one record
      if (this.#segments.length === 1) this.#segments.length = 0;
      else this.#segments.shift();
    } else this.#gather(target, at, count);
    this.#bytes -= count;
  }

  #gather(target: Uint8Array, at: number, count: number): void {
    let done = 0;
    let used = 0;
    while (done < count) {
      const segment = this.#segments[used] as Uint8Array;
      const take = Math.min(segment.length - this.#offset, count - done);
      target.set(segment.subarray(this.#offset, this.#offset + take), at + done);
      done += take;
      this.#offset += take;
      if (this.#offset < segment.length) break;
      this.#offset = 0;
      used++;
    }
    this.#segments.splice(0, used);
  }
}

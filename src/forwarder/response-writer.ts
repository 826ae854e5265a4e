/**
 * Writes the outputs of all streams between this forwarder and one acceptor into their ring. Forwarder
 * threads; never waits.
 *
 * Outputs queue up during an event-loop turn and are written once at its end, so a burst of small
 * events becomes one record and one doorbell. A full ring keeps the queue as it is, in order, for a
 * later flush; a stream without credit leaves the queue and waits among the starved, so the ring
 * never waits for a client. Death: see byte-ring.ts; a record is visible whole or not at all.
 */
import { Bag } from '../lib/bag.ts';
import { faultPoint } from '../lib/fault-point.ts';
import type { ByteRingProducer } from '../shm/byte-ring.ts';
import { ResponseKind, writeUint32 } from '../shm/response-records.ts';
import type { Credit } from './credit.ts';
import { Notice, type Output } from './output.ts';

/** Streams share the ring in records of at most this size, so none holds the others up for long. */
const recordBytesMax = 16 * 1024;
const endBytes = 8;
/** The acceptor has room for 4 KiB of head in the first burst of an answer, its own headers included. */
const headBytesMax = 3 * 1024;

const Flush = { written: 0, starved: 1, full: 2 } as const;
type Flush = (typeof Flush)[keyof typeof Flush];

export class ResponseWriter {
  readonly #ring: ByteRingProducer;
  readonly #credit: Credit;
  readonly #recordBytesMax: number;
  readonly #onQueued: () => void;
  #queue: Output[] = [];
  #spare: Output[] = [];
  readonly #starved = new Bag<Output>();
  readonly #onStarved = (output: Output): void => {
    if (this.#credit.exhausted(output)) return;
    this.#starved.remove(output);
    this.enqueue(output);
  };
  /** The last flush found the ring full. */
  blocked = false;

  /** `onQueued` is told that there is something to flush. */
  constructor(ring: ByteRingProducer, credit: Credit, onQueued: () => void) {
    this.#ring = ring;
    this.#credit = credit;
    this.#recordBytesMax = Math.min(recordBytesMax, ring.payloadMax);
    this.#onQueued = onQueued;
  }

  /** What one record can carry at the very most. */
  get recordBytesLimit(): number {
    return this.#ring.payloadMax;
  }

  /** What the head of an answer may take. */
  get headBytesMax(): number {
    return Math.min(headBytesMax, this.#recordBytesMax);
  }

  /** Everything before `position` is in the ring. */
  hasReached(position: number): boolean {
    return this.#ring.hasReached(position);
  }

  /** Takes note that `output` has something to write. */
  enqueue(output: Output): void {
    if (output.queued) return;
    output.queued = true;
    this.#queue.push(output);
    this.#onQueued();
  }

  /** Queues the starved streams that have credit again, and what a full ring left behind. */
  recheck(): void {
    this.#starved.visitAll(this.#onStarved);
    if (this.#queue.length > 0) this.#onQueued();
  }

  /** The stream is paused and waits for its client to take bytes. */
  starve(output: Output): void {
    this.#starved.add(output);
  }

  forget(output: Output): void {
    this.#starved.remove(output);
  }

  /** Writes what fits. True when the acceptor has something to read. */
  flush(): boolean {
    const queue = this.#queue;
    if (queue.length === 0) return false;
    this.#queue = this.#spare; // what owners queue meanwhile is for the next turn
    let wrote = false;
    let index = 0;
    this.blocked = false;
    for (; index < queue.length; index++) {
      const output = queue[index] as Output;
      const depth = output.produced;
      const result = this.#write(output);
      wrote ||= result !== Flush.full || output.produced !== depth;
      if (result === Flush.full) break;
      output.queued = false;
      if (result === Flush.starved) this.#starved.add(output);
      output.owner.written();
    }
    if (index < queue.length) {
      this.blocked = true;
      this.#queue = queue.slice(index).concat(this.#queue);
    }
    queue.length = 0;
    this.#spare = queue;
    return wrote;
  }

  #write(output: Output): Flush {
    const { head } = output;
    if (head !== undefined && output.notice !== Notice.whole) {
      const offset = this.#ring.reserve(head.length);
      if (offset < 0) return Flush.full;
      this.#ring.data.set(head, offset);
      this.#ring.commit(ResponseKind.head, output.slot, output.lease, head.length);
      output.head = undefined;
    }
    if (output.notice !== Notice.whole) {
      const result = this.#writeChunks(output);
      if (result !== Flush.written) return result;
    }
    return output.notice === Notice.none || this.#settle(output) ? Flush.written : Flush.full;
  }

  #writeChunks(output: Output): Flush {
    while (output.bytes > 0) {
      if (this.#credit.exhausted(output)) return Flush.starved;
      const length = Math.min(output.bytes, this.#recordBytesMax);
      const offset = this.#ring.reserve(length);
      if (offset < 0) return Flush.full;
      const isEnd = output.notice === Notice.end && output.error === 0;
      const isLast = isEnd && length === output.bytes;
      const kind = isLast ? ResponseKind.last : ResponseKind.chunk;
      output.moveTo(this.#ring.data, offset, length);
      this.#credit.spend(output, length);
      // Said before it is so: the position tells a successor whether it came to that.
      if (isLast) output.owner.completes(this.#ring.positionBehind(length));
      this.#ring.commit(kind, output.slot, output.lease, length);
      if (isLast) faultPoint('all-written');
    }
    return Flush.written;
  }

  /** Writes the record that settles. The slot moves first: whoever reads the record may free it. */
  #settle(output: Output): boolean {
    if (output.notice === Notice.handOver) {
      this.#starved.remove(output);
      output.owner.handedOver();
      return true;
    }
    const { data } = this.#ring;
    const head = output.notice === Notice.whole ? output.head : undefined;
    const length = head === undefined ? endBytes : head.length + output.bytes;
    const offset = this.#ring.reserve(length);
    if (offset < 0) return false;
    // Nobody waits for credit of it: what it is billed for reads that there was an answer.
    if (head !== undefined) output.produced = (output.produced + output.bytes) | 0;
    if (!output.owner.claimSettlement()) return true;
    faultPoint('done-before-release');
    if (head === undefined) {
      writeUint32(data, offset, output.error);
      writeUint32(data, offset + 4, 0);
      this.#ring.commit(ResponseKind.end, output.slot, output.lease, length);
    } else {
      data.set(head, offset);
      output.moveTo(data, offset + head.length, output.bytes);
      this.#ring.commit(ResponseKind.whole, output.slot, output.lease, length);
    }
    this.#starved.remove(output);
    output.owner.settled();
    return true;
  }
}

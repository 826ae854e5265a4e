/**
 * The forwarder's end of an acceptor under test: answers written as records of the response ring, within
 * the credit that the acceptor gives.
 */
import { nowUs } from '../../src/lib/clock.ts';
import { encodeHeaders } from '../../src/protocol/header-codec.ts';
import { ByteRingProducer } from '../../src/shm/byte-ring.ts';
import type { SharedMemory } from '../../src/shm/memory.ts';
import { SlotState } from '../../src/shm/request-slots.layout.ts';
import { RequestSlots } from '../../src/shm/request-slots.ts';
import {
  ResponseKind,
  responseHeadBytes,
  writeResponseHead,
  writeUint32,
} from '../../src/shm/response-records.ts';
import { eventually } from './until.ts';

export interface Arrival {
  readonly slot: number;
  readonly lease: number;
}

export const answerHead = encodeHeaders(['content-type', 'application/json']) as Uint8Array;
const streamHead = encodeHeaders(['content-type', 'text/event-stream']) as Uint8Array;

export abstract class ForwarderEnd {
  readonly memory: SharedMemory;
  readonly slots: RequestSlots;
  readonly streamWindow: number;
  readonly #responses: ByteRingProducer;
  #creditWaiters: (() => void)[] = [];

  constructor(memory: SharedMemory, streamWindow: number) {
    this.memory = memory;
    this.streamWindow = streamWindow;
    this.slots = new RequestSlots(memory.slots, memory.size.slots);
    this.#responses = new ByteRingProducer(
      memory.responseRings[0]![0]!,
      memory.size.responseRingBytes,
    );
  }

  abstract ringAcceptor(): void;

  column(slot: number, name: keyof RequestSlots['at'], index = 0): number {
    return this.slots.words[this.slots.row(slot) + this.slots.at[name] + index]!;
  }

  /** As the scheduler does: a new attempt on replica row 0. The lease of the attempt. */
  dispatch({ slot, lease }: Arrival): number {
    const { words, at } = this.slots;
    const row = this.slots.row(slot);
    words[row + at.replica] = 0;
    words[row + at.forwarder] = 0;
    this.slots.writeTime(slot, at.pickedUs, nowUs());
    this.slots.writeTime(slot, at.dispatchedUs, nowUs());
    const attempt = this.slots.startAttempt(slot, lease);
    if (attempt < 0) throw new Error('the slot was not queued');
    return attempt;
  }

  /** As a forwarder does: the complete answer in one record. */
  whole(arrival: Arrival, body: string | Uint8Array, status = 200, headers = answerHead): void {
    const { slot } = arrival;
    const lease = this.dispatch(arrival);
    this.slots.transition(slot, lease, SlotState.dispatched, SlotState.settled);
    const bytes = typeof body === 'string' ? Buffer.from(body) : body;
    const length = responseHeadBytes + headers.length + bytes.length;
    const offset = this.#reserve(length);
    writeResponseHead(this.#responses.data, offset, {
      status,
      headerLength: headers.length,
      contentLength: bytes.length,
      replica: 0,
    });
    this.#responses.data.set(headers, offset + responseHeadBytes);
    this.#responses.data.set(bytes, offset + responseHeadBytes + headers.length);
    this.#responses.commit(ResponseKind.whole, slot, lease, length);
    this.ringAcceptor();
  }

  /** Opens a streamed answer of replica row 0, which goes on at `nextRow` before anybody reads of it. */
  head(arrival: Arrival, status = 200, headers = streamHead, nextRow = 0): number {
    const { slot } = arrival;
    const lease = this.dispatch(arrival);
    this.slots.words[this.slots.row(slot) + this.slots.at.replica] = nextRow;
    this.slots.transition(slot, lease, SlotState.dispatched, SlotState.streaming);
    const length = responseHeadBytes + headers.length;
    const offset = this.#reserve(length);
    writeResponseHead(this.#responses.data, offset, {
      status,
      headerLength: headers.length,
      contentLength: -1,
      replica: 0,
    });
    this.#responses.data.set(headers, offset + responseHeadBytes);
    this.#responses.commit(ResponseKind.head, slot, lease, length);
    this.ringAcceptor();
    return lease;
  }

  /** False: the ring has no room; nothing was written. */
  tryChunk(slot: number, lease: number, bytes: Uint8Array): boolean {
    const offset = this.#responses.reserve(bytes.length);
    if (offset < 0) return false;
    this.#responses.data.set(bytes, offset);
    this.#responses.commit(ResponseKind.chunk, slot, lease, bytes.length);
    this.ringAcceptor();
    return true;
  }

  /** Streams `bytes` in records of `recordBytes`, never past the window, as a forwarder would. */
  async stream(slot: number, lease: number, bytes: Uint8Array, recordBytes: number): Promise<void> {
    for (let at = 0; at < bytes.length; ) {
      const record = bytes.subarray(at, at + recordBytes);
      const isFree = at - this.column(slot, 'consumedBytes') < this.streamWindow;
      if (isFree && this.tryChunk(slot, lease, record)) at += record.length;
      else await this.#credit();
    }
  }

  /** The last chunk and the end, as a forwarder that has both. */
  async last(slot: number, lease: number, bytes: Uint8Array): Promise<void> {
    await eventually('room in the response ring', () => this.#responses.depth() === 0);
    const offset = this.#reserve(bytes.length);
    this.#responses.data.set(bytes, offset);
    this.#responses.commit(ResponseKind.last, slot, lease, bytes.length);
    this.end(slot, lease);
  }

  end(slot: number, lease: number, error = 0): void {
    this.slots.transition(slot, lease, SlotState.streaming, SlotState.settled);
    this.#end(slot, lease, error);
  }

  #end(slot: number, lease: number, error: number): void {
    const offset = this.#reserve(8);
    writeUint32(this.#responses.data, offset, error);
    writeUint32(this.#responses.data, offset + 4, 0);
    this.#responses.commit(ResponseKind.end, slot, lease, 8);
    this.ringAcceptor();
  }

  /** The forwarder's doorbell rang. */
  wakeCredit(): boolean {
    const waiters = this.#creditWaiters;
    this.#creditWaiters = [];
    for (const resolve of waiters) resolve();
    return false;
  }

  #reserve(length: number): number {
    const offset = this.#responses.reserve(length);
    if (offset < 0) throw new Error('the response ring is full');
    return offset;
  }

  #credit(): Promise<void> {
    return new Promise((resolve) => {
      this.#creditWaiters.push(resolve);
    });
  }
}

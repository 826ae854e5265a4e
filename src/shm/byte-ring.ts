/**
 * SPSC ring of variable-length records: one forwarder -> one acceptor, the bytes of all the streams
 * the two share; one acceptor or forwarder -> the tracer, what spans are made of.
 *
 * A record is a 16-byte head (payload length, kind, slot, lease) and its payload, rounded up to 16
 * bytes and never split: where it would pass the end of the buffer a padding record fills the rest
 * and the record starts at offset 0. Positions are unwrapped int32 byte counts. One store of the tail
 * publishes a record, one store of the head frees it. Death: as in spsc-ring.ts.
 */
import { assert } from '../lib/assert.ts';
import { bytes, defineLayout, word } from './layout.ts';

const defineByteRing = (name: string, producer: string, consumer: string) =>
  defineLayout(name, {
    tail: word(producer, 'Byte position of the next record; publishes the record before it.'),
    head: word(consumer, 'Byte position of the oldest record; frees what lies before it.'),
    data: bytes(producer, 'Records: length, kind, slot, lease (int32 each), then the payload.'),
  });

export const ResponseRingLayout = defineByteRing('response_ring', 'forwarder', 'acceptor');
/** Slot and lease of its records are 0. */
export const SpanRingLayout = defineByteRing('span_ring', 'acceptor or forwarder', 'tracer');

const headBytes = 16;
const padding = -1;
const recordBytes = (payload: number): number => (headBytes + payload + 15) & ~15;

/** A fresh region whose first position is `start`, a multiple of 16. */
export function createByteRing(
  capacity: number,
  start = 0,
  layout = ResponseRingLayout,
): SharedArrayBuffer {
  assert(Number.isInteger(Math.log2(capacity)) && capacity >= 64, 'capacity is a power of two');
  assert(start % 16 === 0, 'positions are multiples of 16');
  const region = layout.create({ data: capacity });
  const { at } = layout.place({ data: capacity });
  const words = new Int32Array(region);
  words[at.tail] = start | 0;
  words[at.head] = start | 0;
  return region;
}

class ByteRingView {
  /** The records; index with `payload` and `length`. */
  readonly data: Uint8Array;
  readonly capacity: number;
  protected readonly words: Int32Array;
  protected readonly tail: number;
  protected readonly head: number;
  readonly #dataWord: number;

  constructor(region: SharedArrayBuffer, capacity: number, layout = ResponseRingLayout) {
    const { at } = layout.attach(region, { data: capacity });
    this.words = new Int32Array(region);
    this.data = new Uint8Array(region, at.data, capacity);
    this.capacity = capacity;
    this.tail = at.tail;
    this.head = at.head;
    this.#dataWord = at.data / 4;
  }

  /** Int32 index of the record head at byte offset `offset` of data. */
  protected wordAt(offset: number): number {
    return this.#dataWord + offset / 4;
  }

  /** Bytes published and not yet freed, 0 to capacity; for gauges. */
  depth(): number {
    // The head first: a head read after the tail may have passed it.
    const head = Atomics.load(this.words, this.head);
    return Math.min((Atomics.load(this.words, this.tail) - head) | 0, this.capacity);
  }
}

export class ByteRingProducer extends ByteRingView {
  #position: number;
  #seenHead: number;

  constructor(region: SharedArrayBuffer, capacity: number, layout = ResponseRingLayout) {
    super(region, capacity, layout);
    this.#position = Atomics.load(this.words, this.tail);
    this.#seenHead = (this.#position - capacity) | 0; // looks full: the first record loads the head
  }

  /** The largest payload one record may carry: a record always fits once the ring is empty. */
  get payloadMax(): number {
    return this.capacity / 2 - headBytes;
  }

  /** Offset in `data` where a payload of up to `length` bytes may be written, or -1: no room. */
  reserve(length: number): number {
    assert(length >= 0 && length <= this.payloadMax, 'payload fits half the ring');
    const need = recordBytes(length);
    const offset = this.#position & (this.capacity - 1);
    const rest = this.capacity - offset;
    if (need <= rest) return this.#hasRoom(need) ? offset + headBytes : -1;
    if (!this.#hasRoom(rest + need)) return -1;
    this.words[this.wordAt(offset) + 1] = padding;
    this.#position = (this.#position + rest) | 0; // published together with the record that follows
    return headBytes;
  }

  /** The position behind the reserved record, if its payload has `length` bytes; wraps. */
  positionBehind(length: number): number {
    return (this.#position + recordBytes(length)) | 0;
  }

  /** Everything before `position` has been published, by this producer or the one before it. */
  hasReached(position: number): boolean {
    return ((this.#position - position) | 0) >= 0;
  }

  /** Publishes the reserved record with the payload length it really has. */
  commit(kind: number, slot: number, lease: number, length: number): void {
    const index = this.wordAt(this.#position & (this.capacity - 1));
    this.words[index] = length;
    this.words[index + 1] = kind;
    this.words[index + 2] = slot;
    this.words[index + 3] = lease;
    this.#position = (this.#position + recordBytes(length)) | 0;
    // Publishes the record and any padding before it. Pairs with the load in peek().
    Atomics.store(this.words, this.tail, this.#position);
  }

  #hasRoom(need: number): boolean {
    if (this.capacity - ((this.#position - this.#seenHead) | 0) >= need) return true;
    // Acquires the freed bytes. Pairs with the store in advance().
    this.#seenHead = Atomics.load(this.words, this.head);
    return this.capacity - ((this.#position - this.#seenHead) | 0) >= need;
  }
}

export class ByteRingConsumer extends ByteRingView {
  /** The record that peek() found: payload is an offset in `data`, length its bytes. */
  kind = 0;
  slot = 0;
  lease = 0;
  payload = 0;
  length = 0;
  #position: number;
  #seenTail: number;

  constructor(region: SharedArrayBuffer, capacity: number, layout = ResponseRingLayout) {
    super(region, capacity, layout);
    this.#position = Atomics.load(this.words, this.head);
    this.#seenTail = this.#position;
  }

  /** Where the next record begins; wraps. */
  get position(): number {
    return this.#position;
  }

  /** True when a record was read; its payload stays valid until advance(). */
  peek(): boolean {
    for (;;) {
      if (this.#position === this.#seenTail) {
        // Acquires the records. Pairs with the store in commit().
        this.#seenTail = Atomics.load(this.words, this.tail);
        if (this.#position === this.#seenTail) return false;
      }
      const offset = this.#position & (this.capacity - 1);
      const index = this.wordAt(offset);
      this.kind = this.words[index + 1]!;
      if (this.kind === padding) {
        // Padding is never published alone, so a record follows it.
        this.#position = (this.#position + this.capacity - offset) | 0;
        continue;
      }
      this.length = this.words[index]!;
      this.slot = this.words[index + 2]!;
      this.lease = this.words[index + 3]!;
      this.payload = offset + headBytes;
      return true;
    }
  }

  /** Frees the record that peek() found, and the padding before it. */
  advance(): void {
    this.#position = (this.#position + recordBytes(this.length)) | 0;
    // Frees the bytes. Pairs with the load in #hasRoom().
    Atomics.store(this.words, this.head, this.#position);
  }
}

/**
 * What spans are made of, on its way from acceptors and forwarders to the tracer: one record for each
 * sampled request and one for each exchange with a replica, written when it is over.
 *
 * Only sampled requests write, so a record is JSON. The writer never waits: what finds the ring full is
 * dropped and told to `onDrop`. A writer that dies leaves whole records; the exchanges it had open leave
 * none, and their request is a tree without those branches. A reader that dies leaves the rest for its
 * successor, which may read one record twice; a collector takes a span twice.
 */
import { ByteRingConsumer, ByteRingProducer, SpanRingLayout } from './byte-ring.ts';
import { spanRingBytes } from './memory.ts';

/** All times are microseconds of lib/clock.ts; 0: it has not happened. Counts are -1 where unknown. */
export interface RequestSpan {
  readonly kind: 'request';
  readonly traceId: string;
  readonly spanId: string;
  /** Span of the client; '' for a trace that began here. */
  readonly parentId: string;
  readonly startUs: number;
  readonly endUs: number;
  /** Published to the scheduler, when it never was given to a replica. */
  readonly queuedUs: number;
  readonly firstTokenUs: number;
  /** Id of the route (protocol/routes.ts). */
  readonly route: number;
  readonly requestId: string;
  readonly tenant: string;
  /** Row of the model table, of the model it came for; -1: none of them. */
  readonly model: number;
  /** The one that it was given to last; -1: to none. */
  readonly servedModel: number;
  readonly adapter: string;
  readonly isStream: boolean;
  /** Of the answer; 0: there was none. */
  readonly status: number;
  /** Code of the error; '' for none. */
  readonly error: string;
  readonly attempts: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
  readonly cachedTokens: number;
}

/** How an exchange came about. */
export type ExchangeKind = 'first' | 'retry' | 'hedge' | 'continuation';

export interface AttemptSpan {
  readonly kind: 'attempt';
  readonly traceId: string;
  readonly spanId: string;
  /** Span of the request. */
  readonly parentId: string;
  readonly startUs: number;
  readonly endUs: number;
  /** Of the first exchange: the time in the queue before it. */
  readonly queuedUs: number;
  readonly dispatchedUs: number;
  readonly sentUs: number;
  readonly firstByteUs: number;
  readonly firstTokenUs: number;
  readonly route: number;
  readonly model: number;
  readonly isStream: boolean;
  readonly maxTokens: number;
  readonly replica: string;
  readonly url: string;
  readonly attempt: number;
  readonly exchange: ExchangeKind;
  /** Requests in the call to the replica. */
  readonly sharers: number;
  /** Status of the replica; 0 before its head. */
  readonly status: number;
  /** Name of its outcome class (rings.layout.ts). */
  readonly outcome: string;
  readonly error: string;
  readonly inputTokens: number;
  readonly outputTokens: number;
  readonly cachedTokens: number;
}

export type SpanRecord = RequestSpan | AttemptSpan;

const recordKind = 1;
const encoder = new TextEncoder();

export class SpanWriter {
  readonly #ring: ByteRingProducer;
  readonly #onDrop: () => void;

  constructor(region: SharedArrayBuffer, onDrop: () => void) {
    this.#ring = new ByteRingProducer(region, spanRingBytes, SpanRingLayout);
    this.#onDrop = onDrop;
  }

  write(record: SpanRecord): void {
    const bytes = encoder.encode(JSON.stringify(record));
    const at = bytes.length > this.#ring.payloadMax ? -1 : this.#ring.reserve(bytes.length);
    if (at < 0) {
      this.#onDrop();
      return;
    }
    this.#ring.data.set(bytes, at);
    this.#ring.commit(recordKind, 0, 0, bytes.length);
  }
}

export class SpanReader {
  readonly #ring: ByteRingConsumer;
  readonly #decoder = new TextDecoder();

  constructor(region: SharedArrayBuffer) {
    this.#ring = new ByteRingConsumer(region, spanRingBytes, SpanRingLayout);
  }

  /** The oldest record, which is then freed; undefined: there is none. */
  next(): SpanRecord | undefined {
    const ring = this.#ring;
    if (!ring.peek()) return undefined;
    // A copy: the decoder may refuse shared memory.
    const bytes = ring.data.slice(ring.payload, ring.payload + ring.length);
    ring.advance();
    return JSON.parse(this.#decoder.decode(bytes)) as SpanRecord;
  }
}

/**
 * The span of one exchange with a replica: its id is the parent that the replica is told of, its record
 * is written once the exchange is over. Forwarder threads; only requests that are traced have one.
 */
import { errorOf } from '../errors/catalogue.ts';
import { nowUs } from '../lib/clock.ts';
import {
  newSpanId,
  parseTraceparent,
  type Traceparent,
  traceparentOf,
} from '../protocol/traceparent.ts';
import { RequestFlag } from '../shm/request-slots.layout.ts';
import { attemptOf, type RequestSlots } from '../shm/request-slots.ts';
import { Outcome } from '../shm/rings.layout.ts';
import type { ExchangeKind, SpanWriter } from '../shm/span-records.ts';
import type { ReplicaAddress } from '../shm/threads.ts';

const outcomeNames = Object.keys(Outcome);

/** What the exchange has come to. */
export interface ExchangeEnd {
  readonly startUs: number;
  readonly sentUs: number;
  readonly firstByteUs: number;
  readonly status: number;
  readonly outcome: Outcome;
  /** Error catalogue number; 0 for none. */
  readonly error: number;
  readonly inputTokens: number;
  readonly outputTokens: number;
  readonly cachedTokens: number;
}

export class AttemptTrace {
  /** For the replica. */
  readonly traceparent: string;
  readonly #own: Traceparent;
  readonly #parentId: string;
  readonly #replica: ReplicaAddress;

  /** `request`: the span of the request, as the acceptor wrote it. */
  private constructor(request: Traceparent, replica: ReplicaAddress) {
    this.#own = { ...request, spanId: newSpanId() };
    this.#parentId = request.spanId;
    this.#replica = replica;
    this.traceparent = traceparentOf(this.#own);
  }

  static of(text: string, replica: ReplicaAddress): AttemptTrace | undefined {
    const request = parseTraceparent(text);
    return request === undefined ? undefined : new AttemptTrace(request, replica);
  }

  /** Writes the record, unless somebody else has settled the slot: its row may be another request's. */
  end(
    spans: SpanWriter,
    slots: RequestSlots,
    slot: number,
    lease: number,
    exchange: ExchangeKind,
    end: ExchangeEnd,
  ): void {
    if (!slots.holds(slot, lease)) return;
    const { words, at } = slots;
    const row = slots.row(slot);
    const read = (field: number): number => words[row + field] as number;
    const firstTokenUs = slots.readTime(slot, at.firstTokenUs);
    spans.write({
      kind: 'attempt',
      traceId: this.#own.traceId,
      spanId: this.#own.spanId,
      parentId: this.#parentId,
      startUs: end.startUs,
      endUs: nowUs(),
      queuedUs: exchange === 'first' ? slots.readTime(slot, at.publishedUs) : 0,
      dispatchedUs: exchange === 'first' ? slots.readTime(slot, at.dispatchedUs) : 0,
      sentUs: end.sentUs,
      firstByteUs: end.firstByteUs,
      // Of the request: it is of this exchange if it came after its head.
      firstTokenUs: end.firstByteUs > 0 && firstTokenUs >= end.firstByteUs ? firstTokenUs : 0,
      route: read(at.route),
      model: read(at.model),
      isStream: (read(at.flags) & RequestFlag.stream) !== 0,
      maxTokens: read(at.maxTokens),
      replica: this.#replica.name,
      url: this.#replica.url,
      attempt: attemptOf(lease),
      exchange,
      sharers: read(at.sharers),
      status: end.status,
      outcome: outcomeNames[end.outcome] ?? '',
      error: end.error === 0 ? '' : errorOf(end.error).code,
      inputTokens: end.inputTokens,
      outputTokens: end.outputTokens,
      cachedTokens: end.cachedTokens,
    });
  }
}

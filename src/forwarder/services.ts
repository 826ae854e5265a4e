/**
 * What every exchange of a forwarder shares: views of the shared regions, counters, the way to the
 * scheduler. Forwarder threads; one instance each.
 */
import { assert } from '../lib/assert.ts';
import type { Usage } from '../protocol/completion-observer.ts';
import type { FieldSpec } from '../shm/layout.ts';
import type { MetricsWriter } from '../shm/metrics.ts';
import type { ReplicaProgress } from '../shm/replica-progress.ts';
import type { RequestSlots } from '../shm/request-slots.ts';
import { EventKind, type EventRingLayout, Outcome } from '../shm/rings.layout.ts';
import { SpanWriter } from '../shm/span-records.ts';
import type { SpscLayout, SpscProducer } from '../shm/spsc-ring.ts';
import type { ForwarderStart } from '../shm/threads.ts';
import { metrics } from '../telemetry/catalogue.ts';
import type { ClockLimits } from './clocks.ts';
import type { Credit } from './credit.ts';
import type { Failure } from './failure.ts';
import type { ResponseKeeper } from './response-keeper.ts';
import type { ResponseWriter } from './response-writer.ts';
import type { SmallReply } from './small-replies.ts';

export interface Services {
  readonly slots: RequestSlots;
  readonly metrics: MetricsWriter;
  readonly credit: Credit;
  /** Per acceptor. */
  readonly writers: readonly ResponseWriter[];
  readonly events: EventWriter;
  readonly limits: ClockLimits;
  readonly progress: ReplicaProgress;
  readonly responses: ResponseKeeper;
  /** Who judges the reply to the request in the slot; undefined: it passes as it is. */
  judgeOf(slot: number): SmallReply | undefined;
  /** Undefined: requests are not traced. */
  readonly spans: SpanWriter | undefined;
  /** A replica refuses the gateway itself, which no retry cures: for the log, loudly. */
  onMisconfigured(replica: string, error: number): void;
}

export function openSpans(
  { memory, index }: ForwarderStart,
  counters: MetricsWriter,
): SpanWriter | undefined {
  const ring = memory.spanRings[memory.size.acceptors + index];
  return ring && new SpanWriter(ring, () => counters.add(metrics.traceRecordsDropped, 0, 1));
}

/** The exchange an event is about. */
interface EventSource {
  readonly slot: number;
  readonly lease: number;
  /** The second one of its attempt. */
  readonly isHedge: boolean;
}

/** The record fields of a ring layout. */
export type FieldsOf<L> =
  L extends SpscLayout<infer F extends Record<string, FieldSpec>> ? F : never;
type EventProducer = SpscProducer<FieldsOf<typeof EventRingLayout>>;

/**
 * The forwarder's end of its event ring.
 *
 * The scheduler is woken for what it must act on: an attempt given back, or a first token or an end
 * while requests wait for room. Everything else it finds in the ring before its next decision, and no
 * later than its longest sleep, so its counters are exact whenever they are used.
 */
export class EventWriter {
  readonly #ring: EventProducer;
  readonly #slots: RequestSlots;
  readonly #control: Int32Array;
  readonly #waiting: number;
  readonly #onUrgent: () => void;

  /** `waiting` is the index of the control word that counts waiting requests. */
  constructor(
    ring: EventProducer,
    slots: RequestSlots,
    control: Int32Array,
    waiting: number,
    onUrgent: () => void,
  ) {
    this.#ring = ring;
    this.#slots = slots;
    this.#control = control;
    this.#waiting = waiting;
    this.#onUrgent = onUrgent;
  }

  started(source: EventSource, afterUs: number): void {
    this.#write(EventKind.started, source, Outcome.ok, 0, 0, undefined, afterUs);
  }

  released(
    source: EventSource,
    outcome: Outcome,
    error: number,
    retryAfterMs: number,
    usage: Usage | undefined,
  ): void {
    this.#write(EventKind.released, source, outcome, error, retryAfterMs, usage, 0);
  }

  dropped(source: EventSource, { outcome, error }: Failure, retryAfterMs: number): void {
    this.#write(EventKind.dropped, source, outcome, error, retryAfterMs, undefined, 0);
  }

  #write(
    kind: EventKind,
    { slot, lease, isHedge }: EventSource,
    outcome: Outcome,
    error: number,
    retryAfterMs: number,
    usage: Usage | undefined,
    afterUs: number,
  ): void {
    const { words, at } = this.#ring;
    const cell = this.#ring.begin();
    // Three events an attempt and one attempt a slot at a time: memory.ts sizes the ring for all slots.
    assert(cell >= 0, 'the event ring has room for every slot');
    words[cell + at.kind] = kind;
    words[cell + at.slot] = slot;
    words[cell + at.lease] = lease;
    words[cell + at.outcome] = outcome;
    words[cell + at.error] = error;
    words[cell + at.retryAfterMs] = retryAfterMs;
    words[cell + at.promptTokens] = usage?.prompt ?? -1;
    words[cell + at.completionTokens] = usage?.completion ?? -1;
    words[cell + at.hedge] = isHedge ? 1 : 0;
    words[cell + at.afterUs] = Math.min(afterUs, 0x7fffffff);
    this.#ring.commit();
    // Behind the event: a successor may tell it twice, which is harmless, but never fails to (take-over.ts).
    if (kind === EventKind.released) {
      this.#slots.words[this.#slots.row(slot) + this.#slots.at.told] = lease;
    }
    // An attempt that went well and has an error was for nothing: a larger model is to answer.
    const isUrgent = outcome !== Outcome.ok || error !== 0;
    if (isUrgent || Atomics.load(this.#control, this.#waiting) > 0) this.#onUrgent();
  }
}

/**
 * All shared regions of one gateway, created by the main thread and handed to every other.
 *
 * Each thread attaches the views it needs; which thread may write which word is said in the layouts.
 */
import { limitRowsMax } from '../config/capacities.ts';
import { createArena } from './arena.ts';
import { createByteRing, SpanRingLayout } from './byte-ring.ts';
import { ControlLayout, type ThreadCounts, ThreadId } from './control.layout.ts';
import { explainRecords } from './explain.layout.ts';
import { createExplain } from './explain.ts';
import { AskRingLayout, LeasesLayout } from './leases.layout.ts';
import { LedgerLayout } from './ledger.layout.ts';
import { ledgerCounts } from './ledger.ts';
import { LimitsLayout } from './limits.layout.ts';
import { ReplicaTableLayout, replicaRows } from './replica-table.layout.ts';
import { createRequestRing, type RequestRingSize } from './request-ring.ts';
import { createRequestSlots } from './request-slots.ts';
import { DispatchRingLayout, EventRingLayout, ReplyRingLayout } from './rings.layout.ts';
import { createSpscRing } from './spsc-ring.ts';
import { responsesDefault } from './stored-responses.layout.ts';
import { createStoredResponses } from './stored-responses.ts';

/** Models a gateway may be configured with; further label values are counted as `other`. */
export const modelRows = 64;

export interface MemorySize extends ThreadCounts {
  readonly slots: number;
  readonly arenaBytes: number;
  readonly responseRingBytes: number;
  /** Stored responses whose replica is remembered; a power of two. */
  readonly responses?: number;
  /** Requests are traced. Absent: they are not, and there is no ring for it. */
  readonly isTraced?: boolean;
}

/** Limits that are shared by way of a store; there only where there is one. */
export interface SharedLimits {
  readonly leases: SharedArrayBuffer;
  /** Scheduler -> limiter. */
  readonly asks: SharedArrayBuffer;
}

export interface SharedMemory {
  readonly size: MemorySize;
  readonly control: SharedArrayBuffer;
  readonly slots: SharedArrayBuffer;
  readonly arena: SharedArrayBuffer;
  readonly replicas: SharedArrayBuffer;
  readonly explain: SharedArrayBuffer;
  readonly limits: SharedArrayBuffer;
  readonly sharedLimits: SharedLimits | null;
  readonly ledger: SharedArrayBuffer;
  readonly responses: SharedArrayBuffer;
  readonly requestRing: SharedArrayBuffer;
  /** Scheduler -> forwarder f. */
  readonly dispatchRings: readonly SharedArrayBuffer[];
  /** Forwarder f -> scheduler. */
  readonly eventRings: readonly SharedArrayBuffer[];
  /** Scheduler -> acceptor a. */
  readonly replyRings: readonly SharedArrayBuffer[];
  /** Forwarder f -> acceptor a at [f][a]. */
  readonly responseRings: readonly (readonly SharedArrayBuffer[])[];
  /** Acceptors, then forwarders -> tracer; none while requests are not traced. */
  readonly spanRings: readonly SharedArrayBuffer[];
}

const ringCapacity = (records: number): number => 2 ** Math.ceil(Math.log2(records));

/** A slot has at most an arrival and a cancel. */
export const requestRingSize = (size: MemorySize): RequestRingSize => ({
  capacity: ringCapacity(2 * size.slots),
  producers: size.acceptors,
});
/**
 * Records each dispatch, event and reply ring holds. A slot has at most a start, a hedge and an abort,
 * three events an attempt, one reply.
 */
export const recordRingCapacity = (size: MemorySize): number => ringCapacity(3 * size.slots);

export const controlCounts = (size: MemorySize) => ({
  queued: modelRows,
  thread: ThreadId.total(size),
});
/** Int32 index of the bell of each thread in the control block, by its ThreadId. */
export function bellsOf(size: MemorySize): (thread: number) => number {
  const { base, stride, at } = ControlLayout.place(controlCounts(size)).at.thread;
  return (thread) => base + thread * stride + at.bell;
}
/** Some 400 records of each thread wait for the tracer, which looks ten times a second. */
export const spanRingBytes = 256 * 1024;

export const replicaCounts = { replica: replicaRows } as const;

export const responsesOf = ({ responses = responsesDefault }: MemorySize): number => responses;

export const limitCounts = { row: limitRowsMax } as const;

/** A row is in it once, or once more after a scheduler has died. */
export const askRingCapacity = ringCapacity(2 * limitRowsMax);

export function createMemory(size: MemorySize): SharedMemory {
  const records = recordRingCapacity(size);
  const forwarders = Array.from({ length: size.forwarders });
  const acceptors = Array.from({ length: size.acceptors });
  return {
    size,
    control: ControlLayout.create(controlCounts(size)),
    slots: createRequestSlots(size.slots),
    arena: createArena(size.arenaBytes),
    replicas: ReplicaTableLayout.create(replicaCounts),
    explain: createExplain(explainRecords),
    limits: LimitsLayout.create(limitCounts),
    sharedLimits:
      size.limiters === 1
        ? {
            leases: LeasesLayout.create(limitCounts),
            asks: createSpscRing(AskRingLayout, askRingCapacity),
          }
        : null,
    ledger: LedgerLayout.create(ledgerCounts),
    responses: createStoredResponses(responsesOf(size)),
    requestRing: createRequestRing(requestRingSize(size)),
    dispatchRings: forwarders.map(() => createSpscRing(DispatchRingLayout, records)),
    eventRings: forwarders.map(() => createSpscRing(EventRingLayout, records)),
    replyRings: acceptors.map(() => createSpscRing(ReplyRingLayout, records)),
    responseRings: forwarders.map(() =>
      acceptors.map(() => createByteRing(size.responseRingBytes)),
    ),
    spanRings: (size.isTraced === true ? [...acceptors, ...forwarders] : []).map(() =>
      createByteRing(spanRingBytes, 0, SpanRingLayout),
    ),
  };
}

/**
 * Everything the parts of one acceptor share: its views of the shared memory, its private pools, its
 * metrics and log. Built once per thread; owns no behaviour.
 */
import { assert } from '../lib/assert.ts';
import { DueList } from '../lib/due-list.ts';
import { Estimates } from '../lib/estimates.ts';
import type { Reckoning } from '../lib/reckoning.ts';
import { ArenaPartition, arenaBytes } from '../shm/arena.ts';
import { ControlLayout, ThreadId } from '../shm/control.layout.ts';
import { explainRecords } from '../shm/explain.layout.ts';
import { ExplainReader } from '../shm/explain.ts';
import { LedgerTable } from '../shm/ledger.ts';
import { LimitLevels } from '../shm/limit-levels.ts';
import { controlCounts, requestRingSize } from '../shm/memory.ts';
import { MetricsWriter } from '../shm/metrics.ts';
import { Readiness } from '../shm/readiness.ts';
import { RequestRingProducer } from '../shm/request-ring.ts';
import { RequestSlots } from '../shm/request-slots.ts';
import { createThreadLog } from '../shm/thread-log.ts';
import type { AcceptorStart } from '../shm/threads.ts';
import { metrics as catalogue } from '../telemetry/catalogue.ts';
import { defaultMetricDims } from '../telemetry/labels.ts';
import type { Logger } from '../telemetry/log.ts';
import type { UsageFile } from '../telemetry/usage-file.ts';
import { KeyRing } from './key-ring.ts';
import { ModelTable } from './model-table.ts';
import type { Request } from './request.ts';
import { SchedulerBell } from './scheduler-bell.ts';
import { SlotsPool } from './slots-pool.ts';
import { openTracing, type Tracing } from './tracing.ts';
import { Uploads } from './uploads.ts';
import { openUsage } from './usage.ts';

/** A request that took this long is always in the access log. */
const slowRequestMs = 30_000;
/** The allocator deals in pages. */
const pageBytes = 4096;

export interface AcceptorState {
  readonly start: AcceptorStart;
  readonly slots: RequestSlots;
  readonly pool: SlotsPool;
  readonly arena: ArenaPartition;
  readonly arenaData: Uint8Array;
  readonly requestRing: RequestRingProducer;
  readonly control: Control;
  readonly schedulerBell: SchedulerBell;
  readonly readiness: Readiness;
  readonly explain: ExplainReader;
  readonly metrics: MetricsWriter;
  readonly log: Logger;
  /** Counts and logs what a handler threw. */
  readonly failed: (error: unknown) => void;
  /** Requests by slot, counted from the first of the partition. */
  readonly requests: (Request | undefined)[];
  /** Streams whose clients have nothing of an answer yet, by when a comment is due to them. */
  readonly silent: DueList<Request>;
  readonly limits: LimitLevels;
  /** Bodies that are being read, by their tenants. */
  readonly uploads: Uploads;
  readonly ledger: LedgerTable;
  /** Bytes per token of prompts, by model (context-limit.ts). */
  readonly estimates: readonly Estimates[];
  /** What requests of each key are reckoned with where nobody has counted (billed.ts). */
  readonly reckonings: WeakMap<object, Reckoning>;
  /** Of requests that are over; undefined: nobody wants to know. */
  readonly usage: UsageFile | undefined;
  /** Undefined: requests are not traced. */
  readonly tracing: Tracing | undefined;
  /** Who is let in, and what they may ask for: numbers of splits in the one are those of the other. */
  keyRing: KeyRing;
  models: ModelTable;
  /** Names of replicas by row. */
  readonly replicaNames: string[];
  /** Some replica takes batches, or did: requests are given the key of theirs. */
  batches: boolean;
}

/** The control block as an acceptor uses it. */
export interface Control {
  readonly words: Int32Array;
  /** Int32 index of the draining word. */
  readonly draining: number;
  /** Int32 index of the overload word. */
  readonly overload: number;
  /** Int32 index of the word of shared files. */
  readonly sharesFiles: number;
  /** Int32 indexes of the bells. */
  readonly ownBell: number;
  readonly forwarderBells: readonly number[];
  readonly schedulerBell: number;
}

export function createAcceptorState(start: AcceptorStart): AcceptorState {
  const { memory, index, models, splits } = start;
  const { size } = memory;
  const metrics = new MetricsWriter(start.metrics, defaultMetricDims);
  const pool = SlotsPool.partition(size.slots, size.acceptors, index);
  const share = Math.floor(size.arenaBytes / size.acceptors / pageBytes) * pageBytes;
  const control = attachControl(start);
  const replicaNames: string[] = [];
  for (const { row, name } of start.replicas) replicaNames[row] = name;
  const limits = new LimitLevels(memory);
  const log = createThreadLog(`acceptor-${index}`, start.log, metrics, slowRequestMs);
  return {
    start,
    slots: new RequestSlots(memory.slots, size.slots),
    pool,
    arena: new ArenaPartition(index * share, share),
    arenaData: arenaBytes(memory.arena, size.arenaBytes),
    requestRing: new RequestRingProducer(memory.requestRing, requestRingSize(size), index),
    control,
    schedulerBell: new SchedulerBell(control.words, control.schedulerBell),
    readiness: new Readiness(memory),
    explain: new ExplainReader(memory.explain, explainRecords),
    metrics,
    log,
    failed: (error) => {
      metrics.add(catalogue.handlerErrors, 0, 1);
      log.error('handler failed', { err: error });
    },
    requests: Array.from({ length: pool.size }),
    silent: new DueList(),
    limits,
    uploads: new Uploads(limits.table),
    ledger: new LedgerTable(memory.ledger),
    estimates: models.map(() => new Estimates()),
    reckonings: new WeakMap(),
    usage: openUsage(start, control, metrics, log),
    tracing: openTracing(start, metrics),
    keyRing: new KeyRing(start.keys),
    models: new ModelTable(models, splits),
    replicaNames,
    batches: start.replicas.some(({ takesBatches }) => takesBatches),
  };
}

function attachControl({ memory, index }: AcceptorStart): Control {
  const { size, control } = memory;
  const { at } = ControlLayout.attach(control, controlCounts(size));
  const { base, stride } = at.thread;
  const rowOf = (thread: number): number => base + thread * stride;
  assert(at.thread.at.bell === 0, 'the bell opens the row');
  return {
    words: new Int32Array(control),
    draining: at.draining,
    overload: at.overload,
    sharesFiles: at.sharesFiles,
    ownBell: rowOf(ThreadId.acceptor(index)),
    forwarderBells: Array.from({ length: size.forwarders }, (_, forwarder) =>
      rowOf(ThreadId.forwarder(forwarder, size)),
    ),
    schedulerBell: rowOf(ThreadId.scheduler),
  };
}

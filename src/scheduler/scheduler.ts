/**
 * Scheduler: the loop around the brain. Drains events and requests, lets the brain decide, wakes
 * whom it gave something to, sleeps.
 *
 * The only thread that blocks (BlockingBell). It takes what is there at once, at most a batch, and
 * rings each bell once a batch. A message is freed only after it was acted on, so a thread that dies
 * leaves it to its successor, which sees it as late. Nothing here logs, parses or, once it runs,
 * allocates per request.
 */
import { Brain } from '../dispatch/brain.ts';
import { NONE } from '../dispatch/candidates.ts';
import { type FirstToken, RetryRule, Verdict } from '../dispatch/decisions.ts';
import { createArrival, createRelease } from '../dispatch/empty-records.ts';
import { nowUs } from '../lib/clock.ts';
import { faultPoint } from '../lib/fault-point.ts';
import { tenantLanes } from '../protocol/request-keys.ts';
import { ControlLayout, ThreadId, ThreadPhase } from '../shm/control.layout.ts';
import { BlockingBell } from '../shm/doorbell.ts';
import { LimitTable } from '../shm/limits.ts';
import {
  controlCounts,
  type MemorySize,
  modelRows,
  recordRingCapacity,
  requestRingSize,
} from '../shm/memory.ts';
import { MetricsWriter } from '../shm/metrics.ts';
import { replicaRows } from '../shm/replica-table.layout.ts';
import { RequestKind } from '../shm/request-ring.layout.ts';
import { RequestRingConsumer } from '../shm/request-ring.ts';
import { SlotState } from '../shm/request-slots.layout.ts';
import { attemptOf, generationOf, leaseOf, RequestSlots, stateOf } from '../shm/request-slots.ts';
import { EventKind, EventRingLayout, Outcome } from '../shm/rings.layout.ts';
import { SpscConsumer } from '../shm/spsc-ring.ts';
import type { ModelRow, SchedulerStart } from '../shm/threads.ts';
import { metrics as catalogue } from '../telemetry/catalogue.ts';
import { defaultMetricDims } from '../telemetry/labels.ts';
import { prefixesOf, readArrival } from './arrivals.ts';
import { Audit } from './audit.ts';
import { Executor } from './executor.ts';
import { rebuild } from './rebuild.ts';
import { retryRuleOf } from './refusals.ts';
import { ReplicaRows } from './replica-rows.ts';
import { sharedLimitsOf } from './shared-limits.ts';
import { endedOf, isFailure, verdictOf } from './verdicts.ts';

/** A batch ends after so many messages or so much time: bells are rung, timers and events served. */
const batchMax = 256;
const batchUs = 500;
/** Longest sleep; also what a lost wake-up costs at most. */
const sleepMsMax = 25;
/** Sleep while a full ring keeps records waiting. */
const retryFullMs = 1;
const beatUs = 50_000;
/** Far below the interval of reports, and for 256 replicas still a small part of a percent of the thread. */
const reportsUs = 50_000;
const lagWindowUs = 1_000_000;
/** A slow observer finds others slow (Lifeguard, arXiv 1707.00788). */
const lagUsMax = 100_000;
/** A forwarder that has not beaten for so long may be dying: what it has not told it may still tell. */
const silentUs = 500_000;

const { at: controlAt } = ControlLayout.place({ queued: modelRows, thread: 1 });
const createEventConsumer = (region: SharedArrayBuffer, capacity: number) =>
  new SpscConsumer(EventRingLayout, region, capacity);
type EventConsumer = ReturnType<typeof createEventConsumer>;

/** So often a replica that refuses the key of the gateway is asked whether it still does. */
const misconfiguredMs = 1000;

export class Scheduler {
  readonly #slots: RequestSlots;
  readonly #replicas: ReplicaRows;
  readonly #metrics: MetricsWriter;
  readonly #executor: Executor;
  readonly #brain: Brain;
  readonly #audit: Audit;
  readonly #requests: RequestRingConsumer;
  readonly #events: readonly EventConsumer[];
  readonly #bell: BlockingBell;
  readonly #control: Int32Array;
  readonly #controlFloats: Float64Array;
  /** Word of this thread's control row. */
  readonly #row: number;
  readonly #models: number;
  readonly #size: MemorySize;
  readonly #totalTimeoutUs: number;
  readonly #release = createRelease();
  readonly #firstToken: FirstToken = {
    ...{ slot: 0, generation: 0, attempt: 0, hedge: false, afterUs: 0 },
  };
  readonly #arrival = createArrival();
  readonly #deadlineOf = (slot: number): number =>
    this.#slots.deadlineUs(slot, this.#totalTimeoutUs);
  #stopping = false;
  #beatAtUs = 0;
  #reportsAtUs = 0;
  #lagUs = 0;
  #lagSinceUs = 0;

  constructor(start: SchedulerStart) {
    const { memory } = start;
    const { size } = memory;
    ControlLayout.attach(memory.control, controlCounts(size));
    this.#control = new Int32Array(memory.control);
    this.#controlFloats = new Float64Array(memory.control);
    this.#row = controlAt.thread.base + ThreadId.scheduler * controlAt.thread.stride;
    this.#bell = new BlockingBell(this.#control, this.#row + controlAt.thread.at.bell);
    this.#slots = new RequestSlots(memory.slots, size.slots);
    this.#metrics = new MetricsWriter(start.metrics, defaultMetricDims);
    this.#replicas = new ReplicaRows(memory.replicas);
    this.#executor = new Executor(memory, this.#slots, this.#replicas, this.#metrics);
    this.#requests = new RequestRingConsumer(memory.requestRing, requestRingSize(size));
    const capacity = recordRingCapacity(size);
    this.#events = memory.eventRings.map((region) => createEventConsumer(region, capacity));
    this.#models = start.models.length;
    this.#size = size;
    this.#totalTimeoutUs = start.totalTimeout * 1000;
    this.#brain = new Brain(
      {
        slots: size.slots,
        replicaRows,
        models: start.models.map((rules) => ({ ...rules, holdTokens: start.holdTokens })),
        tenants: tenantLanes,
        prefixes: prefixesOf(this.#slots),
        limits: new LimitTable(memory.limits),
        sharedLimits: sharedLimitsOf(start),
        seed: start.seed,
        queueMax: start.queueMax,
        queueTimeoutMs: start.queueTimeout,
        ...{ retry: start.retry, hedge: start.hedge },
        breaker: start.breaker,
        slowStartUs: start.slowStartUs,
      },
      this.#executor,
    );
    const startUs = nowUs();
    this.#readReplicas(startUs);
    rebuild(this.#slots, this.#brain, this.#executor, this.#deadlineOf, startUs);
    this.#audit = new Audit(
      this.#slots,
      this.#brain,
      startUs,
      (slot) => this.#isAway(slot),
      () => this.#metrics.add(catalogue.inFlightLeaks, 0, 1),
    );
  }

  /** Serves until `shouldStop`, which is asked a few times a second, says so. */
  run(shouldStop: () => boolean): void {
    this.#beat(nowUs()); // before it counts as running: the last beat may be the predecessor's
    this.#setPhase(ThreadPhase.running);
    for (;;) {
      const startUs = nowUs();
      if (this.#beat(startUs) && shouldStop()) break;
      const isMore = this.#turn(startUs);
      this.#lagUs = Math.max(this.#lagUs, nowUs() - startUs);
      if (!isMore) this.#sleep();
    }
    this.#setPhase(ThreadPhase.stopped);
  }

  /** What a reload may change of them. Between two turns. */
  setModels(models: readonly ModelRow[]): void {
    this.#brain.fallbacks.setLists(models);
  }

  /** One batch. True: more is there already. */
  #turn(startUs: number): boolean {
    this.#executor.flush();
    if (this.#replicas.changed) this.#readReplicas(startUs);
    if (startUs - this.#reportsAtUs >= reportsUs) this.#readReports(startUs);
    if (!this.#stopping && Atomics.load(this.#control, controlAt.stopping) === 1) {
      this.#stopping = true;
      this.#brain.stop(startUs);
    }
    let isMore = this.#drainEvents();
    isMore = this.#drainRequests() || isMore;
    const now = nowUs();
    if (this.#brain.nextTimerUs <= now) {
      this.#executor.thinkingSinceUs = now;
      this.#brain.tick(now);
    }
    this.#audit.step(now);
    this.#executor.ringBells();
    this.#publishGauges();
    return isMore;
  }

  #sleep(): void {
    this.#bell.arm();
    if (this.#hasWork()) {
      this.#bell.disarm();
      return;
    }
    const timerMs = (this.#brain.nextTimerUs - nowUs()) / 1000;
    const limitMs = this.#executor.isBacklogged ? retryFullMs : sleepMsMax;
    this.#bell.sleep(Math.max(0, Math.min(timerMs, limitMs)));
  }

  /** The last look before sleep: everything whose writer rings the bell. */
  #hasWork(): boolean {
    if (this.#requests.peek() || this.#replicas.changed) return true;
    for (const events of this.#events) if (events.peek() >= 0) return true;
    return !this.#stopping && Atomics.load(this.#control, controlAt.stopping) === 1;
  }

  #drainEvents(): boolean {
    let isMore = false;
    for (const events of this.#events) {
      let count = 0;
      for (let cell = events.peek(); cell >= 0; cell = events.peek()) {
        if (++count > batchMax) {
          isMore = true;
          break;
        }
        this.#onEvent(events, cell);
        events.advance();
      }
    }
    return isMore;
  }

  #onEvent({ words, at }: EventConsumer, cell: number): void {
    const slot = words[cell + at.slot] as number;
    const lease = words[cell + at.lease] as number;
    const generation = generationOf(lease);
    const attempt = attemptOf(lease);
    const hedge = words[cell + at.hedge] === 1;
    const kind = words[cell + at.kind];
    if (kind === EventKind.started) {
      const first = this.#firstToken;
      first.slot = slot;
      first.generation = generation;
      first.attempt = attempt;
      first.hedge = hedge;
      first.afterUs = words[cell + at.afterUs] as number;
      const now = nowUs();
      this.#executor.thinkingSinceUs = now;
      if (!this.#brain.firstToken(first, now)) this.#countLate();
      return;
    }
    const stamp = this.#slots.stamp(slot);
    const outcome = words[cell + at.outcome] as number;
    const release = this.#release;
    release.slot = slot;
    release.generation = generation;
    release.attempt = attempt;
    release.hedge = hedge;
    release.retryAfterMs = words[cell + at.retryAfterMs] as number;
    release.error = words[cell + at.error] as number;
    release.promptTokens = words[cell + at.promptTokens] as number;
    release.completionTokens = words[cell + at.completionTokens] as number;
    const isDropped = kind === EventKind.dropped;
    release.settled =
      !isDropped && (stateOf(stamp) !== SlotState.resuming || leaseOf(stamp) !== lease);
    release.continues = this.#slots.isContinued(slot);
    release.retry = release.settled ? RetryRule.never : retryRuleOf(release.error);
    const verdict = verdictOf(outcome);
    release.refused = outcome === Outcome.clientError;
    release.ended = endedOf(outcome, release.error);
    const isExcused = verdict === Verdict.bad && this.#isLagging();
    release.verdict = isExcused ? Verdict.none : verdict;
    // A replica that refuses connections, or our key, fails at once, so it looks the least loaded: it is
    // paused as a busy one is, until the probes take it out or somebody mends its key.
    const isRefusing = release.retry === RetryRule.anywhere && !isExcused;
    const isMisconfigured = release.retry === RetryRule.unserved;
    if (isMisconfigured) release.retryAfterMs = misconfiguredMs;
    release.busy = outcome === Outcome.busy || isRefusing || isMisconfigured;
    const { replica: ofFirst, hedgeReplica } = this.#slots.at;
    const field = this.#slots.row(slot) + (hedge ? hedgeReplica : ofFirst);
    const replica = this.#slots.words[field] as number;
    const now = nowUs();
    this.#executor.thinkingSinceUs = now;
    const isKnown = isDropped ? this.#brain.drop(release, now) : this.#brain.release(release, now);
    if (!isKnown) this.#countLate();
    else if (isFailure(outcome)) {
      this.#replicas.countFailed(replica);
      this.#metrics.add(catalogue.replicaErrors, replica, 1);
    }
  }

  #drainRequests(): boolean {
    const requests = this.#requests;
    let startUs = 0;
    for (let count = 0; requests.peek(); count++) {
      const now = nowUs();
      // Counted from the first request, which is always taken, however long the events took.
      if (count === 0) startUs = now;
      else if (count === batchMax || now - startUs > batchUs) return true;
      const { slot, lease } = requests;
      faultPoint('popped');
      if (requests.kind === RequestKind.arrive) this.#onArrival(slot, lease, now);
      else if (!this.#brain.cancel(slot, generationOf(lease), now)) this.#countLate();
      requests.advance();
    }
    return false;
  }

  #onArrival(slot: number, lease: number, now: number): void {
    const slots = this.#slots;
    const stamp = slots.stamp(slot);
    if (stateOf(stamp) !== SlotState.queued || leaseOf(stamp) !== lease) {
      this.#countLate();
      return;
    }
    const brain = this.#brain;
    const generation = generationOf(lease);
    // The slot was settled, freed and claimed again while the end of its last attempt is on its way.
    const isReused = brain.runningAttempt(slot) !== NONE && brain.generation(slot) !== generation;
    if (isReused) this.#drainEvents();
    slots.writeTime(slot, slots.at.queuedUs, now);
    this.#executor.thinkingSinceUs = now;
    readArrival(slots, slot, this.#deadlineOf(slot), this.#arrival);
    if (!brain.arrive(this.#arrival, now)) this.#countLate();
  }

  #readReplicas(now: number): void {
    this.#executor.thinkingSinceUs = now;
    this.#replicas.read((row, facts) => this.#brain.updateReplica(row, facts, now));
  }

  #readReports(now: number): void {
    this.#reportsAtUs = now;
    this.#executor.thinkingSinceUs = now;
    this.#replicas.readReports((row, report) => this.#brain.reportEngine(row, report, now));
  }

  #publishGauges(): void {
    for (let row = 0; row < this.#replicas.count; row++) {
      this.#replicas.setLoad(
        row,
        this.#brain.fleet.inFlight(row),
        this.#brain.fleet.contextTokens(row),
      );
      if (this.#replicas.setBreaker(row, this.#brain.fleet.breakerState(row))) {
        this.#metrics.add(catalogue.replicaEjections, row, 1);
      }
    }
    let waiting = 0;
    for (let model = 0; model < this.#models; model++) {
      const word = controlAt.queued + model;
      const queued = this.#brain.queued(model);
      if (this.#control[word] !== queued) Atomics.store(this.#control, word, queued);
      waiting += queued;
    }
    // Before the last look at the event rings: a forwarder that still reads 0 and does not ring has
    // published its event before that look.
    if (this.#control[controlAt.waiting] !== waiting) {
      Atomics.store(this.#control, controlAt.waiting, waiting);
    }
  }

  /** True when a beat was due. */
  #beat(now: number): boolean {
    if (now - this.#beatAtUs < beatUs) return false;
    this.#beatAtUs = now;
    const { at } = controlAt.thread;
    this.#controlFloats[(this.#row + at.beatUs) / 2] = now;
    Atomics.add(this.#control, this.#row + at.beats, 1);
    if (now - this.#lagSinceUs >= lagWindowUs) {
      this.#controlFloats[(this.#row + at.lagUs) / 2] = this.#lagUs;
      this.#lagUs = 0;
      this.#lagSinceUs = now;
    }
    return true;
  }

  /** A thread of ours stood still for a while of the last second: nobody is blamed for what was late. */
  #isLagging(): boolean {
    if (this.#lagUs > lagUsMax) return true;
    const { base, stride, at } = controlAt.thread;
    for (let id = 0; id < ThreadId.total(this.#size); id++) {
      const word = base + id * stride + at.lagUs;
      if ((this.#controlFloats[word / 2] as number) > lagUsMax) return true;
    }
    return false;
  }

  /** The forwarder of the slot's attempt is dead, or shows no sign of life. */
  #isAway(slot: number): boolean {
    const { base, stride, at } = controlAt.thread;
    const { words, at: field } = this.#slots;
    const forwarder = words[this.#slots.row(slot) + field.forwarder] as number;
    const row = base + ThreadId.forwarder(forwarder, this.#size) * stride;
    if (this.#control[row + at.phase] !== ThreadPhase.running) return true;
    return nowUs() - (this.#controlFloats[(row + at.beatUs) / 2] as number) > silentUs;
  }

  #setPhase(phase: ThreadPhase): void {
    Atomics.store(this.#control, this.#row + controlAt.thread.at.phase, phase);
  }

  #countLate(): void {
    this.#metrics.add(catalogue.lateEvents, 0, 1);
  }
}

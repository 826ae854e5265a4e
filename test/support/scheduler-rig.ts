/**
 * A scheduler thread on real shared memory; the test plays the main thread, the acceptors and the
 * forwarders through the very rings they use.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { type Member, Membership, type ReplicaSpec } from '../../src/gateway/membership.ts';
import { assert } from '../../src/lib/assert.ts';
import { nowMs, nowUs } from '../../src/lib/clock.ts';
import { ControlLayout, ThreadId, ThreadPhase } from '../../src/shm/control.layout.ts';
import { ring } from '../../src/shm/doorbell.ts';
import {
  controlCounts,
  createMemory,
  recordRingCapacity,
  requestRingSize,
  type SharedMemory,
} from '../../src/shm/memory.ts';
import { createMetricsRegion } from '../../src/shm/metrics.layout.ts';
import { MetricsReader, type MetricsSnapshot } from '../../src/shm/metrics.ts';
import { RequestKind } from '../../src/shm/request-ring.layout.ts';
import { RequestRingProducer } from '../../src/shm/request-ring.ts';
import { HedgeFlag, SlotState } from '../../src/shm/request-slots.layout.ts';
import { RequestSlots } from '../../src/shm/request-slots.ts';
import {
  DispatchKind,
  DispatchRingLayout,
  EventKind,
  EventRingLayout,
  Outcome,
  ReplyRingLayout,
} from '../../src/shm/rings.layout.ts';
import { SpscConsumer, SpscProducer } from '../../src/shm/spsc-ring.ts';
import type { FromThread, SchedulerStart } from '../../src/shm/threads.ts';
import { defaultMetricDims } from '../../src/telemetry/labels.ts';
import { breakerRules } from './brain-harness.ts';

/** How long a test waits for the thread before it fails; never part of a pass. */
const waitLimitMs = 15_000;

export interface Dispatched {
  readonly kind: number;
  readonly slot: number;
  readonly lease: number;
  readonly replica: number;
  readonly forwarder: number;
  /** 1: the next record is of the same batch. */
  readonly more: number;
}
export interface Reply {
  readonly slot: number;
  readonly lease: number;
  readonly error: number;
  readonly retryAfterMs: number;
}
export interface RigOptions extends Partial<Omit<SchedulerStart, 'memory' | 'metrics'>> {
  readonly slots?: number;
  readonly forwarders?: number;
}

export class SchedulerRig {
  readonly memory: SharedMemory;
  readonly slots: RequestSlots;
  readonly members: Membership;
  readonly control: Int32Array;
  readonly #options: RigOptions;
  readonly #metrics = createMetricsRegion(defaultMetricDims);
  readonly #requests: RequestRingProducer;
  readonly #dispatches;
  readonly #events;
  readonly #replies;
  readonly #controlAt;
  #worker: Worker | undefined;
  #death: unknown;
  #free: number[];

  constructor(options: RigOptions = {}) {
    const { slots = 64, forwarders = 1 } = options;
    const size = {
      slots,
      forwarders,
      acceptors: 1,
      arenaBytes: 1 << 20,
      responseRingBytes: 1 << 12,
    };
    this.#options = options;
    this.memory = createMemory(size);
    this.slots = new RequestSlots(this.memory.slots, slots);
    this.members = new Membership(this.memory);
    this.control = new Int32Array(this.memory.control);
    this.#controlAt = ControlLayout.place(controlCounts(size)).at;
    const { base, stride, at } = this.#controlAt.thread;
    for (let i = 0; i < size.forwarders; i++) {
      const row = base + ThreadId.forwarder(i, size) * stride;
      this.control[row + at.phase] = ThreadPhase.running;
      new Float64Array(this.memory.control)[(row + at.beatUs) / 2] = Number.POSITIVE_INFINITY;
    }
    const capacity = recordRingCapacity(size);
    this.#requests = new RequestRingProducer(this.memory.requestRing, requestRingSize(size), 0);
    this.#dispatches = this.memory.dispatchRings.map(
      (region) => new SpscConsumer(DispatchRingLayout, region, capacity),
    );
    this.#events = this.memory.eventRings.map(
      (region) => new SpscProducer(EventRingLayout, region, capacity),
    );
    this.#replies = new SpscConsumer(ReplyRingLayout, this.memory.replyRings[0]!, capacity);
    this.#free = Array.from({ length: slots }, (_, slot) => slot);
  }

  /** Worst delay of a batch of the scheduler, as it tells it once a second. */
  get lagUs(): number {
    const { base, stride, at } = this.#controlAt.thread;
    const row = base + ThreadId.scheduler * stride;
    return new Float64Array(this.memory.control)[(row + at.lagUs) / 2] as number;
  }

  async start(): Promise<void> {
    const { slots: _slots, forwarders: _forwarders, ...given } = this.#options;
    const workerData: SchedulerStart = {
      thread: 'scheduler',
      memory: this.memory,
      metrics: this.#metrics,
      log: { level: 'info', sample: 0, pretty: false },
      models: [{ name: 'm', aliases: [], policy: 'least_in_flight', sessionAffinity: true }],
      ...{ seed: 1, queueMax: 1000, queueTimeout: 30_000, totalTimeout: 600_000 },
      holdTokens: Number.POSITIVE_INFINITY,
      retry: { maxAttempts: 3, budget: 0.2, budgetMin: 3 },
      hedge: { automatic: false, budget: 0.02 },
      ...{ breaker: breakerRules, slowStartUs: 0, sharedLimits: null },
      ...given,
    };
    const worker = new Worker(new URL('../../src/scheduler/main.ts', import.meta.url), {
      workerData,
    });
    this.#worker = worker;
    worker.on('error', (error) => {
      this.#death = error;
    });
    await new Promise<void>((resolve, reject) => {
      worker.once('message', (message: FromThread) => {
        if (message.kind === 'ready') resolve();
        else reject(new Error(`unexpected ${message.kind}`));
      });
      worker.once('error', reject);
    });
  }

  /** Ends the thread in order; resolves with its exit code. */
  async stop(): Promise<number> {
    const worker = this.#worker;
    if (worker === undefined) return 0;
    this.#worker = undefined;
    const exited = new Promise<number>((resolve) => worker.once('exit', resolve));
    worker.postMessage({ kind: 'stop' });
    return exited;
  }

  /** Ends the thread wherever it is. */
  async kill(): Promise<void> {
    await this.#worker?.terminate();
    this.#worker = undefined;
  }

  replica(
    name: string,
    maxInFlight = 256,
    healthy = true,
    batching?: ReplicaSpec['batching'],
    model = 0,
  ): Member {
    const member = this.members.add(
      {
        ...{ name, url: 'http://127.0.0.1:1', api_key: '', weight: 1, max_in_flight: maxInFlight },
        ...{ prefill_us: 21.2, resident_us: 0.06, kv_tokens: 0, adapters: [], batching },
      },
      model,
    );
    assert(member !== undefined);
    this.members.activate(member);
    this.members.setHealthy(member, healthy, '');
    return member;
  }

  get freeSlots(): number {
    return this.#free.length;
  }

  /** Acceptor: claims a slot and publishes a request. Returns slot and lease. */
  submit(deadlineMs = 0, batchKey = 0, hedgeMs = -1): { slot: number; lease: number } {
    const claimed = this.claim(deadlineMs, batchKey, hedgeMs);
    assert(this.#requests.push(RequestKind.arrive, claimed.slot, claimed.lease));
    this.ringScheduler();
    return claimed;
  }

  /** Acceptor: everything but the message to the scheduler. */
  claim(deadlineMs = 0, batchKey = 0, hedgeMs = -1): { slot: number; lease: number } {
    const slot = this.#free.shift();
    assert(slot !== undefined, 'a slot is free');
    const { slots } = this;
    const { at, words } = slots;
    const lease = slots.claim(slot);
    const row = slots.row(slot);
    words[row + at.clientGone] = 0;
    words[row + at.acceptor] = 0;
    words[row + at.model] = words[row + at.askedModel] = words[row + at.adapter] = 0;
    words[row + at.onwardModel] = 0;
    words[row + at.deadlineMs] = deadlineMs;
    words[row + at.batchKey] = batchKey;
    words[row + at.hedgeMs] = hedgeMs;
    const now = nowUs();
    slots.writeTime(slot, at.arrivedUs, now);
    slots.writeTime(slot, at.publishedUs, now);
    assert(slots.transition(slot, lease, SlotState.reading, SlotState.queued));
    return { slot, lease };
  }

  /** Acceptor: the client has left. */
  leave(slot: number, lease: number): void {
    const { at, words } = this.slots;
    this.slots.writeTime(slot, at.clientGoneUs, nowUs());
    Atomics.store(words, this.slots.row(slot) + at.clientGone, 1);
    assert(this.#requests.push(RequestKind.cancel, slot, lease));
    this.ringScheduler();
  }

  /** Acceptor: gives a settled slot back. */
  free(slot: number): void {
    const lease = this.slots.lease(slot);
    assert(this.slots.transition(slot, lease, SlotState.settled, SlotState.free));
    this.#free.push(slot);
  }

  takeReply(): Reply | undefined {
    const cell = this.#replies.peek();
    if (cell < 0) return undefined;
    const { at, words } = this.#replies;
    const reply = {
      slot: words[cell + at.slot]!,
      lease: words[cell + at.lease]!,
      error: words[cell + at.error]!,
      retryAfterMs: words[cell + at.retryAfterMs]!,
    };
    this.#replies.advance();
    return reply;
  }

  takeDispatch(): Dispatched | undefined {
    for (const [forwarder, dispatches] of this.#dispatches.entries()) {
      const cell = dispatches.peek();
      if (cell < 0) continue;
      const { at, words } = dispatches;
      const taken = {
        kind: words[cell + at.kind]!,
        slot: words[cell + at.slot]!,
        lease: words[cell + at.lease]!,
        replica: words[cell + at.replica]!,
        more: words[cell + at.more]!,
        forwarder,
      };
      dispatches.advance();
      return taken;
    }
    return undefined;
  }

  /** Forwarder: the answer is complete. */
  finish(dispatched: Dispatched): void {
    const { slot, lease } = dispatched;
    assert(this.slots.transition(slot, lease, SlotState.dispatched, SlotState.settled));
    this.#tellReleased(dispatched, Outcome.ok, 0, 0);
  }

  /** Forwarder: has begun the hedge. */
  beginHedge({ slot }: Dispatched): void {
    this.#setHedgeFlags(slot, HedgeFlag.begun);
  }

  /** Forwarder: one of two exchanges has failed. */
  drop(dispatched: Dispatched, error: number): void {
    const { over, alone } = HedgeFlag;
    this.#setHedgeFlags(dispatched.slot, dispatched.kind === DispatchKind.hedge ? over : alone);
    this.#tell(EventKind.dropped, dispatched, Outcome.dead, error, 0);
  }

  #setHedgeFlags(slot: number, flag: number): void {
    const { at, words } = this.slots;
    words[this.slots.row(slot) + at.hedgeFlags]! |= flag;
  }

  /** Forwarder: the attempt failed before its first byte. */
  fail(dispatched: Dispatched, error: number, outcome: Outcome = Outcome.dead, waitMs = 0): void {
    const { slot, lease } = dispatched;
    const { at, words } = this.slots;
    words[this.slots.row(slot) + at.error] = error;
    assert(this.slots.transition(slot, lease, SlotState.dispatched, SlotState.resuming));
    this.#tellReleased(dispatched, outcome, error, waitMs);
  }

  /** Forwarder: the stream broke, and what the client has can be continued. `tells`: the event is out. */
  breakStream(dispatched: Dispatched, error: number, tells = true): void {
    const { slot, lease } = dispatched;
    const { at, words } = this.slots;
    const { dispatched: from, streaming, resuming } = SlotState;
    words[this.slots.row(slot) + at.error] = error;
    words[this.slots.row(slot) + at.continues] = 1;
    assert(this.slots.transition(slot, lease, from, streaming));
    assert(this.slots.transition(slot, lease, streaming, resuming));
    if (tells) this.#tellReleased(dispatched, Outcome.truncated, error, 0);
  }

  /** Tells the end of an attempt again. */
  tellReleasedAgain(dispatched: Dispatched): void {
    this.#tellReleased(dispatched, Outcome.ok, 0, 0);
  }

  async dispatched(): Promise<Dispatched> {
    return this.#until(() => this.takeDispatch(), 'a dispatch');
  }

  async reply(): Promise<Reply> {
    return this.#until(() => this.takeReply(), 'a reply');
  }

  /** Resolves once `condition` holds. */
  async until(condition: () => boolean, what: string): Promise<void> {
    await this.#until(() => condition() || undefined, what);
  }

  inFlight(member: Member): number {
    return this.members.state(member).inFlight;
  }

  /** Requests of model 0 that wait, as the scheduler publishes it. */
  queued(): number {
    return Atomics.load(this.control, this.#controlAt.queued);
  }

  /** Word index of a field of the scheduler's control row. */
  schedulerWord(field: 'bell' | 'beats' | 'phase'): number {
    const { base, stride, at } = this.#controlAt.thread;
    return base + ThreadId.scheduler * stride + at[field];
  }

  cutStreams(): void {
    Atomics.store(this.control, this.#controlAt.stopping, 1);
    this.ringScheduler();
  }

  ringScheduler(): void {
    ring(this.control, this.schedulerWord('bell'));
  }

  metrics(): MetricsSnapshot {
    return new MetricsReader(defaultMetricDims, [this.#metrics]).snapshot();
  }

  #tellReleased(dispatched: Dispatched, outcome: number, error: number, waitMs: number): void {
    this.#tell(EventKind.released, dispatched, outcome, error, waitMs);
  }

  #tell(
    event: EventKind,
    { kind, slot, lease, forwarder }: Dispatched,
    outcome: number,
    error: number,
    waitMs: number,
  ): void {
    const events = this.#events[forwarder]!;
    const cell = events.begin();
    assert(cell >= 0, 'the event ring has room');
    const { at, words } = events;
    words[cell + at.kind] = event;
    words[cell + at.hedge] = kind === DispatchKind.hedge ? 1 : 0;
    words[cell + at.slot] = slot;
    words[cell + at.lease] = lease;
    words[cell + at.outcome] = outcome;
    words[cell + at.error] = error;
    words[cell + at.retryAfterMs] = waitMs;
    events.commit();
    this.ringScheduler();
  }

  async #until<T>(take: () => T | undefined, what: string): Promise<T> {
    const limit = nowMs() + waitLimitMs;
    for (;;) {
      if (this.#death !== undefined) throw this.#death;
      const value = take();
      if (value !== undefined) return value;
      assert(nowMs() < limit, `${what} within ${waitLimitMs} ms`);
      await nextTurn();
    }
  }
}

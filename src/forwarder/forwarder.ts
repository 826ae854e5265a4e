/**
 * One forwarder: takes attempts from its dispatch ring, runs them as exchanges with replicas, writes
 * what comes back into the response rings. An event-loop thread; it never blocks.
 *
 * A record whose lease is not the slot's is late: dropped and counted. Doorbells ring once a turn of
 * the event loop, after everything of the turn is published. Death: its connections close with the
 * thread; a successor attaches to the same rings, ends what it left (take-over.ts) and goes on.
 */
import { Bag } from '../lib/bag.ts';
import { nowUs } from '../lib/clock.ts';
import { arenaBytes } from '../shm/arena.ts';
import { ByteRingProducer } from '../shm/byte-ring.ts';
import { ControlLayout, ThreadId } from '../shm/control.layout.ts';
import { ring } from '../shm/doorbell.ts';
import { LimitTable } from '../shm/limits.ts';
import { bellsOf, controlCounts, recordRingCapacity } from '../shm/memory.ts';
import { MetricsWriter } from '../shm/metrics.ts';
import { ReplicaProgress } from '../shm/replica-progress.ts';
import { HedgeFlag, SlotState } from '../shm/request-slots.layout.ts';
import { attemptOf, RequestSlots } from '../shm/request-slots.ts';
import { DispatchKind, DispatchRingLayout, EventRingLayout } from '../shm/rings.layout.ts';
import { Routable } from '../shm/routable.ts';
import { SpscConsumer, SpscProducer } from '../shm/spsc-ring.ts';
import type { ForwarderStart, ModelRow, ReplicaAddress } from '../shm/threads.ts';
import { metrics as catalogue } from '../telemetry/catalogue.ts';
import { defaultMetricDims, Ring } from '../telemetry/labels.ts';
import { Batch } from './batch.ts';
import { Clocks } from './clocks.ts';
import { Credit } from './credit.ts';
import { Deliveries } from './deliveries.ts';
import { Exchange } from './exchange.ts';
import { type Failure, failures } from './failure.ts';
import { Gathering, groupsOf, type Start } from './gathering.ts';
import { type ReplicaPool, ReplicaPools } from './pools.ts';
import type { ReplicaCall } from './replica-call.ts';
import { ResponseKeeper } from './response-keeper.ts';
import { ResponseWriter } from './response-writer.ts';
import type { Running, RunningOwner } from './running.ts';
import { EventWriter, type FieldsOf, openSpans, type Services } from './services.ts';
import { SmallReplies } from './small-replies.ts';
import { takeOver } from './take-over.ts';
import { sentOf, type UpstreamRequest, UpstreamRequests } from './upstream-requests.ts';

/** Attempts started in one go before the event loop may serve its sockets. */
const drainBudget = 64;

export class Forwarder implements RunningOwner {
  readonly #slots: RequestSlots;
  readonly #metrics: MetricsWriter;
  readonly #dispatches: SpscConsumer<FieldsOf<typeof DispatchRingLayout>>;
  readonly #services: Services;
  readonly #pools: ReplicaPools;
  readonly #clocks: Clocks;
  readonly #upstream: UpstreamRequests;
  readonly #gathering = new Gathering();
  readonly #deliveries: Deliveries;
  readonly #smallReplies: SmallReplies;
  readonly #control: Int32Array;
  readonly #stoppingAt: number;
  readonly #bellOf: (thread: number) => number;
  /** The attempt that runs under each slot. */
  readonly #bySlot: (Running | undefined)[];
  /** The hedge that runs beside it. */
  readonly #hedges = new Map<number, Exchange>();
  /** Calls that hold a request, a connection or both. */
  readonly #open = new Bag<ReplicaCall>();
  readonly #writers: ResponseWriter[];
  #flushScheduled = false;
  #schedulerAwaited = false;
  #stopping = false;
  #requests = 0;
  readonly #onImmediate = (): void => this.#flush();

  constructor(start: ForwarderStart, onMisconfigured: Services['onMisconfigured']) {
    const { memory } = start;
    const { size } = memory;
    const records = recordRingCapacity(size);
    const control = ControlLayout.attach(memory.control, controlCounts(size));
    const schedule = (): void => this.#schedule();
    this.#slots = new RequestSlots(memory.slots, size.slots);
    this.#metrics = new MetricsWriter(start.metrics, defaultMetricDims);
    const arena = arenaBytes(memory.arena, size.arenaBytes);
    const spans = openSpans(start, this.#metrics);
    this.#upstream = new UpstreamRequests(this.#slots, arena, start.models, spans !== undefined);
    const limits = new LimitTable(memory.limits);
    this.#deliveries = new Deliveries(this.#slots, start.models, limits);
    this.#control = new Int32Array(memory.control);
    this.#stoppingAt = control.at.stopping;
    this.#bellOf = bellsOf(size);
    this.#bySlot = Array.from({ length: size.slots }, () => undefined);
    const dispatchRing = memory.dispatchRings[start.index] as SharedArrayBuffer;
    const eventRing = memory.eventRings[start.index] as SharedArrayBuffer;
    this.#dispatches = new SpscConsumer(DispatchRingLayout, dispatchRing, records);
    const credit = new Credit(this.#slots, start.streamWindow);
    const rings = memory.responseRings[start.index] as readonly SharedArrayBuffer[];
    this.#writers = rings.map((region) => {
      const producer = new ByteRingProducer(region, size.responseRingBytes);
      return new ResponseWriter(producer, credit, schedule);
    });
    const { timeouts } = start;
    const routable = new Routable(memory.replicas);
    this.#smallReplies = new SmallReplies(this.#slots, start.models, routable);
    this.#services = {
      slots: this.#slots,
      metrics: this.#metrics,
      credit,
      writers: this.#writers,
      events: new EventWriter(
        new SpscProducer(EventRingLayout, eventRing, records),
        this.#slots,
        this.#control,
        control.at.waiting,
        () => {
          this.#schedulerAwaited = true;
          schedule();
        },
      ),
      limits: {
        connectUs: timeouts.connect * 1000,
        firstTokenUs: timeouts.firstToken * 1000,
        answerUs: timeouts.answer * 1000,
        interTokenUs: timeouts.interToken * 1000,
        totalUs: timeouts.total * 1000,
      },
      progress: new ReplicaProgress(memory.replicas),
      responses: new ResponseKeeper(memory, this.#slots, this.#metrics),
      judgeOf: (slot) => this.#smallReplies.judgeOf(slot),
      spans,
      onMisconfigured,
    };
    this.#pools = new ReplicaPools(timeouts.connect, start.replicas);
    this.#clocks = new Clocks(this.#open);
    takeOver(this.#services, start.index);
  }

  /** Requests this forwarder holds. */
  get requests(): number {
    return this.#requests;
  }

  putReplica(replica: ReplicaAddress): void {
    this.#pools.put(replica);
  }

  /** For requests that come from here on, and attempts that begin. */
  setModels(models: readonly ModelRow[]): void {
    this.#upstream.models = models;
    this.#deliveries.models = models;
    this.#smallReplies.models = models;
  }

  forgetReplica(row: number, epoch: number): void {
    this.#pools.forget(row, epoch);
  }

  /** Takes dispatches and credit. True when dispatches are left for the next turn. */
  drain(): boolean {
    this.observeStopping();
    const { words, at } = this.#dispatches;
    let budget = drainBudget;
    let cell = this.#dispatches.peek();
    if (cell < 0 && this.#gathering.isAbandoned) this.#startGathered();
    for (; cell >= 0 && budget > 0; budget--) {
      const kind = words[cell + at.kind] as number;
      const slot = words[cell + at.slot] as number;
      const lease = words[cell + at.lease] as number;
      const replica = words[cell + at.replica] as number;
      const epoch = words[cell + at.epoch] as number;
      const more = words[cell + at.more] === 1;
      if (kind === DispatchKind.start) this.#take(slot, lease);
      this.#dispatches.advance();
      const start = { slot, lease, replica, epoch };
      if (kind === DispatchKind.abort) this.#abort(slot, lease);
      else if (kind === DispatchKind.hedge) this.#startHedge(start);
      else if (more || this.#gathering.isOpen) this.#gather(start, more);
      else this.#startAttempt(start);
      cell = this.#dispatches.peek();
    }
    for (const writer of this.#writers) writer.recheck();
    if (this.#deliveries.waits) this.#deliveries.sweep(nowUs());
    return cell >= 0;
  }

  /** Cuts everything once the gateway says so: each stream ends with an error event. */
  observeStopping(): void {
    if (this.#stopping || Atomics.load(this.#control, this.#stoppingAt) === 0) return;
    this.stop();
  }

  stop(): void {
    this.#stopping = true;
    this.#startGathered();
    this.#open.visitAll((call) => call.stop());
  }

  /** The thread ends: nothing may keep its event loop alive. */
  close(): void {
    this.#clocks.stop();
    this.#flush();
    this.#pools.destroy();
  }

  onSettled(running: Running): void {
    const { slot } = running;
    const hedge = this.#hedges.get(slot);
    const isFirst = this.#bySlot[slot] === running;
    if (isFirst || hedge === running) this.#hedges.delete(slot);
    if (!isFirst) return;
    this.#bySlot[slot] = hedge;
    if (hedge !== undefined) return;
    this.#deliveries.release(slot);
    this.#requests--;
  }

  onDone(call: ReplicaCall): void {
    this.#open.remove(call);
  }

  /** Says in the row, before the record is gone, that the attempt is with this thread. */
  #take(slot: number, lease: number): void {
    const { words, at } = this.#slots;
    const isOurs =
      this.#slots.holds(slot, lease) && this.#slots.state(slot) === SlotState.dispatched;
    const row = this.#slots.row(slot);
    if (isOurs) words[row + at.taken] = lease;
    // Those of the request that had the slot before.
    if (isOurs && attemptOf(lease) === 1) {
      words[row + at.promptTokens] = words[row + at.completionTokens] = -1;
      words[row + at.cachedTokens] = -1;
    }
  }

  #startAttempt(start: Start): void {
    const pool = this.#poolOf(start);
    if (pool === undefined) return;
    const { slot, lease } = start;
    this.#runAlone(slot, lease, pool, this.#upstream.of(slot, pool));
  }

  /** A second exchange of the attempt. One that is late ends for the scheduler with the attempt. */
  #startHedge({ slot, lease, replica, epoch }: Start): void {
    this.#startGathered(); // the attempt may be in it
    const { words, at } = this.#slots;
    const row = this.#slots.row(slot);
    const first = this.#bySlot[slot];
    // What goes on behind a part of the answer is one exchange's alone.
    const isDue =
      first instanceof Exchange &&
      first.lease === lease &&
      first.isOpen &&
      !this.#slots.isContinued(slot);
    // A scheduler that was started again publishes it once more.
    if (!isDue || words[row + at.hedgeFlags] !== 0) {
      this.#metrics.add(catalogue.lateEvents, 0, 1);
      return;
    }
    words[row + at.hedgeFlags] = HedgeFlag.begun;
    const pool = this.#stopping ? undefined : this.#pools.find(replica, epoch);
    if (pool === undefined) {
      words[row + at.hedgeFlags] = HedgeFlag.begun | HedgeFlag.over;
      const failure = this.#stopping ? failures.stopping : failures.refused;
      this.#services.events.dropped({ slot, lease, isHedge: true }, failure, 0);
      return;
    }
    words[row + at.hedges] = (words[row + at.hedges] as number) + 1;
    const delivery = this.#deliveries.openHedge(slot, lease);
    const request = sentOf(this.#upstream.of(slot, pool), delivery, pool.takes(nowUs()));
    const hedge = new Exchange(this, this.#services, pool, slot, lease, request, first);
    this.#hedges.set(slot, hedge);
    this.#open.add(hedge);
    hedge.start();
  }

  #runAlone(slot: number, lease: number, pool: ReplicaPool, request: UpstreamRequest): void {
    const isContinued = this.#slots.isContinued(slot);
    const delivery = isContinued
      ? this.#deliveries.find(slot, lease)
      : this.#deliveries.open(slot, lease, request.body);
    if (isContinued && delivery === undefined) {
      this.#giveBack(slot, lease, failures.internal); // it would begin the answer again
      return;
    }
    const sent = sentOf(request, delivery, pool.takes(nowUs()));
    const exchange = new Exchange(this, this.#services, pool, slot, lease, sent);
    this.#run(exchange, [exchange]);
  }

  #run(call: ReplicaCall, attempts: readonly Running[]): void {
    for (const attempt of attempts) this.#bySlot[attempt.slot] = attempt;
    this.#open.add(call);
    this.#requests += attempts.length;
    call.start();
  }

  /** The pool of an attempt that is to be started; undefined when it is late or was given back. */
  #poolOf({ slot, lease, replica, epoch }: Start): ReplicaPool | undefined {
    const slots = this.#slots;
    // A scheduler that was started again publishes once more what it finds dispatched.
    if (this.#bySlot[slot]?.lease === lease) return undefined;
    if (!slots.holds(slot, lease) || slots.state(slot) !== SlotState.dispatched) {
      this.#metrics.add(catalogue.lateEvents, 0, 1);
      return undefined;
    }
    const pool = this.#pools.find(replica, epoch);
    if (pool !== undefined && !this.#stopping) return pool;
    this.#giveBack(slot, lease, this.#stopping ? failures.stopping : failures.refused);
    return undefined;
  }

  #gather(start: Start, more: boolean): void {
    if (this.#gathering.has(start)) this.#startGathered();
    this.#gathering.add(start);
    if (!more) this.#startGathered();
  }

  /** Starts the batch that has been gathered: as one call, as far as its members are alike. */
  #startGathered(): void {
    if (!this.#gathering.isOpen) return;
    const due = this.#gathering.take().flatMap((start) => {
      const pool = this.#poolOf(start);
      const { slot, lease } = start;
      return pool === undefined
        ? []
        : [{ slot, lease, pool, request: this.#upstream.of(slot, pool) }];
    });
    for (const members of groupsOf(due, this.#upstream)) {
      const [first] = members;
      if (first === undefined) continue;
      if (members.length === 1) this.#runAlone(first.slot, first.lease, first.pool, first.request);
      else {
        const request = this.#upstream.merged(members);
        const items = members.map(({ slot, lease, request: { trace } }) => {
          return { slot, lease, trace, promptBytes: this.#upstream.promptBytes(slot) };
        });
        const batch = new Batch(this, this.#services, first.pool, items, request);
        this.#run(batch, batch.members);
      }
    }
  }

  /** An attempt that never began. */
  #giveBack(slot: number, lease: number, { outcome, error }: Failure): void {
    const { dispatched, resuming } = SlotState;
    const { words, at } = this.#slots;
    words[this.#slots.row(slot) + at.error] = error; // not that of an older attempt
    if (!this.#slots.transition(slot, lease, dispatched, resuming)) {
      this.#metrics.add(catalogue.settleConflicts, 0, 1);
      return;
    }
    const source = { slot, lease, isHedge: false };
    this.#services.events.released(source, outcome, error, 0, undefined);
  }

  #abort(slot: number, lease: number): void {
    this.#startGathered(); // the attempt may be in it
    const running = this.#bySlot[slot];
    if (running?.lease === lease) running.abort();
    else this.#metrics.add(catalogue.lateEvents, 0, 1);
  }

  #schedule(): void {
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    setImmediate(this.#onImmediate);
  }

  /** Ends the turn: writes what it brought, then wakes who has something to read. */
  #flush(): void {
    this.#flushScheduled = false;
    for (const [acceptor, writer] of this.#writers.entries()) {
      const wrote = writer.flush();
      if (writer.blocked) this.#metrics.add(catalogue.ringFull, Ring.response, 1);
      if (wrote) ring(this.#control, this.#bellOf(ThreadId.acceptor(acceptor)));
    }
    if (!this.#schedulerAwaited) return;
    this.#schedulerAwaited = false;
    ring(this.#control, this.#bellOf(ThreadId.scheduler));
  }
}

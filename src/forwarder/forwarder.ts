/**
 * One forwarder: takes attempts from its dispatch ring, runs them as exchanges with replicas, writes
 * what comes back into the response rings. An event-loop thread; it never blocks.
 *
 * A record whose lease is not the slot's is late: dropped and counted. Doorbells ring once a turn of
 * the event loop, after everything of the turn is published. Death: its connections close with the
 * thread, and the process ends (ADR 6).
 */
import { Buffer } from 'node:buffer';
import type { Dispatcher } from 'undici';
import { Bag } from '../lib/bag.ts';
import { routeOf } from '../protocol/routes.ts';
import { arenaBytes } from '../shm/arena.ts';
import { ByteRingProducer } from '../shm/byte-ring.ts';
import { ControlLayout, ThreadId } from '../shm/control.layout.ts';
import { ring } from '../shm/doorbell.ts';
import { controlCounts, recordRingCapacity } from '../shm/memory.ts';
import { MetricsWriter } from '../shm/metrics.ts';
import { ReplicaProgress } from '../shm/replica-progress.ts';
import { SlotState } from '../shm/request-slots.layout.ts';
import { RequestSlots } from '../shm/request-slots.ts';
import {
  DispatchKind,
  DispatchRingLayout,
  EventKind,
  EventRingLayout,
} from '../shm/rings.layout.ts';
import { SpscConsumer, SpscProducer } from '../shm/spsc-ring.ts';
import type { ForwarderStart, ReplicaAddress } from '../shm/threads.ts';
import { metrics as catalogue } from '../telemetry/catalogue.ts';
import { defaultMetricDims, Ring } from '../telemetry/labels.ts';
import { Clocks } from './clocks.ts';
import { Credit } from './credit.ts';
import { Exchange, type ExchangeOwner } from './exchange.ts';
import { type Failure, failures } from './failure.ts';
import { ReplicaPools } from './pools.ts';
import { ResponseWriter } from './response-writer.ts';
import { EventWriter, type FieldsOf, type Services } from './services.ts';
import { upstreamHead } from './upstream-head.ts';

/** Attempts started in one go before the event loop may serve its sockets. */
const drainBudget = 64;

export class Forwarder implements ExchangeOwner {
  readonly #slots: RequestSlots;
  readonly #metrics: MetricsWriter;
  readonly #dispatches: SpscConsumer<FieldsOf<typeof DispatchRingLayout>>;
  readonly #services: Services;
  readonly #pools: ReplicaPools;
  readonly #clocks: Clocks;
  readonly #arena: Uint8Array;
  readonly #control: Int32Array;
  readonly #stoppingAt: number;
  readonly #bellOf: (thread: number) => number;
  /** Exchange that runs the attempt of each slot. */
  readonly #bySlot: (Exchange | undefined)[];
  /** Exchanges that hold a request, a connection or both. */
  readonly #open = new Bag<Exchange>();
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
    const { base, stride, at } = control.at.thread;
    const schedule = (): void => this.#schedule();
    this.#slots = new RequestSlots(memory.slots, size.slots);
    this.#metrics = new MetricsWriter(start.metrics, defaultMetricDims);
    this.#arena = arenaBytes(memory.arena, size.arenaBytes);
    this.#control = new Int32Array(memory.control);
    this.#stoppingAt = control.at.stopping;
    this.#bellOf = (thread) => base + thread * stride + at.bell;
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
    this.#services = {
      slots: this.#slots,
      metrics: this.#metrics,
      credit,
      writers: this.#writers,
      events: new EventWriter(
        new SpscProducer(EventRingLayout, eventRing, records),
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
      onMisconfigured,
    };
    this.#pools = new ReplicaPools(timeouts.connect, start.replicas);
    this.#clocks = new Clocks(this.#open);
  }

  /** Requests this forwarder holds. */
  get requests(): number {
    return this.#requests;
  }

  putReplica(replica: ReplicaAddress): void {
    this.#pools.put(replica);
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
    for (; cell >= 0 && budget > 0; budget--) {
      const kind = words[cell + at.kind] as number;
      const slot = words[cell + at.slot] as number;
      const lease = words[cell + at.lease] as number;
      const replica = words[cell + at.replica] as number;
      const epoch = words[cell + at.epoch] as number;
      this.#dispatches.advance();
      if (kind === DispatchKind.abort) this.#abort(slot, lease);
      else this.#startAttempt(slot, lease, replica, epoch);
      cell = this.#dispatches.peek();
    }
    for (const writer of this.#writers) writer.recheck();
    return cell >= 0;
  }

  /** Cuts everything once the gateway says so: each stream ends with an error event. */
  observeStopping(): void {
    if (this.#stopping || Atomics.load(this.#control, this.#stoppingAt) === 0) return;
    this.stop();
  }

  stop(): void {
    this.#stopping = true;
    this.#open.visitAll((exchange) => exchange.stop());
  }

  /** The thread ends: nothing may keep its event loop alive. */
  close(): void {
    this.#clocks.stop();
    this.#flush();
    this.#pools.destroy();
  }

  onSettled(exchange: Exchange): void {
    if (this.#bySlot[exchange.slot] !== exchange) return;
    this.#bySlot[exchange.slot] = undefined;
    this.#requests--;
    if (exchange.closed) this.#open.remove(exchange);
  }

  onClosed(exchange: Exchange): void {
    if (this.#bySlot[exchange.slot] !== exchange) this.#open.remove(exchange);
  }

  #startAttempt(slot: number, lease: number, replica: number, epoch: number): void {
    const slots = this.#slots;
    // A scheduler that was started again publishes once more what it finds dispatched.
    if (this.#bySlot[slot]?.lease === lease) return;
    if (!slots.holds(slot, lease) || slots.state(slot) !== SlotState.dispatched) {
      this.#metrics.add(catalogue.lateEvents, 0, 1);
      return;
    }
    const pool = this.#pools.find(replica, epoch);
    if (pool === undefined || this.#stopping) {
      this.#giveBack(slot, lease, this.#stopping ? failures.stopping : failures.refused);
      return;
    }
    const { words, at } = slots;
    const row = slots.row(slot);
    const headStart = words[row + at.headStart] as number;
    const blob = this.#arena.subarray(
      headStart,
      headStart + (words[row + at.headLength] as number),
    );
    const route = routeOf(words[row + at.route] as number);
    const head = upstreamHead(blob, route, pool.pathPrefix, pool.authorization);
    const request: Dispatcher.DispatchOptions = {
      method: head.method,
      path: head.path,
      headers: head.headers,
      body: this.#bodyOf(row),
    };
    const exchange = new Exchange(this, this.#services, pool, slot, lease, request);
    this.#bySlot[slot] = exchange;
    this.#open.add(exchange);
    this.#requests++;
    exchange.start();
  }

  /** A view of the arena: the body is never copied, and stays there until the slot is settled. */
  #bodyOf(row: number): Buffer | null {
    const { words, at } = this.#slots;
    const length = words[row + at.bodyLength] as number;
    if (length === 0) return null;
    const start = words[row + at.bodyStart] as number;
    return Buffer.from(this.#arena.buffer, this.#arena.byteOffset + start, length);
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
    this.#services.events.push(EventKind.released, slot, lease, outcome, error, 0, undefined);
  }

  #abort(slot: number, lease: number): void {
    const exchange = this.#bySlot[slot];
    if (exchange?.lease === lease) exchange.abort();
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

/**
 * What the gateway shows of itself: cluster, slot table, thread rows, rings. Runs on the main thread
 * and only reads; every figure is a recount of shared memory at the moment it is asked for.
 */
import { type SinkName, sinkNames } from '../config/sinks.ts';
import { nowUs } from '../lib/clock.ts';
import { ByteRingConsumer } from '../shm/byte-ring.ts';
import { ControlLayout, ThreadId } from '../shm/control.layout.ts';
import { LeaseTable } from '../shm/leases.ts';
import { LedgerTable } from '../shm/ledger.ts';
import {
  controlCounts,
  recordRingCapacity,
  requestRingSize,
  type SharedMemory,
} from '../shm/memory.ts';
import { RequestRingRepair } from '../shm/request-ring.ts';
import { SlotState } from '../shm/request-slots.layout.ts';
import { attemptOf, generationOf, leaseOf, RequestSlots, stateOf } from '../shm/request-slots.ts';
import { DispatchRingLayout, EventRingLayout, ReplyRingLayout } from '../shm/rings.layout.ts';
import { SpscConsumer } from '../shm/spsc-ring.ts';
import type { RingName } from '../telemetry/labels.ts';

export interface SinkView {
  readonly name: SinkName;
  readonly waiting: number;
  readonly lagSeconds: number;
}

export interface ThreadView {
  readonly name: string;
  readonly phase: number;
  readonly heartbeatAgeSeconds: number;
  readonly lagMs: number;
  readonly utilization: number;
  readonly connections: number;
  readonly arenaBytes: number;
}

/** Rows of the slot dump; more would be a page nobody reads. */
const slotRowsMax = 1000;
const stateNames = Object.keys(SlotState);

export class GatewayViews {
  readonly #slots: RequestSlots;
  readonly #control: Int32Array;
  readonly #controlFloats: Float64Array;
  readonly #at;
  readonly #names: readonly string[];
  readonly #depths: readonly (readonly [RingName, () => number])[];
  readonly #ledger: LedgerTable;

  readonly #leases: LeaseTable | null;

  constructor(memory: SharedMemory) {
    this.#slots = new RequestSlots(memory.slots, memory.size.slots);
    this.#control = new Int32Array(memory.control);
    this.#controlFloats = new Float64Array(memory.control);
    this.#at = ControlLayout.attach(memory.control, controlCounts(memory.size));
    this.#names = threadNames(memory);
    this.#depths = ringDepths(memory);
    this.#leases = memory.sharedLimits && new LeaseTable(memory.sharedLimits.leases);
    this.#ledger = new LedgerTable(memory.ledger);
  }

  queued(model: number): number {
    return Atomics.load(this.#control, this.#at.at.queued + model);
  }

  /** How far each of the sinks is behind. */
  sinks(names: readonly SinkName[]): SinkView[] {
    return names.map((name) => {
      const row = sinkNames.indexOf(name);
      const oldestMs = this.#ledger.readSink(row, 'oldestMs');
      const lagSeconds = oldestMs === 0 ? 0 : Math.max(0, Date.now() - oldestMs) / 1000;
      return { name, waiting: this.#ledger.readSink(row, 'waiting'), lagSeconds };
    });
  }

  threads(): ThreadView[] {
    const { base, stride, at } = this.#at.at.thread;
    return this.#names.map((name, id) => {
      const row = base + id * stride;
      const float = (field: number): number => this.#controlFloats[(row + field) / 2] ?? 0;
      return {
        name,
        phase: Atomics.load(this.#control, row + at.phase),
        heartbeatAgeSeconds: Math.max(0, nowUs() - float(at.beatUs)) / 1e6,
        lagMs: float(at.lagUs) / 1e3,
        utilization: float(at.utilization),
        connections: Atomics.load(this.#control, row + at.connections),
        arenaBytes: float(at.arenaBytes),
      };
    });
  }

  /** 1 while the store of shared limits answers; 0: it does not, or there is none. */
  limitStoreUp(): number {
    return this.#leases === null ? 0 : 1 - Atomics.load(this.#leases.words, this.#leases.isDown);
  }

  /** 1 while the ledger hears what other gateways have spent. */
  budgetStoreUp(): number {
    return this.#ledger.isStoreUp ? 1 : 0;
  }

  /** The limiter is dead: its successor looks for the store. */
  setLimitStoreDown(): void {
    if (this.#leases !== null) Atomics.store(this.#leases.words, this.#leases.isDown, 1);
  }

  /** Open connections of clients. */
  connections(): number {
    return this.threads()
      .filter(({ name }) => name.startsWith('acceptor'))
      .reduce((sum, { connections }) => sum + connections, 0);
  }

  arenaBytesInUse(): number {
    return this.threads().reduce((sum, { arenaBytes }) => sum + arenaBytes, 0);
  }

  /** ThreadId of a thread by its name. */
  threadId(name: string): number {
    return this.#names.indexOf(name);
  }

  /** Requests past admission, per model row. */
  inFlightByModel(models: number): number[] {
    const counts = new Array<number>(models).fill(0);
    for (let slot = 0; slot < this.#slots.count; slot++) {
      const state = this.#slots.state(slot);
      if (state === SlotState.free || state === SlotState.reading) continue;
      const model = this.#slots.words[this.#slots.row(slot) + this.#slots.at.model] ?? 0;
      if (model >= 0 && model < models) counts[model] = (counts[model] ?? 0) + 1;
    }
    return counts;
  }

  slotsInUse(): number {
    let used = 0;
    for (let slot = 0; slot < this.#slots.count; slot++) {
      if (this.#slots.state(slot) !== SlotState.free) used++;
    }
    return used;
  }

  ringDepths(): Record<RingName, number> {
    const depths: Record<RingName, number> = {
      request: 0,
      dispatch: 0,
      event: 0,
      reply: 0,
      response: 0,
    };
    for (const [ring, depth] of this.#depths) depths[ring] += depth();
    return depths;
  }

  /** The slot table for a person: counts by state, and the rows in use. */
  slotDump(): unknown {
    const states: Record<string, number> = Object.fromEntries(stateNames.map((name) => [name, 0]));
    const rows: unknown[] = [];
    for (let slot = 0; slot < this.#slots.count; slot++) {
      const stamp = this.#slots.stamp(slot);
      const state = stateNames[stateOf(stamp)] ?? 'free';
      states[state] = (states[state] ?? 0) + 1;
      if (state !== 'free' && rows.length < slotRowsMax) rows.push(this.#slotRow(slot, stamp));
    }
    return { count: this.#slots.count, states, rings: this.ringDepths(), rows };
  }

  #slotRow(slot: number, stamp: number): unknown {
    const { at, words } = this.#slots;
    const row = this.#slots.row(slot);
    const read = (field: number): number => words[row + field] ?? 0;
    return {
      slot,
      state: stateNames[stateOf(stamp)],
      generation: generationOf(leaseOf(stamp)),
      attempt: attemptOf(leaseOf(stamp)),
      acceptor: read(at.acceptor),
      model: read(at.model),
      replica: this.#slots.servingReplica(slot),
      forwarder: read(at.forwarder),
      client_gone: read(at.clientGone) === 1,
      age_ms: Math.round((nowUs() - this.#slots.readTime(slot, at.arrivedUs)) / 1e3),
      body_bytes: read(at.bodyLength),
      unsent_bytes: (read(at.producedBytes) - read(at.consumedBytes)) | 0,
    };
  }
}

function threadNames(memory: SharedMemory): string[] {
  const names: string[] = [];
  const { acceptors, forwarders } = memory.size;
  names[ThreadId.main] = 'main';
  names[ThreadId.scheduler] = 'scheduler';
  for (let i = 0; i < acceptors; i++) names[ThreadId.acceptor(i)] = `acceptor-${i}`;
  for (let i = 0; i < forwarders; i++) {
    names[ThreadId.forwarder(i, memory.size)] = `forwarder-${i}`;
  }
  if (memory.sharedLimits !== null) names[ThreadId.limiter(memory.size)] = 'limiter';
  return names;
}

function ringDepths(memory: SharedMemory): (readonly [RingName, () => number])[] {
  const { size } = memory;
  const records = recordRingCapacity(size);
  const request = new RequestRingRepair(memory.requestRing, requestRingSize(size));
  const list: (readonly [RingName, () => number])[] = [['request', () => request.depth()]];
  const add = (ring: RingName, view: { depth(): number }): void => {
    list.push([ring, () => view.depth()]);
  };
  for (const r of memory.dispatchRings) {
    add('dispatch', new SpscConsumer(DispatchRingLayout, r, records));
  }
  for (const r of memory.eventRings) add('event', new SpscConsumer(EventRingLayout, r, records));
  for (const r of memory.replyRings) add('reply', new SpscConsumer(ReplyRingLayout, r, records));
  for (const r of memory.responseRings.flat()) {
    add('response', new ByteRingConsumer(r, size.responseRingBytes));
  }
  return list;
}

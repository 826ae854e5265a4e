import { beforeEach, expect, test } from 'vitest';
import { GatewayViews } from '../../../src/gateway/views.ts';
import { Watchdog } from '../../../src/gateway/watchdog.ts';
import { nowUs } from '../../../src/lib/clock.ts';
import { ControlLayout, ThreadId, ThreadPhase } from '../../../src/shm/control.layout.ts';
import {
  controlCounts,
  createMemory,
  requestRingSize,
  type SharedMemory,
} from '../../../src/shm/memory.ts';
import { RequestKind } from '../../../src/shm/request-ring.layout.ts';
import { RequestRingProducer } from '../../../src/shm/request-ring.ts';
import { SlotState } from '../../../src/shm/request-slots.layout.ts';
import { RequestSlots } from '../../../src/shm/request-slots.ts';

const sizes = { acceptors: 2, forwarders: 2, slots: 16 };
let memory: SharedMemory;
let views: GatewayViews;

beforeEach(() => {
  memory = createMemory({ ...sizes, arenaBytes: 128 * 1024, responseRingBytes: 64 * 1024 });
  views = new GatewayViews(memory);
});

/** Writes a thread's row as that thread would. */
function beat(thread: number, ageSeconds: number, phase: ThreadPhase = ThreadPhase.running): void {
  const { base, stride, at } = ControlLayout.place(controlCounts(memory.size)).at.thread;
  const row = base + thread * stride;
  new Int32Array(memory.control)[row + at.phase] = phase;
  new Float64Array(memory.control)[(row + at.beatUs) / 2] = nowUs() - ageSeconds * 1e6;
}

function allBeat(ageSeconds: number): void {
  for (let id = 1; id < ThreadId.total(memory.size); id++) beat(id, ageSeconds);
}

test('every thread has a name and its age', () => {
  beat(ThreadId.acceptor(1), 2);
  const threads = views.threads();
  expect(threads.map(({ name }) => name)).toEqual([
    ...['main', 'scheduler', 'acceptor-0', 'acceptor-1', 'forwarder-0', 'forwarder-1'],
  ]);
  expect(threads[3]?.heartbeatAgeSeconds).toBeCloseTo(2, 0);
});

test('slots are counted by state, and those in use are listed', () => {
  const slots = new RequestSlots(memory.slots, sizes.slots);
  const claim = (slot: number, model: number): number => {
    const lease = slots.claim(slot);
    slots.words[slots.row(slot) + slots.at.model] = model;
    return lease;
  };
  claim(0, 0);
  const queued = claim(3, 1);
  slots.transition(3, queued, SlotState.reading, SlotState.queued);
  expect(views.slotsInUse()).toBe(2);
  expect(views.inFlightByModel(2)).toEqual([0, 1]);
  const dump = views.slotDump() as {
    count: number;
    states: Record<string, number>;
    rows: { slot: number; state: string; model: number }[];
  };
  expect(dump.count).toBe(16);
  expect(dump.states).toMatchObject({ free: 14, reading: 1, queued: 1, settled: 0 });
  expect(dump.rows.map(({ slot, state, model }) => ({ slot, state, model }))).toEqual([
    { slot: 0, state: 'reading', model: 0 },
    { slot: 3, state: 'queued', model: 1 },
  ]);
});

test('a record in a ring shows in its depth', () => {
  const ring = new RequestRingProducer(memory.requestRing, requestRingSize(memory.size), 0);
  expect(views.ringDepths().request).toBe(0);
  ring.push(RequestKind.arrive, 1, 1);
  expect(views.ringDepths()).toEqual({ request: 1, dispatch: 0, event: 0, reply: 0, response: 0 });
});

test('the watchdog says which running thread is silent, and only once it is', () => {
  const silent: string[] = [];
  const watchdog = new Watchdog(views, (_, reason) => silent.push(reason));
  const look = (): string[] => {
    silent.length = 0;
    watchdog.look(); // after a gap of its own: no verdict
    watchdog.look();
    return [...silent];
  };
  allBeat(0);
  expect(look()).toEqual([]);
  beat(ThreadId.scheduler, 4.5);
  beat(ThreadId.acceptor(0), 9.5);
  expect(look()).toEqual([]);
  beat(ThreadId.scheduler, 5.5);
  expect(look()[0]).toMatch(/^scheduler has been silent for 5\.\d s$/);
  allBeat(0);
  beat(ThreadId.acceptor(0), 10.5);
  expect(look()[0]).toMatch(/^acceptor-0 has been silent for 10\.\d s$/);
  allBeat(0);
  beat(ThreadId.forwarder(1, memory.size), 60);
  expect(look()[0]).toMatch(/^forwarder-1 /);
});

test('a thread that starts or has stopped is not silent', () => {
  const silent: string[] = [];
  const watchdog = new Watchdog(views, (_, reason) => silent.push(reason));
  allBeat(0);
  beat(ThreadId.scheduler, 100, ThreadPhase.starting);
  beat(ThreadId.acceptor(0), 100, ThreadPhase.stopped);
  watchdog.look();
  watchdog.look();
  expect(silent).toEqual([]);
});

test('a gap that the watchdog itself slept through is no verdict', () => {
  const silent: string[] = [];
  const watchdog = new Watchdog(views, (_, reason) => silent.push(reason));
  allBeat(100);
  watchdog.look(); // the first look comes after a gap without end
  expect(silent).toEqual([]);
  watchdog.look();
  expect(silent).toHaveLength(1);
});

import { beforeEach, expect, test } from 'vitest';
import { Membership } from '../../../src/gateway/membership.ts';
import { nowUs } from '../../../src/lib/clock.ts';
import { ControlLayout, DrainStage, ThreadId } from '../../../src/shm/control.layout.ts';
import { controlCounts, createMemory, type SharedMemory } from '../../../src/shm/memory.ts';
import { Readiness } from '../../../src/shm/readiness.ts';

const noReplica = 'no replica is healthy';
const spec = {
  ...{ name: 'a', url: 'http://a:1', api_key: '', weight: 1, max_in_flight: 8 },
  ...{ prefill_us: 21.2, resident_us: 0.06, kv_tokens: 0, adapters: [] },
};

let memory: SharedMemory;
let membership: Membership;
let readiness: Readiness;

function schedulerBeat(us: number): void {
  const { base, stride, at } = ControlLayout.place(controlCounts(memory.size)).at.thread;
  const word = base + ThreadId.scheduler * stride + at.beatUs;
  new Float64Array(memory.control)[word / 2] = us;
}

beforeEach(() => {
  const sizes = { acceptors: 1, forwarders: 1, slots: 8 };
  memory = createMemory({ ...sizes, arenaBytes: 64 * 1024, responseRingBytes: 64 * 1024 });
  membership = new Membership(memory);
  readiness = new Readiness(memory);
  schedulerBeat(nowUs());
});

test('a replica counts once it is active and healthy, and not while it drains', () => {
  expect(readiness.problem()).toBe(noReplica);
  const member = membership.add(spec, 0)!;
  membership.setHealthy(member, true, '');
  expect(readiness.problem()).toBe(noReplica);
  membership.activate(member);
  expect(readiness.problem()).toBe('');
  membership.drain(member);
  expect(readiness.problem()).toBe(noReplica);
  membership.activate(member);
  membership.setHealthy(member, false, 'gone');
  expect(readiness.problem()).toBe(noReplica);
});

test('a replica of weight 0 makes nobody ready', () => {
  const member = membership.add({ ...spec, weight: 0 }, 0)!;
  membership.activate(member);
  membership.setHealthy(member, true, '');
  expect(readiness.problem()).toBe(noReplica);
  membership.setWeight(member, 2);
  expect(readiness.problem()).toBe('');
});

test('a replica that gave up its name serves on until the one that replaces it does', () => {
  const member = membership.add(spec, 0)!;
  membership.activate(member);
  membership.setHealthy(member, true, '');
  membership.giveUpName(member);
  expect(readiness.problem()).toBe('');
});

test('a drain and a silent scheduler come first', () => {
  const member = membership.add(spec, 0)!;
  membership.activate(member);
  membership.setHealthy(member, true, '');
  schedulerBeat(nowUs() - 600_000);
  expect(readiness.problem()).toBe('the scheduler does not answer');
  const { draining } = ControlLayout.place(controlCounts(memory.size)).at;
  Atomics.store(new Int32Array(memory.control), draining, DrainStage.announced);
  expect(readiness.problem()).toBe('draining');
});

test('a process that was replaced serves the connections it has, until it drains', () => {
  const member = membership.add(spec, 0)!;
  membership.activate(member);
  membership.setHealthy(member, true, '');
  schedulerBeat(nowUs());
  const { draining } = ControlLayout.place(controlCounts(memory.size)).at;
  Atomics.store(new Int32Array(memory.control), draining, DrainStage.replaced);
  expect(readiness.problem()).toBe('');
});

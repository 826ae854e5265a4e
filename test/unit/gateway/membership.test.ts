import { beforeEach, expect, test } from 'vitest';
import type { EngineReport } from '../../../src/dispatch/foreign-load.ts';
import { Membership, type ReplicaSpec } from '../../../src/gateway/membership.ts';
import { nowUs } from '../../../src/lib/clock.ts';
import { ReplicaRows } from '../../../src/scheduler/replica-rows.ts';
import { createMemory, replicaCounts, type SharedMemory } from '../../../src/shm/memory.ts';
import {
  ReplicaAdmin,
  ReplicaTableLayout,
  replicaRows,
} from '../../../src/shm/replica-table.layout.ts';

const { at } = ReplicaTableLayout.place(replicaCounts);
const spec = (name: string, more: Partial<ReplicaSpec> = {}): ReplicaSpec => ({
  ...{ name, url: `http://${name}:1`, api_key: '', weight: 1, max_in_flight: 8 },
  ...{ prefill_us: 21.2, resident_us: 0.06, kv_tokens: 0, adapters: [] },
  ...more,
});

let memory: SharedMemory;
let membership: Membership;

beforeEach(() => {
  const sizes = { acceptors: 1, forwarders: 1, slots: 8 };
  memory = createMemory({ ...sizes, arenaBytes: 64 * 1024, responseRingBytes: 64 * 1024 });
  membership = new Membership(memory);
});

const word = (row: number, field: number): number =>
  new Int32Array(memory.replicas)[at.replica.base + row * at.replica.stride + field]!;
const version = (): number => Atomics.load(new Int32Array(memory.replicas), at.version);

function setInFlight(row: number, inFlight: number): void {
  const words = new Int32Array(memory.replicas);
  words[at.replica.base + row * at.replica.stride + at.replica.at.inFlight] = inFlight;
}

test('a row says what the replica is', () => {
  membership.add(spec('a'), 0);
  const { row } = membership.add(spec('b', { max_in_flight: 31, weight: 2.5 }), 3)!;
  expect(word(row, at.replica.at.model)).toBe(3);
  expect(word(row, at.replica.at.maxInFlight)).toBe(31);
  const base = at.replica.base + row * at.replica.stride;
  expect(new Float64Array(memory.replicas)[(base + at.replica.at.weight) / 2]).toBe(2.5);
  expect(Atomics.load(new Int32Array(memory.replicas), at.count)).toBe(2);
});

test('every change that the scheduler must see moves the version', () => {
  const member = membership.add(spec('a'), 0)!;
  const changes = [
    () => membership.activate(member),
    () => membership.setHealthy(member, true, ''),
    () => membership.setWeight(member, 4),
    () => membership.drain(member),
    () => membership.remove(member),
  ];
  for (const change of changes) {
    const before = version();
    change();
    expect(version()).toBe(before + 1);
  }
});

test('a freed row is used again under another epoch, never while requests are on it', () => {
  const first = membership.add(spec('a'), 0)!;
  setInFlight(first.row, 1);
  membership.remove(first);
  expect(membership.get('a')).toBeUndefined();
  const second = membership.add(spec('a'), 0)!;
  expect(second.row).not.toBe(first.row);
  setInFlight(first.row, 0);
  const third = membership.add(spec('c'), 0)!;
  expect(third.row).toBe(first.row);
  expect(third.epoch).toBe(first.epoch + 1);
});

test('a name passes on at once while its old holder keeps the row', () => {
  const old = membership.add(spec('a'), 0)!;
  membership.activate(old);
  membership.giveUpName(old);
  expect(membership.get('a')).toBeUndefined();
  const young = membership.add(spec('a'), 0)!;
  expect(young.row).not.toBe(old.row);
  expect(membership.get('a')).toBe(young);
  expect([...membership.leaving]).toEqual([old]);
  expect(membership.state(old).admin).toBe(ReplicaAdmin.active);
  membership.remove(old);
  expect([...membership.leaving]).toEqual([]);
  expect(membership.get('a')).toBe(young);
  expect(membership.state(old).admin).toBe(ReplicaAdmin.absent);
});

test('a full table refuses and keeps what it has', () => {
  for (let i = 0; i < replicaRows; i++) expect(membership.add(spec(`r${i}`), 0)).toBeDefined();
  expect(membership.add(spec('one-more'), 0)).toBeUndefined();
  expect([...membership]).toHaveLength(replicaRows);
  expect(membership.get('one-more')).toBeUndefined();
});

test('a second replica of a name is a defect of the caller', () => {
  membership.add(spec('a'), 0);
  expect(() => membership.add(spec('a'), 0)).toThrow(/unique/);
});

test('what an engine reports reaches the scheduler whole, without a new version of the table', () => {
  const [first, second] = [membership.add(spec('a'), 0)!, membership.add(spec('b'), 0)!];
  const rows = new ReplicaRows(memory.replicas);
  const seen = (): Map<number, EngineReport> => {
    const reports = new Map<number, EngineReport>();
    rows.readReports((row, report) => reports.set(row, { ...report }));
    return reports;
  };
  const before = version();
  expect(seen().size).toBe(0);
  const engine = { running: 7, waiting: 2, kvUsage: 0.5, kvCapacity: 1000 };
  rows.setLoad(second.row, 3, 4e9);
  const own = membership.ownLoad(second);
  expect(own).toEqual({ requests: 3, tokens: 4e9 });
  for (const running of [7, 8, 9]) {
    const times = { scrapedUs: 1e15 + running, intervalUs: 1e6 };
    membership.report(second, { ...engine, running }, own, times);
    expect([...seen()]).toEqual([
      [
        second.row,
        {
          ...{ scrapedUs: 1e15 + running, intervalUs: 1e6, running, waiting: 2 },
          ...{ kvTokens: 500, kvCapacity: 1000, ownRequests: 3, ownTokens: 4e9 },
        },
      ],
    ]);
  }
  expect(second.engine).toMatchObject({ running: 9 });
  expect(first.engine).toBeUndefined();
  expect(version()).toBe(before);
});

test('a share of a cache of configured size is a count of tokens; of an unknown one it is none', () => {
  const known = membership.add(spec('a', { kv_tokens: 2000 }), 0)!;
  const unknown = membership.add(spec('b'), 0)!;
  const tokens: number[] = [];
  for (const member of [known, unknown]) {
    const engine = { running: 0, waiting: 0, kvUsage: 0.5, kvCapacity: 0 };
    const times = { scrapedUs: 1, intervalUs: 1 };
    membership.report(member, engine, { requests: 0, tokens: 0 }, times);
  }
  new ReplicaRows(memory.replicas).readReports((_, { kvTokens }) => tokens.push(kvTokens));
  expect(tokens).toEqual([1000, 0]);
});

test('a report about a replica that has gone is not one about the next in its row', () => {
  const old = membership.add(spec('a'), 0)!;
  const rows = new ReplicaRows(memory.replicas);
  const engine = { running: 7, waiting: 2, kvUsage: 0, kvCapacity: 0 };
  const report = (): void => {
    const times = { scrapedUs: 1, intervalUs: 1 };
    membership.report(old, engine, { requests: 0, tokens: 0 }, times);
  };
  report();
  membership.remove(old);
  expect(membership.add(spec('b'), 0)!.row).toBe(old.row);
  report();
  rows.readReports(() => expect.unreachable());
});

test('the adapters of a replica are bits by their numbers in its model', () => {
  const names = Array.from({ length: 256 }, (_, i) => `a${i}`);
  membership = new Membership(memory, [[], names]);
  membership.add(spec('plain'), 1);
  const { row } = membership.add(spec('a', { adapters: ['a0', 'a31', 'a32', 'a255'] }), 1)!;
  const bits = new Map<number, Int32Array | undefined>();
  new ReplicaRows(memory.replicas).read((at, facts) => bits.set(at, facts.adapters));
  expect([...bits.get(0)!]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
  expect([...bits.get(row)!]).toEqual([1 | (1 << 31), 1, 0, 0, 0, 0, 0, 1 << 31]);
  expect(membership.unknownAdapter({ adapters: ['a7', 'new'] }, 1)).toBe('new');
  expect(membership.unknownAdapter({ adapters: ['a7'] }, 0)).toBe('a7');
  expect(membership.unknownAdapter({ adapters: ['a7'] }, 1)).toBeUndefined();
});

test('a row that is used again has the adapters of its new replica alone', () => {
  membership = new Membership(memory, [['x', 'y']]);
  membership.remove(membership.add(spec('a', { adapters: ['x'] }), 0)!);
  const { row } = membership.add(spec('b', { adapters: ['y'] }), 0)!;
  new ReplicaRows(memory.replicas).read((at, facts) => {
    if (at === row) expect(facts.adapters![0]).toBe(2);
  });
});

test('what a replica loads is a bit of its row, and when it was used last is written there', () => {
  const names = ['x', 'y', 'z'];
  membership = new Membership(memory, [names], [['y', 'z']]);
  const member = membership.add(spec('a', { adapters: ['x'] }), 0)!;
  const rows = new ReplicaRows(memory.replicas);
  const read = (): number[] => {
    let bits: number[] = [];
    rows.read((at, { adapters, loadable }) => {
      if (at === member.row) bits = [adapters![0]!, loadable![0]!];
    });
    return bits;
  };
  expect(read()).toEqual([0b001, 0b110]);
  const before = version();
  membership.setAdapters(member, ['z'], ['z']);
  expect(version()).toBe(before + 1);
  expect(read()).toEqual([0b101, 0b100]);
  expect(member.loaded).toEqual(['z']);
  expect(membership.adapterIdleMs(member, 1)).toBe(Number.POSITIVE_INFINITY);
  const idle = (adapter: number): number => membership.adapterIdleMs(member, adapter);
  for (const [adapter, agoMs] of [
    [3, 5000],
    [0, 10],
    [1, 100],
  ] as const) {
    rows.countDispatched(member.row, adapter, nowUs() - agoMs * 1000);
  }
  expect(idle(1)).toBeGreaterThanOrEqual(100);
  expect(idle(1)).toBeLessThan(5000);
  expect(idle(3)).toBeGreaterThanOrEqual(5000);
  // The clock of the thread that wrote it may be ahead by a little.
  rows.countDispatched(member.row, 2, nowUs() + 1_000_000);
  expect(idle(2)).toBe(0);
  // Two that were used in one millisecond are told apart.
  const atUs = nowUs() - 1_000_000;
  rows.countDispatched(member.row, 1, atUs);
  rows.countDispatched(member.row, 2, atUs + 100);
  expect(idle(1) - idle(2)).toBeGreaterThan(0);
  // Of a replica that is gone, nothing is written to the row of its successor.
  membership.remove(member);
  const successor = membership.add(spec('b'), 0)!;
  expect(successor.row).toBe(member.row);
  membership.setAdapters(member, ['y'], []);
  expect(read()).toEqual([0, 0b110]);
});

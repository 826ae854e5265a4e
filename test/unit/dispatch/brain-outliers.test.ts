/** What the brain does with replicas that fail, and with those that come back. */
import { describe, expect, test } from 'vitest';
import { RetryRule } from '../../../src/dispatch/decisions.ts';
import { BrainHarness, breakerRules, modelsWith } from '../../support/brain-harness.ts';

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const breaker = { ...breakerRules, mode: 'consecutive', consecutive: 3 } as const;

/** Requests one after another on the row fail; it is the only one that is asked. */
function breakRow(harness: BrainHarness, row: number, failures = 3): void {
  for (const other of harness.rows) if (other !== row) harness.replica(other, { maxInFlight: 0 });
  for (let i = 0; i < failures; i++) {
    harness.arrive(60);
    expect(harness.running.get(60)?.replica).toBe(row);
    harness.fail(60, RetryRule.never);
  }
  for (const other of harness.rows) if (other !== row) harness.replica(other, { maxInFlight: 256 });
}

/** Sends so many requests and tells how many each row was given; all end well. */
function share(harness: BrainHarness, count: number): number[] {
  const given = new Array<number>(harness.rows.length).fill(0);
  for (let i = 0; i < count; i++) {
    harness.arrive(1);
    const { replica } = harness.running.get(1)!;
    given[replica] = given[replica]! + 1;
    harness.finish(1);
  }
  return given;
}

describe('a replica that fails', () => {
  test('is left out, tried by one request, and back when that succeeds', () => {
    const harness = new BrainHarness({ breaker });
    harness.replicas(3);
    breakRow(harness, 0);
    expect(share(harness, 6)[0]).toBe(0);
    harness.advance(5000);
    for (const slot of range(6)) harness.arrive(slot);
    const tries = [...harness.running].filter(([, { replica }]) => replica === 0);
    expect(tries).toHaveLength(1);
    expect(harness.placements.at(-1)?.filtered).toMatchObject({ ejected: 1 });
    const [probe] = tries[0]!;
    harness.firstToken(probe); // a stream need not end for that
    for (const slot of [6, 7]) harness.arrive(slot);
    expect([harness.running.get(6)?.replica, harness.running.get(7)?.replica]).toContain(0);
  });

  test('is out again when the request that tries it fails, which is served elsewhere', () => {
    const harness = new BrainHarness({ breaker });
    harness.replicas(2);
    breakRow(harness, 0);
    harness.advance(5000);
    for (const slot of [0, 1]) harness.arrive(slot);
    const probe = [0, 1].find((slot) => harness.running.get(slot)?.replica === 0)!;
    harness.fail(probe);
    expect(harness.running.get(probe)?.replica).toBe(1);
    expect(share(harness, 4)).toEqual([0, 4]);
  });

  test('is not judged by busy answers or by clients that leave', () => {
    const harness = new BrainHarness({ breaker: { ...breaker, consecutive: 1 } });
    harness.replicas(1);
    harness.arrive(0);
    harness.busy(0, 10);
    harness.advance(10);
    harness.finish(0);
    expect(harness.brain.fleet.breakerState(0)).toBe(0);
  });

  test('half of them may be out at once, and the rest is asked whatever it does', () => {
    const harness = new BrainHarness({ breaker });
    harness.replicas(4);
    for (const row of range(4)) breakRow(harness, row);
    expect(range(4).map((row) => harness.brain.fleet.breakerState(row))).toEqual([1, 1, 0, 0]);
  });

  test('one that is drained is no part of that half', () => {
    const harness = new BrainHarness({ breaker });
    harness.replicas(3);
    breakRow(harness, 0);
    harness.replica(0, { active: false });
    breakRow(harness, 1);
    expect(harness.brain.fleet.breakerState(1)).toBe(1);
  });

  test('where too few are left, those that are out are asked as well', () => {
    const harness = new BrainHarness({ breaker });
    harness.replicas(4);
    for (const row of [0, 1]) breakRow(harness, row);
    expect(share(harness, 8)).toEqual([0, 0, 4, 4]);
    harness.replica(3, { healthy: false });
    const given = share(harness, 9);
    expect(given[3]).toBe(0);
    expect(Math.min(...given.slice(0, 3))).toBeGreaterThan(0);
    harness.replica(3, { healthy: true });
    expect(share(harness, 8)).toEqual([0, 0, 4, 4]);
  });

  test('a request that has failed on the others is not kept waiting for it', () => {
    const harness = new BrainHarness({ breaker });
    harness.replicas(2);
    breakRow(harness, 0);
    harness.arrive(0);
    harness.fail(0);
    expect(harness.lastRefusal).toBe('busy');
    expect(harness.refusals.at(-1)?.retryAfterMs).toBe(5000);
  });

  test('whoever waits is served when it is back', () => {
    const harness = new BrainHarness({ breaker: { ...breaker, panicBelow: 0 } });
    harness.replicas(2, { maxInFlight: 1 });
    breakRow(harness, 0);
    for (const row of [0, 1]) harness.replica(row, { maxInFlight: 1 });
    harness.arrive(0);
    harness.arrive(1);
    expect(harness.brain.queued(0)).toBe(1);
    harness.advance(4999);
    expect(harness.brain.queued(0)).toBe(1);
    harness.advance(1);
    expect(harness.running.get(1)?.replica).toBe(0);
  });

  test('one that went and came back, by its probes, has a clean record', () => {
    const harness = new BrainHarness({ breaker });
    harness.replicas(2);
    breakRow(harness, 0);
    expect(share(harness, 4)).toEqual([0, 4]);
    harness.replica(0, { healthy: false });
    harness.replica(0, { healthy: true });
    expect(share(harness, 4)).toEqual([2, 2]);
  });

  test('another replica in its row has failed nobody', () => {
    const harness = new BrainHarness({ breaker });
    harness.replicas(2);
    breakRow(harness, 0);
    harness.replica(0, { epoch: 2, identity: 77 });
    expect(share(harness, 4)).toEqual([2, 2]);
  });
});

describe('slow start', () => {
  const slow = { slowStartUs: 10_000_000, models: modelsWith('least_in_flight') };

  /** A fleet at work: every row has requests that go on. */
  function atWork(rows: number): BrainHarness {
    const harness = new BrainHarness({ ...slow, slots: 4096 });
    harness.replicas(rows);
    harness.advance(10_000);
    for (const slot of range(40 * rows)) harness.arrive(slot);
    return harness;
  }

  test('a replica that joins others at work is not given everything', () => {
    const harness = atWork(3);
    harness.replica(3);
    const given = [0, 0, 0, 0];
    for (const step of range(100)) {
      for (const k of range(4)) {
        harness.arrive(1000 + 4 * step + k);
        const { replica } = harness.running.get(1000 + 4 * step + k)!;
        given[replica] = given[replica]! + 1;
      }
      harness.advance(100);
      if (step === 20) expect(given[3]).toBeLessThan(0.8 * 21); // a fifth of the way
      expect(given[3]).toBeLessThanOrEqual(2 + 1.5 * (step + 1));
    }
    expect(given[3]).toBeGreaterThan(60);
  });

  test('it is given what nobody else can take', () => {
    const harness = new BrainHarness(slow);
    harness.replicas(2, { maxInFlight: 2 });
    harness.advance(10_000);
    for (const slot of range(4)) harness.arrive(slot);
    harness.replica(2, { maxInFlight: 3 });
    for (const slot of [4, 5, 6]) harness.arrive(slot);
    expect([4, 5, 6].map((slot) => harness.running.get(slot)?.replica)).toEqual([2, 2, 2]);
  });

  test('nor is a request kept from the only one that has its adapter', () => {
    const harness = new BrainHarness(slow);
    harness.replicas(2);
    harness.advance(10_000);
    harness.replica(2, { adapters: Int32Array.of(1) });
    for (const slot of [0, 1, 2]) harness.arrive(slot, 0, 60_000, { adapter: 1 });
    expect([0, 1, 2].map((slot) => harness.running.get(slot)?.replica)).toEqual([2, 2, 2]);
  });

  test('a fleet that has just begun starts at once', () => {
    const harness = new BrainHarness(slow);
    harness.replica(0);
    harness.advance(100);
    for (const slot of range(8)) harness.arrive(slot);
    harness.replica(1);
    for (const slot of range(8)) harness.arrive(8 + slot);
    expect(range(8).map((slot) => harness.running.get(8 + slot)?.replica)).toEqual(
      range(8).map(() => 1),
    );
  });
});

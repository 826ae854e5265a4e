/** Requests that differ in their prompt alone wait a moment for each other and go together. */
import { describe, expect, test } from 'vitest';
import type { Arrival } from '../../../src/dispatch/arrival.ts';
import { RetryRule } from '../../../src/dispatch/decisions.ts';
import { BrainHarness } from '../../support/brain-harness.ts';

const minute = 60_000;
const windowMs = 0.5;
const batching = { windowUs: windowMs * 1000, itemsMax: 16, bytesMax: 10_000 };
const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

const ask = (harness: BrainHarness, slot: number, more: Partial<Arrival> = {}): void => {
  harness.arrive(slot, 0, minute, { streams: false, batch0: 7, batch1: 1, ...more });
};

function oneReplica(facts: Parameters<BrainHarness['replica']>[1] = {}): BrainHarness {
  const harness = new BrainHarness();
  harness.replica(0, { batching, ...facts });
  return harness;
}

describe('a window', () => {
  test('sends those that came in it as one batch when it is over', () => {
    const harness = oneReplica();
    for (const slot of range(8)) {
      ask(harness, slot);
      harness.advance(0.05);
    }
    expect(harness.running.size).toBe(0);
    harness.advance(0.1);
    expect(harness.batches).toEqual([range(8)]);
    expect(harness.running.size).toBe(8);
  });

  test('begins with its first request and wakes the scheduler at its end', () => {
    const harness = oneReplica();
    ask(harness, 0);
    const endUs = harness.nowUs + batching.windowUs;
    expect(harness.brain.nextTimerUs).toBe(endUs);
    harness.advance(0.3);
    ask(harness, 1);
    expect(harness.brain.nextTimerUs).toBe(endUs);
    harness.advance(0.2);
    expect(harness.dispatches.map(({ heldUs }) => Math.round(heldUs))).toEqual([500, 200]);
    expect(harness.brain.nextTimerUs).not.toBe(endUs);
  });

  test('two requests farther apart go in two calls', () => {
    const harness = oneReplica();
    ask(harness, 0);
    harness.advance(windowMs);
    ask(harness, 1);
    harness.advance(windowMs);
    expect(harness.batches).toEqual([]);
    expect(harness.dispatches.map(({ slot }) => slot)).toEqual([0, 1]);
  });

  test('nobody joins one that a late thread has not ended', () => {
    const harness = oneReplica();
    ask(harness, 0);
    ask(harness, 1);
    harness.nowUs += 2 * batching.windowUs;
    ask(harness, 2);
    expect(harness.batches).toEqual([[0, 1]]);
    expect(harness.running.has(2)).toBe(false);
  });
});

describe('a full batch is sent at once', () => {
  test('by its items', () => {
    const harness = oneReplica();
    for (const slot of range(17)) ask(harness, slot, { promptBytes: 10 });
    expect(harness.batches).toEqual([range(16)]);
    expect(harness.running.size).toBe(16);
  });

  test('by its bytes', () => {
    const harness = oneReplica();
    for (const slot of range(3)) ask(harness, slot, { promptBytes: 4000 });
    expect(harness.batches).toEqual([[0, 1]]);
    ask(harness, 3, { promptBytes: 10_001 });
    expect(harness.running.has(3)).toBe(true);
  });
});

describe('no request waits', () => {
  test('for others of another key, or without one', () => {
    const harness = oneReplica();
    ask(harness, 0, { batch0: 0, batch1: 0 });
    expect(harness.running.has(0)).toBe(true);
    ask(harness, 1, { batch0: 1 });
    ask(harness, 2, { batch0: 2 });
    harness.advance(windowMs);
    expect(harness.batches).toEqual([]);
    expect(harness.running.size).toBe(3);
  });

  test('where no replica takes batches', () => {
    const harness = oneReplica({ batching: undefined });
    ask(harness, 0);
    expect(harness.running.has(0)).toBe(true);
    expect(harness.dispatches[0]?.heldUs).toBe(0);
  });

  test('when the only one that takes them has no room, or its deadline is near', () => {
    const harness = oneReplica({ maxInFlight: 1 });
    harness.replica(1);
    ask(harness, 0, { batch0: 0, batch1: 0 });
    expect(harness.running.get(0)?.replica).toBe(0);
    ask(harness, 1);
    expect(harness.running.get(1)?.replica).toBe(1);
    harness.finish(0);
    const short = { streams: false, batch0: 7, batch1: 1, textBytes: 4 };
    harness.arrive(2, 0, windowMs, short);
    expect(harness.running.has(2)).toBe(true);
  });

  test('while others queue: it queues behind them', () => {
    const harness = oneReplica({ maxInFlight: 1 });
    for (const slot of [0, 1]) ask(harness, slot, { batch0: 0, batch1: 0 });
    ask(harness, 2);
    expect(harness.brain.queued(0)).toBe(2);
  });
});

test('a batch goes where batches are taken, and only as far as there is room', () => {
  const harness = new BrainHarness();
  harness.replica(0);
  harness.replica(1, { batching, maxInFlight: 3 });
  for (const slot of range(5)) ask(harness, slot);
  harness.advance(windowMs);
  expect(harness.batches).toEqual([[0, 1, 2]]);
  expect(range(5).map((slot) => harness.running.get(slot)?.replica)).toEqual([1, 1, 1, 0, 0]);
  const [first, second] = harness.placements;
  expect(first?.filtered).toEqual({ notOfBatch: 1 });
  expect(second?.filtered).toEqual({ notOfBatch: 1 });
});

test('the narrowest terms of those that could take it are those of a batch', () => {
  const harness = oneReplica();
  harness.replica(1, { batching: { windowUs: 100, itemsMax: 2, bytesMax: 1000 } });
  for (const slot of range(3)) ask(harness, slot);
  expect(harness.batches).toEqual([[0, 1]]);
  harness.advance(0.1);
  expect(harness.running.size).toBe(3);
});

describe('whoever leaves a batch harms nobody', () => {
  test('a client', () => {
    const harness = oneReplica();
    for (const slot of range(3)) ask(harness, slot);
    harness.cancel(1);
    expect(harness.lastRefusal).toBe('clientGone');
    harness.advance(windowMs);
    expect(harness.batches).toEqual([[0, 2]]);
    expect(harness.refusals.length).toBe(1);
  });

  test('all clients, before the window is over', () => {
    const harness = oneReplica();
    for (const slot of range(3)) ask(harness, slot);
    for (const slot of range(3)) harness.cancel(slot);
    expect(harness.brain.nextTimerUs).toBe(Number.POSITIVE_INFINITY);
  });

  test('the replica: they go to another, each by itself', () => {
    const harness = oneReplica();
    harness.replica(1);
    for (const slot of range(2)) ask(harness, slot);
    harness.replica(0, { healthy: false });
    harness.advance(windowMs);
    expect(harness.batches.flat()).toEqual([]);
    expect(range(2).map((slot) => harness.running.get(slot)?.replica)).toEqual([1, 1]);
  });

  test('the last replica: they wait for one as any request', () => {
    const harness = oneReplica();
    for (const slot of range(2)) ask(harness, slot);
    harness.replica(0, { maxInFlight: 0 });
    harness.advance(windowMs);
    expect(harness.brain.queued(0)).toBe(2);
    harness.replica(0, { maxInFlight: 8 });
    expect(harness.running.size).toBe(2);
    expect(harness.dispatches.every(({ heldUs }) => heldUs >= batching.windowUs)).toBe(true);
  });

  test('the gateway: all are told', () => {
    const harness = oneReplica();
    for (const slot of range(2)) ask(harness, slot);
    harness.brain.stop(harness.nowUs);
    expect(harness.refusals.map(({ slot }) => slot)).toEqual([0, 1]);
    expect(harness.lastRefusal).toBe('stopping');
    harness.check();
  });

  test('a deadline that a late thread has missed', () => {
    const harness = oneReplica();
    ask(harness, 0);
    harness.arrive(1, 0, 1, { streams: false, batch0: 7, batch1: 1 });
    harness.advance(2);
    expect(harness.lastRefusal).toBe('deadline');
    expect([...harness.running.keys()]).toEqual([0]);
  });
});

describe('after a batch', () => {
  const failed = (retry: RetryRule, config = {}): BrainHarness => {
    const harness = new BrainHarness(config);
    harness.replica(0, { batching });
    for (const slot of range(2)) ask(harness, slot);
    harness.advance(windowMs);
    expect(harness.batches).toEqual([[0, 1]]);
    harness.fail(0, retry);
    return harness;
  };

  test('that was refused, each is asked alone at once, of the same replica, whatever the budget', () => {
    const retry = { maxAttempts: 1, budget: 0, budgetMin: 0 };
    const harness = failed(RetryRule.alone, { retry });
    expect(harness.running.get(0)).toEqual({ attempt: 2, replica: 0 });
    expect(harness.batches.length).toBe(1);
    expect(harness.retries).toEqual([]);
    harness.fail(0, RetryRule.elsewhere);
    expect(harness.lastRefusal).toBe('failed');
  });

  test('that was refused by a replica that is gone, it is over', () => {
    const harness = failed(RetryRule.alone);
    harness.replica(0, { healthy: false });
    harness.fail(1, RetryRule.alone);
    expect(harness.lastRefusal).toBe('failed');
  });

  test('that failed, a retry is by itself and elsewhere', () => {
    const harness = oneReplica();
    harness.replica(1, { batching });
    for (const slot of range(2)) ask(harness, slot);
    harness.advance(windowMs);
    const replica = harness.running.get(0)?.replica ?? -1;
    for (const slot of range(2)) harness.fail(slot);
    expect(harness.batches.length).toBe(1);
    expect(range(2).map((slot) => harness.running.get(slot)?.replica)).toEqual([
      1 - replica,
      1 - replica,
    ]);
  });
});

test('more keys than batches can be open at one time go straight through', () => {
  const harness = new BrainHarness({ slots: 80 });
  harness.replica(0, { batching });
  for (const slot of range(70)) ask(harness, slot, { batch0: slot + 1 });
  expect(harness.running.size).toBe(6);
  harness.advance(windowMs);
  expect(harness.running.size).toBe(70);
});

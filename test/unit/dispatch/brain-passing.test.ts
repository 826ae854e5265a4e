/** Hedges and batches pass those who wait, and take nothing that any of them could use. */
import { describe, expect, test } from 'vitest';
import type { Arrival } from '../../../src/dispatch/arrival.ts';
import { BrainHarness } from '../../support/brain-harness.ts';

const minute = 60_000;
const hedgeMs = 50;
const windowMs = 0.5;
const batching = { windowUs: windowMs * 1000, itemsMax: 16, bytesMax: 10_000 };
const batched = { streams: false, batch0: 7, batch1: 1 };
const having = (...adapters: number[]): { adapters: Int32Array } => ({
  adapters: Int32Array.of(adapters.reduce((bits, adapter) => bits | (1 << (adapter - 1)), 0)),
});

const ask = (harness: BrainHarness, slot: number, more: Partial<Arrival> = {}): void => {
  harness.arrive(slot, 0, minute, more);
};
const pinnedTo = (pin: number): Partial<Arrival> => ({ pin, pinEpoch: 1 });

/** Replica 2 is full, and slot 9 waits for it alone. The others are idle. */
function withPinnedWaiter(): BrainHarness {
  const harness = new BrainHarness();
  harness.replicas(2, { batching });
  harness.replica(2, { batching, maxInFlight: 1 });
  ask(harness, 8, pinnedTo(2));
  ask(harness, 9, pinnedTo(2));
  expect([harness.running.has(9), harness.brain.queued(0)]).toEqual([false, 1]);
  return harness;
}

describe('one that waits for what its replica keeps', () => {
  test('stops no hedge', () => {
    const harness = withPinnedWaiter();
    ask(harness, 0, { hedgeUs: hedgeMs * 1000 });
    const first = harness.running.get(0)?.replica as number;
    harness.advance(hedgeMs);
    expect(harness.hedges.get(0)?.replica).toBe(1 - first);
  });

  test('stops no batch, neither as it opens nor as it is sent', () => {
    const harness = withPinnedWaiter();
    for (const slot of [0, 1, 2]) ask(harness, slot, batched);
    expect(harness.running.has(0)).toBe(false);
    harness.advance(windowMs);
    expect(harness.batches).toEqual([[0, 1, 2]]);
  });

  test('has its replica to itself, though there is room for somebody smaller', () => {
    const harness = new BrainHarness();
    harness.replicas(2, { batching, kvTokens: 10_000 });
    const size = (promptTokens: number): Partial<Arrival> => ({ promptTokens, maxTokens: 10 });
    ask(harness, 0, { ...pinnedTo(1), ...size(6000) });
    ask(harness, 1, { ...pinnedTo(1), ...size(6000) });
    expect(harness.running.has(1)).toBe(false);
    ask(harness, 2, { ...size(100), hedgeUs: hedgeMs * 1000 });
    expect(harness.running.get(2)?.replica).toBe(0);
    harness.advance(hedgeMs);
    expect(harness.hedgesBegun).toEqual([]); // it would be at replica 1
    for (const slot of [3, 4]) ask(harness, slot, { ...batched, ...size(100) });
    harness.advance(windowMs);
    expect(harness.batches).toEqual([[3, 4]]);
    expect([3, 4].map((slot) => harness.running.get(slot)?.replica)).toEqual([0, 0]);
    harness.finish(0);
    expect(harness.running.get(1)?.replica).toBe(1);
  });

  test('once it waits no more it holds nothing, however its wait ended', () => {
    const endings: Record<string, (harness: BrainHarness) => void> = {
      served: (harness) => harness.finish(8),
      cancelled: (harness) => harness.cancel(9),
      gone: (harness) => harness.replica(2, { active: false }),
    };
    for (const [name, end] of Object.entries(endings)) {
      const harness = withPinnedWaiter();
      end(harness);
      expect(harness.brain.queued(0), name).toBe(0);
      ask(harness, 0, { hedgeUs: hedgeMs * 1000 });
      harness.advance(hedgeMs);
      expect(harness.hedgesBegun, name).toHaveLength(1);
    }
  });
});

describe('one that waits for an adapter', () => {
  /** Replica 0 has adapter 1 and is full, 1 and 2 have none. */
  function withAdapterWaiter(): BrainHarness {
    const harness = new BrainHarness();
    harness.replica(0, { ...having(1), batching, maxInFlight: 1 });
    harness.replica(1, { batching });
    harness.replica(2, { batching });
    ask(harness, 8, { adapter: 1 });
    ask(harness, 9, { adapter: 1 });
    expect(harness.brain.queued(0)).toBe(1);
    return harness;
  }

  test('stops no hedge and no batch of those who go elsewhere', () => {
    const harness = withAdapterWaiter();
    ask(harness, 0, { hedgeUs: hedgeMs * 1000 });
    harness.advance(hedgeMs);
    const rows = [harness.running.get(0)?.replica, harness.hedges.get(0)?.replica];
    expect(rows.toSorted()).toEqual([1, 2]);
    for (const slot of [1, 2]) ask(harness, slot, batched);
    harness.advance(windowMs);
    expect(harness.batches).toEqual([[1, 2]]);
  });

  test('is followed by who wants the same: no window is opened for it or joined', () => {
    const harness = new BrainHarness();
    harness.replica(0, { ...having(1), batching, kvTokens: 10_000 });
    harness.replica(1, { batching });
    const size = (promptTokens: number): Partial<Arrival> => ({ promptTokens, maxTokens: 10 });
    ask(harness, 0, { adapter: 1, ...size(6000) });
    ask(harness, 1, { ...batched, adapter: 1, ...size(10) }); // opens one while nobody waits
    ask(harness, 2, { adapter: 1, ...size(6000) });
    expect(harness.brain.queued(0)).toBe(1);
    ask(harness, 3, { ...batched, adapter: 1, ...size(10) });
    expect(harness.brain.queued(0)).toBe(2);
    ask(harness, 4, { ...batched, batch0: 8, adapter: 1, ...size(10) });
    expect(harness.brain.queued(0)).toBe(3);
    harness.advance(windowMs);
    expect(harness.brain.queued(0)).toBe(4); // slot 1, behind those
    expect(harness.batches).toEqual([]);
    harness.finish(0);
    expect([1, 2, 3, 4].every((slot) => harness.running.has(slot))).toBe(true);
  });

  test('that all replicas have waits for any of them', () => {
    const harness = new BrainHarness();
    for (const row of [0, 1]) {
      harness.replica(row, { ...having(1), batching, kvTokens: 10_000 });
    }
    const large = { adapter: 1, promptTokens: 6000, maxTokens: 10 };
    for (const slot of [0, 1, 2]) ask(harness, slot, large);
    expect(harness.brain.queued(0)).toBe(1);
    const small = { promptTokens: 10, maxTokens: 10 };
    ask(harness, 3, { ...batched, ...small });
    expect(harness.brain.queued(0)).toBe(2);
  });
});

describe('one that waits where its adapter has still to come', () => {
  /** Replica 0 would load adapter 1 and keeps what slot 9 is about. */
  function loading(): BrainHarness {
    const harness = new BrainHarness();
    harness.replica(0, { batching, loadable: having(1).adapters, maxInFlight: 2 });
    ask(harness, 9, { ...pinnedTo(0), adapter: 1 });
    expect(harness.brain.queued(0)).toBe(1);
    return harness;
  }

  test('keeps nobody from its replica meanwhile', () => {
    const harness = loading();
    ask(harness, 0);
    expect(harness.running.get(0)?.replica).toBe(0);
    // Nor who is pinned there without the adapter, nor who comes to wait before there is room.
    ask(harness, 1, pinnedTo(0));
    expect(harness.running.get(1)?.replica).toBe(0);
    ask(harness, 2);
    harness.finish(0);
    expect(harness.running.get(2)?.replica).toBe(0);
    harness.brain.assertExact();
  });

  test('goes first once it is there', () => {
    const harness = loading();
    for (const slot of [0, 1]) ask(harness, slot);
    ask(harness, 2);
    harness.replica(0, { adapters: having(1).adapters });
    harness.finish(0);
    expect(harness.running.has(9)).toBe(true);
    expect(harness.running.has(2)).toBe(false);
  });
});

describe('one that any replica could serve', () => {
  test('stops hedges and batches, whoever else waits', () => {
    const harness = new BrainHarness();
    harness.replicas(2, { batching, kvTokens: 10_000 });
    const size = (promptTokens: number): Partial<Arrival> => ({ promptTokens, maxTokens: 10 });
    ask(harness, 0, { ...size(100), hedgeUs: hedgeMs * 1000 });
    for (const slot of [1, 2]) ask(harness, slot, size(6000));
    ask(harness, 3, size(6000)); // both have room, and for it neither has enough
    ask(harness, 4, { ...pinnedTo(0), ...size(6000) });
    expect(harness.brain.queued(0)).toBe(2);
    harness.advance(hedgeMs);
    expect(harness.hedgesBegun).toEqual([]);
    for (const slot of [5, 6]) ask(harness, slot, { ...batched, ...size(10) });
    expect(harness.brain.queued(0)).toBe(4);
    harness.cancel(3);
    expect([5, 6].every((slot) => harness.running.has(slot))).toBe(true);
  });

  test('also one that is tried again, which its failed replica does not serve', () => {
    const harness = new BrainHarness();
    harness.replicas(2, { batching, maxInFlight: 2 });
    ask(harness, 0);
    const failed = harness.running.get(0)?.replica as number;
    for (const slot of [1, 2]) ask(harness, slot, pinnedTo(1 - failed));
    harness.fail(0);
    expect(harness.brain.queued(0)).toBe(1);
    for (const slot of [3, 4]) ask(harness, slot, batched);
    // They do not wait for each other, and one of them is served where the first has failed.
    expect(harness.running.get(3)?.replica).toBe(failed);
    expect(harness.batches).toEqual([]);
  });
});

/** Requests for adapters go where the adapter is, and keep nobody waiting who does not need it. */
import { describe, expect, test } from 'vitest';
import { policyNames } from '../../../src/dispatch/policies/registry.ts';
import { adapterSalt } from '../../../src/lib/adapter-salt.ts';
import { mix32 } from '../../../src/lib/mix32.ts';
import { BrainHarness, modelsWith } from '../../support/brain-harness.ts';

const minute = 60_000;
const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
const having = (...adapters: number[]): { adapters: Int32Array } => ({
  adapters: Int32Array.of(adapters.reduce((bits, adapter) => bits | (1 << (adapter - 1)), 0)),
});

/** Row 0 has adapters 1 and 2, row 1 has adapter 1, row 2 none; each holds one request. */
function threeReplicas(config: ConstructorParameters<typeof BrainHarness>[0] = {}): BrainHarness {
  const harness = new BrainHarness(config);
  harness.replica(0, { ...having(1, 2), maxInFlight: 1 });
  harness.replica(1, { ...having(1), maxInFlight: 1 });
  harness.replica(2, { maxInFlight: 1 });
  return harness;
}

const ask = (
  harness: BrainHarness,
  slot: number,
  adapter: number,
  more = {},
): number | undefined => {
  harness.arrive(slot, 0, minute, { adapter, ...more });
  return harness.running.get(slot)?.replica;
};

test.each(policyNames)('%s picks among those that have the adapter', (policy) => {
  const harness = new BrainHarness({ models: modelsWith(policy) });
  for (const row of range(6)) harness.replica(row, row === 2 || row === 4 ? having(7) : {});
  const rows = new Set(range(20).map((slot) => ask(harness, slot, 7)));
  expect([...rows].filter((row) => row !== 2 && row !== 4)).toEqual([]);
});

test('a session keeps to those that have its adapter', () => {
  const models = modelsWith('random').map((rules) => ({ ...rules, sessionAffinity: true }));
  const harness = new BrainHarness({ models });
  for (const row of range(4)) harness.replica(row, row === 3 ? having(1) : {});
  for (const session0 of range(20)) {
    expect(ask(harness, session0, 1, { session0: session0 + 1, session1: 1 })).toBe(3);
  }
});

test('an adapter of a high number is told from its neighbours', () => {
  const harness = new BrainHarness();
  const adapters = new Int32Array(8);
  adapters[7] = 1 << 31;
  harness.brain.updateReplica(
    0,
    {
      ...{ epoch: 1, model: 0, active: true, healthy: true, maxInFlight: 1, weight: 1 },
      ...{ identity: 1, prefillUs: 1, residentUs: 1, kvTokens: 0, adapters },
    },
    harness.nowUs,
  );
  for (const adapter of [1, 32, 224, 255]) {
    harness.arrive(adapter % 64, 0, minute, { adapter });
    expect(harness.lastRefusal).toBe('noReplica');
  }
});

describe('without a replica that could serve it', () => {
  test('a request is refused at once, whatever else there is', () => {
    const harness = threeReplicas();
    ask(harness, 0, 3);
    expect(harness.lastRefusal).toBe('noReplica');
    harness.replica(0, { healthy: false });
    ask(harness, 1, 2);
    expect(harness.refusals.map(({ slot }) => slot)).toEqual([0, 1]);
    expect(ask(harness, 2, 1)).toBe(1);
  });

  test('one that waits already waits on, and is served when the replica is back', () => {
    const harness = threeReplicas();
    ask(harness, 0, 2);
    ask(harness, 1, 2);
    harness.replica(0, { healthy: false });
    harness.finish(0);
    expect(harness.brain.queued(0)).toBe(1);
    harness.replica(0, { healthy: true });
    expect(harness.running.get(1)?.replica).toBe(0);
  });

  test('a request that failed there is not tried where the adapter is not', () => {
    const harness = threeReplicas();
    ask(harness, 0, 2);
    harness.fail(0);
    expect(harness.lastRefusal).toBe('failed');
    ask(harness, 1, 1);
    const first = harness.running.get(1)!.replica;
    harness.fail(1);
    expect(harness.running.get(1)?.replica).toBe(1 - first);
  });
});

describe('a request that waits for a replica with its adapter', () => {
  test('is passed by those who need another, on whatever it could not use', () => {
    const harness = threeReplicas();
    expect(ask(harness, 0, 2)).toBe(0);
    expect(ask(harness, 1, 2)).toBeUndefined();
    expect(ask(harness, 2, 1)).toBe(1);
    expect(ask(harness, 3, 0)).toBe(2);
    harness.finish(3);
    expect(ask(harness, 4, 0)).toBe(2);
    expect(harness.brain.queued(0)).toBe(1);
  });

  test('has its place: the replica it waits for is its when it is free', () => {
    const harness = threeReplicas();
    for (const slot of range(3)) ask(harness, slot, slot === 0 ? 2 : 0);
    ask(harness, 10, 2);
    for (const slot of range(5)) ask(harness, 11 + slot, 0);
    expect(harness.brain.queued(0)).toBe(6);
    harness.finish(0);
    expect(harness.running.get(10)?.replica).toBe(0);
    harness.finish(1);
    harness.finish(2);
    expect([...harness.running.keys()].toSorted()).toEqual([10, 11, 12]);
  });

  test('keeps the others of its own adapter behind it', () => {
    const harness = threeReplicas();
    ask(harness, 0, 2);
    for (const slot of [1, 2, 3]) ask(harness, slot, 2);
    for (const slot of [0, 1, 2]) {
      harness.finish(slot);
      expect([...harness.running.keys()]).toEqual([slot + 1]);
    }
  });

  test('does not lose the room in a KV cache to smaller ones that pass it', () => {
    const harness = new BrainHarness();
    harness.replica(0, { ...having(1), kvTokens: 10_000 });
    harness.replica(1, { kvTokens: 10_000 });
    const size = (promptTokens: number): object => ({ promptTokens, maxTokens: 10 });
    expect(ask(harness, 0, 1, size(6000))).toBe(0);
    expect(ask(harness, 1, 1, size(6000))).toBeUndefined();
    // Replica 0 has room for these and is kept for the one that waits.
    for (const slot of [2, 3, 4]) expect(ask(harness, slot, 0, size(1000))).toBe(1);
    expect(ask(harness, 5, 1, size(10))).toBeUndefined();
    harness.finish(0);
    expect(harness.running.get(1)?.replica).toBe(0);
    expect(harness.running.get(5)?.replica).toBe(0);
  });

  test('that can use any replica is passed by nobody', () => {
    const harness = new BrainHarness();
    harness.replica(0, { ...having(1), kvTokens: 10_000 });
    ask(harness, 0, 0, { promptTokens: 6000, maxTokens: 10 });
    ask(harness, 1, 0, { promptTokens: 6000, maxTokens: 10 });
    expect(ask(harness, 2, 1, { promptTokens: 10, maxTokens: 10 })).toBeUndefined();
    expect(harness.brain.queued(0)).toBe(2);
  });

  test('fills the queue for its like and not for those who need not wait', () => {
    const harness = threeReplicas({ queueMax: 3 });
    for (const slot of range(4)) ask(harness, slot, 2);
    expect(harness.brain.queued(0)).toBe(3);
    expect(ask(harness, 4, 0)).toBeDefined();
    expect(ask(harness, 5, 0)).toBeDefined();
    ask(harness, 6, 0);
    expect(harness.lastRefusal).toBe('queueFull');
  });

  test('ends its wait as any other does', () => {
    const harness = threeReplicas({ queueTimeoutMs: 500 });
    ask(harness, 0, 2);
    ask(harness, 1, 2);
    harness.advance(500);
    expect(harness.lastRefusal).toBe('queueWaitOver');
    expect(harness.brain.nextTimerUs).toBe(Number.POSITIVE_INFINITY);
  });
});

test('who was left out is told by reason: no adapter, kept for another, failed before', () => {
  const harness = new BrainHarness();
  harness.replica(0, { ...having(1), kvTokens: 10_000 });
  harness.replica(1, { ...having(2) });
  harness.replica(2, { ...having(2) });
  ask(harness, 0, 1, { promptTokens: 6000, maxTokens: 10 });
  expect(harness.placements.at(-1)?.filtered).toEqual({ noAdapter: 2 });
  ask(harness, 1, 1, { promptTokens: 6000, maxTokens: 10 });
  ask(harness, 2, 0, { promptTokens: 10, maxTokens: 10 });
  expect(harness.placements.at(-1)).toMatchObject({ slot: 2, filtered: { kept: 1 } });
  ask(harness, 3, 2);
  harness.fail(3);
  expect(harness.placements.at(-1)).toMatchObject({
    ...{ slot: 3, attempt: 2, filtered: { noAdapter: 1, failedBefore: 1 } },
  });
});

test('a prompt that comes from an adapter meets its like at the fallback', () => {
  const harness = new BrainHarness({
    models: modelsWith('least_in_flight', 'prefix_affinity').map((model, i) =>
      i === 0 ? { ...model, fallbacks: [{ model: 1, adapter: 0 }] } : model,
    ),
  });
  for (const row of range(8)) harness.replica(row, { model: 1 });
  for (const slot of range(20)) {
    const [head0, head1] = [mix32(slot), mix32(slot + 1000)];
    const salt = adapterSalt(3);
    harness.arrive(slot, 1, minute, { head0, head1 });
    const { replica } = harness.running.get(slot) ?? {};
    harness.finish(slot);
    harness.arrive(slot, 0, minute, { adapter: 3, head0: head0 ^ salt, head1: head1 ^ salt });
    expect(harness.running.get(slot)?.replica).toBe(replica);
    harness.finish(slot);
  }
});

describe('an adapter that replicas load when it is asked for', () => {
  const bits = (...adapters: number[]): Int32Array => having(...adapters).adapters;

  /** Rows 0 and 1 could load adapters 1 and 2, row 0 has 1. */
  function loading(): BrainHarness {
    const harness = new BrainHarness({ models: modelsWith('round_robin') });
    harness.replica(0, { adapters: bits(1), loadable: bits(1, 2), maxInFlight: 2 });
    harness.replica(1, { loadable: bits(1, 2), maxInFlight: 2 });
    return harness;
  }

  test('is waited for, and served by the one that has it first', () => {
    const harness = loading();
    expect(ask(harness, 0, 2)).toBeUndefined();
    expect(ask(harness, 1, 2)).toBeUndefined();
    expect(harness.brain.queued(0)).toBe(2);
    // Nobody else waits for them.
    expect(ask(harness, 2, 1)).toBe(0);
    expect(ask(harness, 3, 0)).toBeDefined();
    harness.replica(1, { adapters: bits(2), loadable: bits(1, 2), maxInFlight: 2 });
    expect([0, 1].map((slot) => harness.running.get(slot)?.replica)).toContain(1);
    expect(harness.running.get(0)?.replica).toBe(1);
    harness.brain.assertExact();
  });

  test('is waited for no longer once nobody could load it', () => {
    const harness = loading();
    ask(harness, 0, 2);
    harness.replica(0, { adapters: bits(1), loadable: bits(1), maxInFlight: 2 });
    expect(harness.brain.queued(0)).toBe(1);
    harness.replica(1, { loadable: bits(1), maxInFlight: 2 });
    expect(harness.brain.queued(0)).toBe(0);
    expect(harness.log.at(-1)).toContain('noReplica');
    // Who comes now is refused at once, until a replica would try again.
    ask(harness, 1, 2);
    expect(harness.log.at(-1)).toContain('noReplica');
    harness.replica(1, { loadable: bits(1, 2), maxInFlight: 2 });
    ask(harness, 2, 2);
    expect(harness.brain.queued(0)).toBe(1);
    harness.brain.assertExact();
  });

  test('is waited for while who could load it is down, and not when it has left', () => {
    const harness = new BrainHarness({ models: modelsWith('round_robin') });
    harness.replica(0, { loadable: bits(1) });
    ask(harness, 0, 1);
    harness.replica(0, { loadable: bits(1), healthy: false });
    expect(harness.brain.queued(0)).toBe(1);
    harness.replica(0, { loadable: bits(1), model: -1, active: false });
    expect(harness.brain.queued(0)).toBe(0);
    expect(harness.log.at(-1)).toContain('noReplica');
  });

  test('goes on to a fallback when nobody could load it', () => {
    const models = modelsWith('round_robin', 'round_robin').map((rules, i) =>
      i === 0 ? { ...rules, fallbacks: [{ model: 1, adapter: 0 }] } : rules,
    );
    const harness = new BrainHarness({ models });
    harness.replica(0, { loadable: bits(1) });
    harness.replica(1, { model: 1 });
    ask(harness, 0, 1);
    expect(harness.running.size).toBe(0);
    harness.replica(0, { loadable: undefined });
    harness.advance(0);
    expect(harness.running.get(0)?.replica).toBe(1);
    harness.brain.assertExact();
  });
});

/** What the brain tells of each choice: the loads it saw, who was left out and why. */
import { describe, expect, test } from 'vitest';
import { BrainHarness, modelsWith, noPrefixes } from '../../support/brain-harness.ts';

const minute = 60_000;

test('a choice is told with the loads before the request is counted', () => {
  const harness = new BrainHarness({ models: modelsWith('least_in_flight') });
  harness.replicas(2);
  for (const slot of [0, 1, 2]) harness.arrive(slot, 0, minute, { promptTokens: 100 });
  const idle = { inFlight: 0, pendingTokens: 0, contextTokens: 0, matchedTokens: 0 };
  const busy = { inFlight: 1, pendingTokens: 100, contextTokens: 100, matchedTokens: 0 };
  const seen = harness.placements.map((placed) => placed.seen);
  expect(seen).toEqual([
    [
      { row: 0, ...idle },
      { row: 1, ...idle },
    ],
    [
      { row: 0, ...busy },
      { row: 1, ...idle },
    ],
    [
      { row: 0, ...busy },
      { row: 1, ...busy },
    ],
  ]);
  expect(harness.placements.map(({ replica }) => replica)).toEqual([0, 1, 0]);
  expect(harness.placements[0]).toMatchObject({ promptTokens: 100, outputTokens: 256 });
});

test('what each candidate holds of the prompt is told where the policy asks', () => {
  const words = Int32Array.from([1, 2, 1, 2]);
  const prefixes = { ...noPrefixes, words, startOf: (slot: number) => 2 * slot, countOf: () => 1 };
  const harness = new BrainHarness({ models: modelsWith('marginal_cost'), prefixes });
  harness.replicas(2);
  harness.arrive(0, 0, minute, { promptTokens: 2000 });
  harness.finish(0);
  harness.arrive(1, 0, minute, { promptTokens: 2000 });
  const matched = harness.placements.map(({ seen }) => seen.map((one) => one.matchedTokens));
  expect(matched).toEqual([
    [0, 0],
    [512, 0],
  ]);
});

describe('who is left out', () => {
  test('nobody of an idle fleet', () => {
    const harness = new BrainHarness();
    harness.replicas(3);
    harness.arrive(0);
    expect(harness.placements[0]?.filtered).toEqual({});
  });

  test('unhealthy, draining and weightless replicas are not routable', () => {
    const harness = new BrainHarness();
    harness.replicas(4);
    harness.replica(1, { healthy: false });
    harness.replica(2, { active: false });
    harness.replica(3, { weight: 0 });
    harness.arrive(0);
    expect(harness.placements[0]?.filtered).toEqual({ notRoutable: 3 });
    harness.replica(1, { healthy: true });
    harness.arrive(1);
    expect(harness.placements[1]?.filtered).toEqual({ notRoutable: 2 });
  });

  test('a row that nobody uses is no member', () => {
    const harness = new BrainHarness();
    harness.replicas(2);
    harness.replica(1, { active: false, model: -1 });
    harness.arrive(0);
    expect(harness.placements[0]).toMatchObject({ filtered: {}, seen: [{ row: 0 }] });
  });

  test('a replica that changes its model is counted there', () => {
    const harness = new BrainHarness({ models: modelsWith('random', 'random') });
    harness.replicas(3);
    harness.replica(0, { healthy: false });
    harness.replica(0, { model: 1 });
    harness.replica(2, { model: 1 });
    harness.arrive(0, 0);
    harness.arrive(1, 1);
    expect(harness.placements.map(({ filtered }) => filtered)).toEqual([{}, { notRoutable: 1 }]);
  });

  test('a full one, a paused one, and one that failed this request', () => {
    const harness = new BrainHarness();
    harness.replicas(4);
    harness.replica(0, { maxInFlight: 1 });
    for (const slot of [0, 1, 2]) harness.arrive(slot);
    const left = [1, 2, 3].filter((row) => {
      return row !== harness.running.get(1)?.replica && row !== harness.running.get(2)?.replica;
    });
    harness.busy(1, 5000);
    harness.fail(2);
    const retry = harness.placements.at(-1);
    expect(retry).toMatchObject({ slot: 2, attempt: 2 });
    expect(retry?.filtered).toEqual({ full: 1, paused: 1, failedBefore: 1 });
    expect(retry?.seen.map(({ row }) => row)).toEqual(left);
  });

  test('one that has enough to prefill', () => {
    const models = modelsWith('least_in_flight').map((rules) => ({ ...rules, holdTokens: 1000 }));
    const harness = new BrainHarness({ models });
    harness.replicas(2);
    harness.arrive(0, 0, minute, { promptTokens: 5000 });
    harness.arrive(1, 0, minute, { promptTokens: 10 });
    expect(harness.placements[1]).toMatchObject({ replica: 1, filtered: { held: 1 } });
  });

  test('one without room for the request in its KV cache', () => {
    const harness = new BrainHarness({ models: modelsWith('random') });
    harness.replica(0, { kvTokens: 10_000 });
    harness.arrive(0, 0, minute, { promptTokens: 8000, maxTokens: 10 });
    harness.replica(1);
    harness.arrive(1, 0, minute, { promptTokens: 8000, maxTokens: 10 });
    expect(harness.placements[1]).toMatchObject({ replica: 1, filtered: { noKvRoom: 1 } });
    harness.arrive(2, 0, minute, { promptTokens: 10, maxTokens: 10 });
    expect(harness.placements[2]?.filtered).toEqual({});
  });
});

test('a request of a session is placed by its ring, another by the policy', () => {
  const models = modelsWith('random').map((rules) => ({ ...rules, sessionAffinity: true }));
  const harness = new BrainHarness({ models });
  harness.replicas(3);
  harness.arrive(0, 0, minute, { session0: 5, session1: 6 });
  harness.arrive(1);
  expect(harness.placements.map(({ isBySession }) => isBySession)).toEqual([true, false]);
});

test('the time it waited is told with the choice', () => {
  const harness = new BrainHarness();
  harness.replica(0, { maxInFlight: 1 });
  harness.arrive(0);
  harness.arrive(1);
  harness.advance(30);
  harness.finish(0);
  expect(harness.placements.map(({ heldUs }) => heldUs)).toEqual([0, 30_000]);
});

test('a request that is refused when its turn comes was not placed', () => {
  const harness = new BrainHarness();
  harness.replica(0, { prefillUs: 1000 });
  harness.arrive(0, 0, 100, { promptTokens: 100_000 });
  expect(harness.lastRefusal).toBe('tooLate');
  expect(harness.placements).toEqual([]);
});

/** What the brain does with the reports of engines. */
import { describe, expect, test } from 'vitest';
import { policyNames } from '../../../src/dispatch/policies/registry.ts';
import { BrainHarness, modelsWith } from '../../support/brain-harness.ts';

const minute = 60_000;
const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
/** The last looks at prefill alone, of which no report tells. */
const blindToIt = ['round_robin', 'random', 'min_ttft'];

describe('load of other clients', () => {
  test.each(policyNames.filter((name) => !blindToIt.includes(name)))('%s avoids it', (policy) => {
    const harness = new BrainHarness({ models: modelsWith(policy) });
    harness.replicas(2);
    harness.report(0, { running: 40, waiting: 10, kvTokens: 60_000 });
    for (const slot of range(20)) harness.arrive(slot, 0, minute, { textBytes: 40 });
    const there = harness.dispatches.filter(({ replica }) => replica === 0).length;
    expect(there).toBeLessThan(5);
  });

  test('counts for a session too: it spills over', () => {
    const models = modelsWith('round_robin').map((rules) => ({ ...rules, sessionAffinity: true }));
    const harness = new BrainHarness({ models });
    harness.replicas(3);
    const ask = (slot: number): number => {
      harness.arrive(slot, 0, minute, { session0: 5, session1: 6 });
      harness.finish(slot);
      return harness.dispatches.at(-1)!.replica;
    };
    const home = ask(0);
    harness.report(home, { running: 50 });
    expect(ask(1)).not.toBe(home);
    harness.report(home, { running: 0 });
    expect(ask(2)).toBe(home);
  });

  test('takes nothing from max_in_flight, which counts our own', () => {
    const harness = new BrainHarness();
    harness.replica(0, { maxInFlight: 3 });
    harness.report(0, { running: 500 });
    for (const slot of range(4)) harness.arrive(slot);
    expect([...harness.running.keys()]).toEqual([0, 1, 2]);
    expect(harness.brain.fleet.inFlight(0)).toBe(3);
  });

  test('what is ours in the report is not counted twice', () => {
    const harness = new BrainHarness();
    harness.replicas(2);
    for (const slot of range(6)) harness.arrive(slot);
    harness.report(0, { running: 3, ownRequests: 3 });
    for (const slot of range(2)) harness.arrive(6 + slot);
    expect([harness.brain.fleet.inFlight(0), harness.brain.fleet.inFlight(1)]).toEqual([4, 4]);
  });

  test('is forgotten with another epoch of the row', () => {
    const harness = new BrainHarness();
    harness.replicas(2);
    harness.report(0, { running: 50 });
    harness.replica(0, { epoch: 2 });
    for (const slot of range(4)) harness.arrive(slot);
    expect([harness.brain.fleet.inFlight(0), harness.brain.fleet.inFlight(1)]).toEqual([2, 2]);
  });

  test('of a row that is no replica is ignored', () => {
    const harness = new BrainHarness();
    harness.report(5, { running: 50, kvCapacity: 1000 });
    harness.arrive(0);
    expect(harness.lastRefusal).toBe('noReplica');
  });
});

describe('room in a KV cache', () => {
  const kvTokens = 10_000;
  const big = { promptTokens: 6000, maxTokens: 100 };

  test('a size that only the engine reports holds nothing back', () => {
    const harness = new BrainHarness();
    harness.replica(0);
    harness.report(0, { kvCapacity: 10_000 });
    for (const slot of range(3)) harness.arrive(slot, 0, minute, big);
    expect(harness.running.size).toBe(3);
  });

  test('the configured size is the one that counts', () => {
    const harness = new BrainHarness();
    harness.replica(0, { kvTokens: 100_000 });
    harness.report(0, { kvCapacity: 10_000 });
    for (const slot of range(3)) harness.arrive(slot, 0, minute, big);
    expect(harness.running.size).toBe(3);
  });

  test('what others have in it is no room of ours, until they leave', () => {
    const harness = new BrainHarness();
    harness.replica(0, { kvTokens });
    const ours = { ownRequests: 1, ownTokens: 2000 };
    harness.arrive(0, 0, minute, { promptTokens: 2000, maxTokens: 100 });
    harness.report(0, { running: 3, kvTokens: 9000, kvCapacity: 10_000, ...ours });
    harness.arrive(1, 0, minute, { promptTokens: 2000, maxTokens: 100 });
    expect(harness.brain.queued(0)).toBe(1);
    harness.report(0, { running: 1, kvTokens: 2100, kvCapacity: 10_000, ...ours });
    expect([...harness.running.keys()]).toEqual([0, 1]);
  });

  test('a cache that others fill never stops us: with nothing of ours there, one request goes', () => {
    const harness = new BrainHarness();
    harness.replica(0, { kvTokens });
    harness.report(0, { running: 90, kvTokens: 10_000, kvCapacity: 10_000 });
    harness.arrive(0, 0, minute, big);
    harness.arrive(1, 0, minute, big);
    expect([...harness.running.keys()]).toEqual([0]);
    harness.finish(0);
    expect([...harness.running.keys()]).toEqual([1]);
  });

  test('a report that is told again as it grows old gives its room back', () => {
    const harness = new BrainHarness();
    harness.replica(0, { kvTokens });
    harness.arrive(0, 0, minute, { promptTokens: 10, maxTokens: 10 });
    const report = { running: 9, kvTokens: 10_000, kvCapacity: 10_000, ownRequests: 1 };
    const scrapedUs = harness.nowUs;
    harness.report(0, { ...report, scrapedUs });
    harness.arrive(1, 0, minute, big);
    expect(harness.brain.queued(0)).toBe(1);
    harness.advance(2000);
    harness.report(0, { ...report, scrapedUs });
    expect(harness.brain.queued(0)).toBe(1);
    harness.advance(3000);
    harness.report(0, { ...report, scrapedUs });
    expect(harness.brain.queued(0)).toBe(0);
  });
});

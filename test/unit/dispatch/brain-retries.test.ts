import { describe, expect, test } from 'vitest';
import { RetryRule } from '../../../src/dispatch/decisions.ts';
import { BrainHarness, plainRelease, replicaFacts } from '../../support/brain-harness.ts';

const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

describe('retries', () => {
  const pair = (config = {}, facts = {}) => {
    const harness = new BrainHarness(config);
    harness.replicas(2, facts);
    return harness;
  };

  test('a failed attempt is tried again on the other replica', () => {
    const harness = pair();
    harness.arrive(0);
    harness.fail(0);
    expect(harness.dispatches.map(({ replica }) => replica)).toEqual([0, 1]);
    expect(harness.running.get(0)?.attempt).toBe(2);
    expect(harness.retries).toEqual([0]);
  });

  test('nobody is asked twice: with two failed replicas of two the request ends', () => {
    const harness = pair();
    harness.arrive(0);
    harness.fail(0, RetryRule.elsewhere, 65);
    harness.fail(0, RetryRule.elsewhere, 68);
    expect(harness.lastRefusal).toBe('failed');
    expect(harness.refusals[0]?.error).toBe(68);
    expect(harness.brain.attempts.dispatched).toBe(2);
  });

  test('when nothing was sent the only replica is asked again, up to max_attempts', () => {
    const harness = new BrainHarness();
    harness.replica(0);
    harness.arrive(0);
    harness.fail(0, RetryRule.anywhere);
    harness.fail(0, RetryRule.anywhere);
    expect(harness.running.get(0)).toEqual({ attempt: 3, replica: 0 });
    harness.fail(0, RetryRule.anywhere);
    expect(harness.lastRefusal).toBe('failed');
  });

  test('an error that forbids a retry ends the request', () => {
    const harness = pair();
    harness.arrive(0);
    harness.fail(0, RetryRule.never, 79);
    expect(harness.refusals[0]).toMatchObject({ error: 79 });
    expect(harness.lastRefusal).toBe('failed');
  });

  test('a retry waits for another replica before the others do, without holding them up', () => {
    const harness = pair({}, { maxInFlight: 1 });
    for (const slot of [0, 1, 2, 3]) harness.arrive(slot); // 0 and 1 run, 2 and 3 wait
    harness.fail(0); // its only other replica is full: waits, and 2 takes the room it left
    expect(harness.running.get(2)?.replica).toBe(0);
    harness.finish(1);
    expect(harness.running.get(0)).toEqual({ attempt: 2, replica: 1 });
    expect(harness.brain.queued(0)).toBe(1);
  });

  test('waiting again does not start the queue wait afresh', () => {
    const harness = pair({ queueTimeoutMs: 1000 }, { maxInFlight: 1 });
    for (const slot of [0, 1, 2]) harness.arrive(slot);
    harness.advance(700);
    harness.finish(0); // 2 runs on replica 0 after 700 ms
    harness.fail(2, RetryRule.elsewhere, 65); // 1 still fills replica 1
    harness.advance(299);
    expect(harness.refusals).toEqual([]);
    harness.advance(1);
    expect(harness.lastRefusal).toBe('failed');
    expect(harness.refusals[0]).toMatchObject({ slot: 2, error: 65 });
  });

  test('the budget bounds the retries of all requests together', () => {
    const harness = pair({ retry: { maxAttempts: 3, budget: 0.1, budgetMin: 3 } });
    for (const slot of range(50)) harness.arrive(slot);
    for (const slot of range(10)) harness.fail(slot);
    // 10 % of 50 in flight, itself included.
    expect(harness.retries.length).toBe(5);
    expect(harness.refusals.length).toBe(5);
    for (const slot of range(5)) harness.finish(slot);
    harness.fail(20);
    expect(harness.retries.length).toBe(6);
  });

  test('the floor of the budget lets a few requests retry', () => {
    const harness = pair({ retry: { maxAttempts: 3, budget: 0, budgetMin: 3 } });
    for (const slot of range(8)) harness.arrive(slot);
    for (const slot of range(8)) harness.fail(slot);
    expect(harness.retries.length).toBe(3);
  });

  test('a request that is being tried again needs no second share of the budget', () => {
    const harness = new BrainHarness({ retry: { maxAttempts: 3, budget: 0, budgetMin: 1 } });
    harness.replicas(3);
    harness.arrive(0);
    harness.fail(0);
    harness.fail(0);
    expect(harness.running.get(0)?.attempt).toBe(3);
  });

  test('past its deadline a failed request is not tried again', () => {
    const harness = pair();
    harness.arrive(0, 0, 100);
    harness.advance(101);
    harness.fail(0);
    expect(harness.lastRefusal).toBe('deadline');
  });
});

describe('busy replicas', () => {
  test('F02: the other one serves, the busy one is not asked before its retry-after', () => {
    const harness = new BrainHarness();
    harness.replicas(2);
    harness.arrive(0);
    harness.busy(0, 5000);
    expect(harness.running.get(0)?.replica).toBe(1);
    for (const slot of range(20)) harness.arrive(slot + 1);
    expect(harness.brain.fleet.inFlight(0)).toBe(0);
    harness.advance(4999);
    harness.arrive(30);
    expect(harness.brain.fleet.inFlight(0)).toBe(0);
    harness.advance(1);
    harness.arrive(31);
    expect(harness.brain.fleet.inFlight(0)).toBe(1);
  });

  test('F03: when all are busy the client is told the smallest wait', () => {
    const harness = new BrainHarness();
    harness.replicas(2);
    harness.arrive(0);
    harness.busy(0, 5000, 77);
    harness.busy(0, 3000, 78);
    expect(harness.refusals).toEqual([
      { slot: 0, refusal: expect.any(Number), error: 78, retryAfterMs: 3000 },
    ]);
    expect(harness.lastRefusal).toBe('busy');
    harness.advance(1000);
    harness.arrive(1); // no hammering: refused without asking anybody
    expect(harness.refusals[1]?.retryAfterMs).toBe(2000);
    expect(harness.brain.attempts.dispatched).toBe(2);
  });

  test('a later, shorter pause does not cut a longer one', () => {
    const harness = new BrainHarness();
    harness.replicas(1);
    harness.arrive(0);
    harness.arrive(1);
    harness.busy(0, 5000);
    harness.busy(1, 1000);
    expect(harness.refusals[1]?.retryAfterMs).toBe(5000);
  });

  test('a short pause is waited for', () => {
    const harness = new BrainHarness();
    harness.replicas(1);
    harness.arrive(0);
    harness.arrive(1);
    harness.busy(0, 0); // did not say how long: 200 ms
    harness.arrive(2);
    expect(harness.brain.queued(0)).toBe(1);
    expect(harness.brain.nextTimerUs).toBe(harness.nowUs + 200_000);
    harness.advance(200);
    expect(harness.running.has(2)).toBe(true);
  });
});

describe('replicas that refuse connections', () => {
  test('one of two: whoever was sent there is served by the other, without the budget', () => {
    const harness = new BrainHarness({ retry: { maxAttempts: 3, budget: 0, budgetMin: 1 } });
    harness.replicas(2);
    for (const slot of range(16)) harness.arrive(slot);
    const there = [...harness.running].filter(([, { replica }]) => replica === 0);
    expect(there.length).toBe(8);
    for (const [slot] of there) harness.refuseConnection(slot);
    expect(harness.refusals).toEqual([]);
    expect([harness.brain.fleet.inFlight(0), harness.brain.fleet.inFlight(1)]).toEqual([0, 16]);
    for (const slot of range(10)) harness.arrive(slot + 16); // nothing for it while it is paused
    expect(harness.brain.fleet.inFlight(0)).toBe(0);
    // Once a replica has got the request, another attempt is a retry like any other.
    harness.replica(2);
    harness.fail(there[0]![0]);
    expect(harness.refusals).toEqual([]);
    harness.fail(there[1]![0]);
    expect(harness.refusals.map(({ slot }) => slot)).toEqual([there[1]![0]]);
  });

  test('the only one: asked again after each pause, then the request ends', () => {
    const harness = new BrainHarness();
    harness.replica(0);
    harness.arrive(0);
    for (const attempt of [2, 3]) {
      harness.refuseConnection(0);
      harness.advance(199);
      expect(harness.running.size).toBe(0);
      harness.advance(1);
      expect(harness.running.get(0)).toEqual({ attempt, replica: 0 });
    }
    harness.refuseConnection(0);
    expect(harness.lastRefusal).toBe('failed');
    expect(harness.refusals.length).toBe(1);
  });
});

describe('ends', () => {
  test('the end of an attempt counts once; a second, older or foreign one changes nothing', () => {
    const harness = new BrainHarness();
    harness.replica(0);
    harness.arrive(0);
    expect(harness.finish(0)).toBe(true);
    expect(harness.finish(0)).toBe(false);
    harness.arrive(0);
    const release = { ...plainRelease, slot: 0, settled: true };
    expect(harness.brain.release({ ...release, generation: 1, attempt: 1 }, harness.nowUs)).toBe(
      false,
    );
    expect(harness.brain.release({ ...release, generation: 2, attempt: 2 }, harness.nowUs)).toBe(
      false,
    );
    expect(harness.brain.fleet.inFlight(0)).toBe(1);
    expect(harness.brain.release({ ...release, generation: 2, attempt: 1 }, harness.nowUs)).toBe(
      true,
    );
  });

  test('a request that is announced twice is taken once', () => {
    const harness = new BrainHarness();
    harness.replica(0);
    harness.arrive(0);
    harness.generations[0] = 0;
    expect(harness.arrive(0)).toBe(false);
    expect(harness.brain.attempts.dispatched).toBe(1);
  });

  test('a slot that is used again before its last end was told gives back what it held', () => {
    const harness = new BrainHarness({ retry: { maxAttempts: 3, budget: 0, budgetMin: 1 } });
    harness.replicas(2);
    harness.arrive(0);
    harness.fail(0);
    harness.arrive(0);
    expect(harness.brain.attempts.running).toBe(1);
    harness.fail(0); // the retry of the earlier request no longer uses the budget
    expect(harness.retries.length).toBe(2);
  });

  test('the client leaves: while waiting it is settled, while running the attempt is aborted once', () => {
    const harness = new BrainHarness();
    harness.replicas(2, { maxInFlight: 1 });
    harness.arrive(0);
    harness.arrive(2);
    harness.arrive(1);
    expect(harness.cancel(1)).toBe(true);
    expect(harness.lastRefusal).toBe('clientGone');
    harness.cancel(0);
    harness.cancel(0);
    expect(harness.aborts).toEqual([0]);
    harness.fail(0); // it failed before the abort arrived: nobody is left to retry for
    expect(harness.refusals.map(({ slot }) => slot)).toEqual([1, 0]);
    expect(harness.lastRefusal).toBe('clientGone');
    expect(harness.cancel(0)).toBe(false);
  });

  test('attempts on a replaced replica do not count against the one that took its row', () => {
    const harness = new BrainHarness();
    harness.replica(0, { maxInFlight: 1 });
    harness.arrive(0);
    harness.brain.updateReplica(0, { ...replicaFacts, epoch: 2, maxInFlight: 1 }, harness.nowUs);
    expect(harness.brain.fleet.inFlight(0)).toBe(0);
    harness.finish(0);
    expect(harness.brain.fleet.inFlight(0)).toBe(0);
    harness.arrive(1);
    expect(harness.brain.fleet.inFlight(0)).toBe(1);
  });

  test('a drained replica gets nothing more and keeps what it has', () => {
    const harness = new BrainHarness();
    harness.replicas(2);
    for (const slot of range(4)) harness.arrive(slot);
    harness.replica(0, { active: false });
    for (const slot of range(4)) harness.arrive(slot + 4);
    expect([harness.brain.fleet.inFlight(0), harness.brain.fleet.inFlight(1)]).toEqual([2, 6]);
  });
});

test('an attempt the gateway itself lost is tried again, blames nobody, and costs budget and attempts', () => {
  const harness = new BrainHarness();
  harness.replica(0);
  harness.arrive(0);
  harness.fail(0, RetryRule.again);
  expect(harness.running.get(0)).toEqual({ attempt: 2, replica: 0 });
  expect(harness.retries).toEqual([]);
  harness.fail(0, RetryRule.again);
  expect(harness.running.get(0)).toEqual({ attempt: 3, replica: 0 });
  harness.fail(0, RetryRule.again, 50);
  expect(harness.lastRefusal).toBe('failed');
  expect(harness.refusals[0]?.error).toBe(50);
});

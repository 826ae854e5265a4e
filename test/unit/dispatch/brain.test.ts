import { describe, expect, test } from 'vitest';
import { createPrng } from '../../../src/lib/prng.ts';
import { BrainHarness, modelsWith } from '../../support/brain-harness.ts';

const seed = Number(process.env.SEED ?? 20_260_102);
console.info(`SEED=${seed}`);
const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

describe('a slot used again before the end of its last request is known', () => {
  test('its room goes to whoever waits, and the new request waits behind', () => {
    const harness = new BrainHarness();
    harness.replica(0, { maxInFlight: 1 });
    harness.arrive(0);
    harness.arrive(1);
    expect(harness.brain.queued(0)).toBe(1);
    harness.arrive(0);
    expect([...harness.running.keys()]).toEqual([1]);
    expect(harness.brain.queued(0)).toBe(1);
  });

  test('so does the room of another model', () => {
    const harness = new BrainHarness({ models: modelsWith('least_in_flight', 'least_in_flight') });
    harness.replica(0, { maxInFlight: 1 });
    harness.replica(1, { model: 1 });
    harness.arrive(0);
    harness.arrive(1);
    harness.arrive(0, 1);
    expect([...harness.running].map(([slot, { replica }]) => [slot, replica])).toEqual([
      [1, 0],
      [0, 1],
    ]);
  });
});

describe('placement', () => {
  test('A-16: 30 requests over 3 replicas by round robin are dispatched at once, 10 each', () => {
    const harness = new BrainHarness({ models: modelsWith('round_robin') });
    harness.replicas(3);
    for (const slot of range(30)) harness.arrive(slot);
    expect(harness.brain.attempts.dispatched).toBe(30);
    expect(harness.brain.queued(0)).toBe(0);
    expect(harness.dispatches.every(({ heldUs }) => heldUs === 0)).toBe(true);
    expect(range(3).map((row) => harness.brain.fleet.inFlight(row))).toEqual([10, 10, 10]);
  });

  test('C-05: 950 streams on 4 replicas stay within 4 % of an even spread', () => {
    const harness = new BrainHarness({ slots: 950 });
    harness.replicas(4, { maxInFlight: 300 });
    const random = createPrng(seed);
    for (const slot of range(950)) harness.arrive(slot);
    for (let step = 0; step < 2000; step++) {
      const slot = random.below(950); // streams end anywhere and are replaced
      harness.finish(slot);
      harness.arrive(slot);
    }
    for (const row of range(4)) {
      expect(Math.abs(harness.brain.fleet.inFlight(row) - 237.5)).toBeLessThanOrEqual(237.5 * 0.04);
    }
  });

  test('a request goes only to replicas of its model', () => {
    const harness = new BrainHarness({ models: modelsWith('round_robin', 'round_robin') });
    harness.replica(0, { model: 0 });
    harness.replica(1, { model: 1 });
    for (const slot of range(6)) harness.arrive(slot, slot % 2);
    expect(harness.dispatches.map(({ replica }) => replica)).toEqual([0, 1, 0, 1, 0, 1]);
  });

  test('weight 0 takes no requests', () => {
    const harness = new BrainHarness();
    harness.replica(0, { weight: 0 });
    harness.replica(1);
    for (const slot of range(4)) harness.arrive(slot);
    expect(harness.brain.fleet.inFlight(0)).toBe(0);
  });
});

describe('nobody routable', () => {
  test('A-10: with two unhealthy replicas five requests are refused at once', () => {
    const harness = new BrainHarness();
    harness.replicas(2, { healthy: false });
    for (const slot of range(5)) harness.arrive(slot);
    expect(harness.dispatches).toEqual([]);
    expect(harness.refusals.map(({ slot }) => slot)).toEqual([0, 1, 2, 3, 4]);
    expect(harness.lastRefusal).toBe('noReplica');
    expect(harness.brain.queued(0)).toBe(0);
  });

  test('who waits when the last replica goes down is served when it is back', () => {
    const harness = new BrainHarness();
    harness.replica(0, { maxInFlight: 1 });
    harness.arrive(0);
    harness.arrive(1);
    harness.replica(0, { healthy: false });
    harness.finish(0);
    harness.arrive(2);
    expect(harness.refusals.map(({ slot }) => slot)).toEqual([2]);
    harness.advance(1000);
    harness.replica(0, { healthy: true });
    expect(harness.running.has(1)).toBe(true);
  });
});

describe('the queue', () => {
  const one = (config = {}) => {
    const harness = new BrainHarness(config);
    harness.replica(0, { maxInFlight: 1 });
    harness.arrive(0);
    return harness;
  };

  test('B2-20: over the bound the queue refuses', () => {
    const harness = new BrainHarness({ queueMax: 10 });
    harness.replica(0, { maxInFlight: 4 });
    for (const slot of range(15)) harness.arrive(slot);
    expect(harness.brain.attempts.running).toBe(4);
    expect(harness.brain.queued(0)).toBe(10);
    expect(harness.refusals.map(({ slot }) => slot)).toEqual([14]);
    expect(harness.lastRefusal).toBe('queueFull');
  });

  test('a tenant that fills the queue gives its newest waiter for one of a tenant with fewer', () => {
    const harness = one({ queueMax: 10 });
    const ask = (slot: number, tenant: number): void => {
      harness.arrive(slot, 0, 600_000, { tenant });
    };
    for (const slot of range(11)) ask(slot + 1, 1);
    expect(harness.refusals.map(({ slot }) => slot)).toEqual([11]);
    ask(12, 2);
    expect(harness.brain.queued(0)).toBe(10);
    expect(harness.refusals.map(({ slot }) => slot)).toEqual([11, 10]);
    expect(harness.lastRefusal).toBe('queueFull');
    ask(13, 1);
    expect(harness.refusals.at(-1)?.slot).toBe(13);
  });

  test('B2-21: 1000 waiters leave in the order of arrival, whatever completes, leaves or expires', () => {
    const harness = new BrainHarness({ slots: 1010, queueTimeoutMs: 5000 });
    harness.replicas(2, { maxInFlight: 5 });
    for (const slot of range(1010)) {
      harness.arrive(slot);
      harness.advance(1);
    }
    const random = createPrng(seed);
    let guard = 0;
    while (harness.brain.queued(0) > 0) {
      const running = [...harness.running.keys()];
      harness.finish(running[random.below(running.length)] ?? 0);
      if (random.below(3) === 0) harness.cancel(random.below(1010));
      harness.advance(random.below(20));
      expect(guard++).toBeLessThan(10_000);
    }
    const order = harness.dispatches.map(({ slot }) => slot);
    expect(order).toEqual([...order].sort((a, b) => a - b));
    expect(order.length).toBeGreaterThan(100);
    const ended = new Set([...order, ...harness.refusals.map(({ slot }) => slot)]);
    expect(ended.size).toBe(1010);
    expect(new Set(harness.refusals.map(({ refusal }) => refusal)).size).toBe(2);
  });

  test('WB2-4: completions with nobody waiting bank nothing', () => {
    const harness = one();
    for (let i = 0; i < 5; i++) {
      harness.finish(0);
      harness.arrive(0);
    }
    for (const slot of [1, 2, 3, 4, 5, 6, 7]) harness.arrive(slot);
    expect(harness.brain.queued(0)).toBe(7);
    harness.finish(0);
    expect([...harness.running.keys()]).toEqual([1]);
  });

  test('WB2-5: a waiter that expired or left does not swallow the next wake-up', () => {
    const harness = one({ queueTimeoutMs: 1000 });
    harness.arrive(1);
    harness.advance(500);
    harness.arrive(2);
    harness.arrive(3);
    harness.cancel(2);
    harness.advance(600);
    expect(harness.lastRefusal).toBe('queueWaitOver');
    harness.finish(0);
    expect([...harness.running.keys()]).toEqual([3]);
  });

  test.each([
    ['a replica joins', (h: BrainHarness) => h.replica(1)],
    ['the limit is raised', (h: BrainHarness) => h.replica(0, { maxInFlight: 2 })],
    ['a completion', (h: BrainHarness) => void h.finish(0)],
  ])('B2-22: %s wakes the waiter', (_name, event) => {
    const harness = one();
    harness.arrive(1);
    event(harness);
    expect(harness.running.has(1)).toBe(true);
  });

  test.each([['active'], ['healthy']])(
    'B2-22: a replica that is %s again wakes the waiter',
    (field) => {
      const harness = one();
      harness.replica(1, { [field]: false });
      harness.arrive(1);
      expect(harness.brain.queued(0)).toBe(1);
      harness.replica(1, { [field]: true });
      expect(harness.running.get(1)?.replica).toBe(1);
    },
  );

  test('the wait is over exactly at its limit, and the brain says when', () => {
    const harness = one({ queueTimeoutMs: 30_000 });
    harness.arrive(1);
    expect(harness.brain.nextTimerUs).toBe(harness.nowUs + 30_000_000);
    harness.advance(29_999);
    expect(harness.refusals).toEqual([]);
    harness.advance(1);
    expect(harness.lastRefusal).toBe('queueWaitOver');
    expect(harness.brain.nextTimerUs).toBe(Number.POSITIVE_INFINITY);
  });

  test('T41: room that comes after the limit is not given to a waiter whose time is over', () => {
    const harness = one({ queueTimeoutMs: 1000 });
    harness.arrive(1);
    harness.nowUs += 1_500_000; // the scheduler was stalled: the completion is seen before the timer
    harness.arrive(2);
    harness.finish(0);
    expect(harness.lastRefusal).toBe('queueWaitOver');
    expect([...harness.running.keys()]).toEqual([2]);
  });

  test('the deadline of the request ends its wait when it comes first', () => {
    const harness = one();
    harness.arrive(1, 0, 100);
    harness.arrive(2);
    harness.advance(100);
    expect(harness.refusals.map(({ slot }) => slot)).toEqual([1]);
    expect(harness.lastRefusal).toBe('deadline');
  });

  test('a request whose deadline has passed on arrival is not dispatched', () => {
    const harness = new BrainHarness();
    harness.replica(0);
    harness.arrive(0, 0, 0);
    expect(harness.lastRefusal).toBe('deadline');
  });

  test('stop refuses what waits and what arrives, and lets what runs end', () => {
    const harness = one();
    harness.arrive(1);
    harness.brain.stop(harness.nowUs);
    harness.arrive(2);
    expect(harness.refusals.map(({ slot }) => slot)).toEqual([1, 2]);
    expect(harness.lastRefusal).toBe('stopping');
    expect(harness.finish(0)).toBe(true);
  });
});

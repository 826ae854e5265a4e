/** What the brain does with tokens, prefixes, sessions, priorities and deadlines. */
import { describe, expect, test } from 'vitest';
import type { PrefixSource } from '../../../src/dispatch/arrival.ts';
import type { BrainConfig } from '../../../src/dispatch/decisions.ts';
import { BrainHarness, modelsWith, noPrefixes } from '../../support/brain-harness.ts';

const minute = 60_000;
const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

function modelsHolding(holdTokens: number, policy = 'least_in_flight'): BrainConfig['models'] {
  return modelsWith(policy).map((rules) => ({ ...rules, holdTokens }));
}

/** Slot s asks with the hashes of prompt s. */
function prefixesOf(...prompts: readonly (readonly number[])[]): PrefixSource {
  const words = new Int32Array(prompts.length * 12);
  for (const [slot, hashes] of prompts.entries()) {
    for (const [i, hash] of hashes.entries()) words.set([hash, ~hash], slot * 12 + 2 * i);
  }
  const countOf = (slot: number): number => prompts[slot]?.length ?? 0;
  return { ...noPrefixes, words, startOf: (slot) => slot * 12, countOf };
}

describe('late binding', () => {
  test('requests wait while every replica has enough to prefill, and go as first tokens come', () => {
    const harness = new BrainHarness({ models: modelsHolding(10_000) });
    harness.replicas(2);
    for (const slot of range(5)) harness.arrive(slot, 0, minute, { promptTokens: 12_000 });
    expect([...harness.running.keys()]).toEqual([0, 1]);
    expect(harness.brain.queued(0)).toBe(3);
    expect(harness.firstToken(1)).toBe(true);
    expect([...harness.running.keys()]).toEqual([0, 1, 2]);
    expect(harness.firstToken(1)).toBe(true); // told twice: nothing more is given out
    expect(harness.brain.queued(0)).toBe(2);
    harness.finish(0);
    expect(harness.brain.queued(0)).toBe(1);
  });

  test('an answer that comes whole stops being prefill after the modelled time', () => {
    const harness = new BrainHarness({ models: modelsHolding(10_000) });
    harness.replica(0, { prefillUs: 10 });
    const whole = { promptTokens: 20_000, streams: false };
    harness.arrive(0, 0, minute, whole);
    harness.arrive(1, 0, minute, whole);
    expect(harness.brain.queued(0)).toBe(1);
    expect(harness.brain.nextTimerUs).toBe(harness.nowUs + 200_000);
    harness.advance(199);
    expect(harness.brain.queued(0)).toBe(1);
    harness.advance(1);
    expect([...harness.running.keys()]).toEqual([0, 1]);
  });

  test('a prompt larger than the limit is not held by an idle replica', () => {
    const harness = new BrainHarness({ models: modelsHolding(100) });
    harness.replica(0);
    harness.arrive(0, 0, minute, { promptTokens: 50_000 });
    expect([...harness.running.keys()]).toEqual([0]);
  });
});

describe('room in the KV cache', () => {
  test('a request that does not fit waits, and so does whoever comes behind it', () => {
    const harness = new BrainHarness();
    harness.replica(0, { kvTokens: 10_000 });
    harness.arrive(0, 0, minute, { promptTokens: 6000, maxTokens: 100 });
    harness.arrive(1, 0, minute, { promptTokens: 6000, maxTokens: 100 });
    harness.arrive(2, 0, minute, { promptTokens: 10, maxTokens: 10 });
    expect(harness.brain.queued(0)).toBe(2);
    harness.finish(0);
    expect([...harness.running.keys()]).toEqual([1, 2]);
  });

  test('whoever stands before a request that fits and leaves lets it go, and so does one that is late', () => {
    for (const leave of ['cancel', 'expire'] as const) {
      const harness = new BrainHarness({ queueTimeoutMs: 500 });
      harness.replica(0, { kvTokens: 10_000 });
      harness.arrive(0, 0, minute, { promptTokens: 6000, maxTokens: 100 });
      harness.arrive(1, 0, minute, { promptTokens: 6000, maxTokens: 100 });
      harness.advance(100);
      harness.arrive(2, 0, minute, { promptTokens: 10, maxTokens: 10 });
      if (leave === 'cancel') harness.cancel(1);
      else harness.advance(400);
      expect([...harness.running.keys()]).toEqual([0, 2]);
    }
  });

  test('a request of higher priority that fits does not stand behind one that does not', () => {
    const harness = new BrainHarness();
    harness.replica(0, { kvTokens: 10_000 });
    harness.arrive(0, 0, minute, { promptTokens: 6000, maxTokens: 100 });
    harness.arrive(1, 0, minute, { promptTokens: 6000, maxTokens: 100 });
    harness.arrive(2, 0, minute, { promptTokens: 10, maxTokens: 10, priority: 60 });
    expect([...harness.running.keys()]).toEqual([0, 2]);
  });

  test('what fits nowhere goes to an empty replica, whose answer it is', () => {
    const harness = new BrainHarness();
    harness.replica(0, { kvTokens: 1000 });
    harness.arrive(0, 0, minute, { promptTokens: 5000 });
    expect([...harness.running.keys()]).toEqual([0]);
  });

  test('prompts that begin alike and run at once take their beginning once', () => {
    // 2048 bytes a block at 4 bytes a token: 2048 tokens in the 4 blocks that the first three share.
    const prefixes = prefixesOf([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4], [9, 8, 7, 6]);
    const harness = new BrainHarness({ prefixes });
    harness.replica(0, { kvTokens: 5000 });
    const prompt = { promptTokens: 2600, maxTokens: 10 };
    for (const slot of [0, 1, 2, 3]) harness.arrive(slot, 0, minute, prompt);
    expect([...harness.running.keys()]).toEqual([0, 1, 2]);
    for (const slot of [0, 1, 2]) harness.finish(slot); // the beginning goes with the last of them
    expect([...harness.running.keys()]).toEqual([3]);
  });

  test('replicas that have room are chosen from when others have none', () => {
    const harness = new BrainHarness();
    harness.replica(0, { kvTokens: 10_000 });
    harness.replica(1, { kvTokens: 100_000, maxInFlight: 16 });
    for (const slot of range(6)) harness.arrive(slot, 0, minute, { promptTokens: 9000 });
    const rows = harness.dispatches.map(({ replica }) => replica);
    expect(rows.filter((row) => row === 0).length).toBe(1);
    expect(rows.length).toBe(6);
  });
});

describe('prompts that replicas hold', () => {
  const tree = prefixesOf([1, 2, 3], [1, 2, 3], [9, 8, 7], [1, 2, 30], [1, 2, 3]);

  test.each(['marginal_cost', 'lmetric', 'min_ttft', 'cache_aware'])(
    '%s sends a prompt back to where its beginning is, while that costs little',
    (policy) => {
      const harness = new BrainHarness({ models: modelsWith(policy), prefixes: tree });
      harness.replicas(3);
      const prompt = { promptTokens: 1600 };
      harness.arrive(0, 0, minute, prompt);
      harness.firstToken(0);
      harness.finish(0);
      const holder = harness.dispatches[0]!.replica;
      for (const slot of [1, 3]) {
        harness.arrive(slot, 0, minute, prompt);
        expect(harness.dispatches.at(-1)!.replica).toBe(holder);
        harness.firstToken(slot);
        harness.finish(slot);
      }
    },
  );

  test('a replica that was replaced no longer holds what its row held', () => {
    const harness = new BrainHarness({ models: modelsWith('min_ttft'), prefixes: tree });
    harness.replicas(2);
    harness.arrive(0, 0, minute, { promptTokens: 1600 });
    const holder = harness.dispatches[0]!.replica;
    harness.finish(0);
    harness.replica(holder, { epoch: 2 });
    harness.arrive(1, 0, minute, { promptTokens: 1600 });
    const second = harness.dispatches[1]!.replica;
    harness.arrive(4, 0, minute, { promptTokens: 1600 });
    // Whoever got the second holds it and has it pending; were the old hit still counted, the holder
    // would look cheaper than an idle replica.
    expect(harness.dispatches[2]!.replica).not.toBe(second);
  });
});

describe('sessions', () => {
  const models = modelsWith('round_robin').map((rules) => ({ ...rules, sessionAffinity: true }));

  test('requests of a session stay together, others follow the policy', () => {
    const harness = new BrainHarness({ models });
    harness.replicas(4);
    for (const slot of range(8)) {
      harness.arrive(slot, 0, minute, { session0: 77, session1: 5 });
      harness.finish(slot);
    }
    expect(new Set(harness.dispatches.map(({ replica }) => replica)).size).toBe(1);
    for (const slot of range(8)) harness.arrive(slot + 8);
    expect(new Set(harness.dispatches.slice(8).map(({ replica }) => replica)).size).toBe(4);
  });

  test('a session whose replica is gone moves, and is back when the replica is', () => {
    const harness = new BrainHarness({ models });
    harness.replicas(4);
    const ask = (slot: number): number => {
      harness.arrive(slot, 0, minute, { session0: 77, session1: 5 });
      harness.finish(slot);
      return harness.dispatches.at(-1)!.replica;
    };
    const home = ask(0);
    harness.replica(home, { healthy: false });
    const other = ask(1);
    expect(other).not.toBe(home);
    expect(ask(2)).toBe(other);
    harness.replica(home, { healthy: true });
    expect(ask(3)).toBe(home);
  });

  test('A-18: 200 sessions reach all four replicas; with two down only the others', () => {
    const harness = new BrainHarness({ models });
    harness.replicas(4);
    const reach = (count: number): Set<number> => {
      const before = harness.dispatches.length;
      for (const i of range(count)) {
        harness.arrive(0, 0, minute, { session0: i + 1, session1: 3 * i });
        harness.finish(0);
      }
      return new Set(harness.dispatches.slice(before).map(({ replica }) => replica));
    };
    expect(reach(200).size).toBe(4);
    harness.replica(0, { healthy: false });
    harness.replica(2, { healthy: false });
    expect([...reach(100)].sort()).toEqual([1, 3]);
  });

  test('a hot session spills over by load and not onto one neighbour', () => {
    const harness = new BrainHarness({ models });
    harness.replicas(4);
    for (const slot of range(40)) harness.arrive(slot, 0, minute, { session0: 1, session1: 1 });
    const loads = range(4).map((row) => harness.brain.fleet.inFlight(row));
    expect(Math.max(...loads)).toBeLessThanOrEqual(Math.ceil((1.25 * 41) / 4));
    expect(Math.min(...loads)).toBeGreaterThan(0);
  });
});

describe('priorities', () => {
  test('a full queue gives up a waiter of lower priority, never one of the same', () => {
    const harness = new BrainHarness({ queueMax: 1 });
    harness.replica(0, { maxInFlight: 1 });
    harness.arrive(0);
    harness.arrive(1, 0, minute, { priority: 0 });
    harness.arrive(2, 0, minute, { priority: 0 });
    expect(harness.lastRefusal).toBe('queueFull');
    harness.arrive(3, 0, minute, { priority: 10 });
    expect(harness.refusals.at(-1)).toMatchObject({ slot: 1 });
    expect(harness.lastRefusal).toBe('shed');
    harness.finish(0);
    expect([...harness.running.keys()]).toEqual([3]);
  });

  test('below zero requests are shed with a probability that rises with the queue; others never', () => {
    const shed = [1, 6, 30].map((waiting) => {
      const harness = new BrainHarness({ slots: 1024 });
      harness.replica(0, { maxInFlight: 1 });
      for (const slot of range(1 + waiting)) harness.arrive(slot);
      for (const slot of range(100)) {
        harness.arrive(100 + slot, 0, minute, { priority: -1 });
        harness.cancel(100 + slot);
      }
      const refused = harness.refusals.filter(({ refusal }) => refusal === 9).length;
      for (const slot of range(5)) harness.arrive(500 + slot, 0, minute, { priority: 0 });
      expect(harness.brain.queued(0)).toBe(waiting + 5);
      return refused;
    });
    expect(shed[0]).toBe(0);
    expect(shed[1]).toBeGreaterThan(50);
    expect(shed[2]).toBe(100);
  });
});

describe('deadlines that cannot be met', () => {
  test('are refused at once, with the time by which they miss', () => {
    const harness = new BrainHarness();
    harness.replica(0, { prefillUs: 100 });
    harness.arrive(0, 0, minute, { promptTokens: 20_000 }); // two seconds of prefill
    harness.arrive(1, 0, 2500, { promptTokens: 10_000 });
    expect(harness.lastRefusal).toBe('tooLate');
    expect(harness.refusals.at(-1)!.retryAfterMs).toBe(500);
    harness.arrive(2, 0, 3500, { promptTokens: 10_000 });
    expect([...harness.running.keys()]).toEqual([0, 2]);
  });

  test('count those who wait before them', () => {
    const harness = new BrainHarness();
    harness.replica(0, { prefillUs: 100, maxInFlight: 1 });
    for (const slot of range(3)) harness.arrive(slot, 0, minute, { promptTokens: 10_000 });
    harness.arrive(3, 0, 3000, { promptTokens: 100 });
    expect(harness.lastRefusal).toBe('tooLate');
    // Three seconds of work before it are more than half of what it has.
    harness.arrive(4, 0, 5800, { promptTokens: 100 });
    expect(harness.lastRefusal).toBe('tooLate');
    harness.arrive(5, 0, 6200, { promptTokens: 100 });
    expect(harness.brain.queued(0)).toBe(3);
    // Nobody who waits is sure to go before one of a higher band, or of another tenant.
    harness.arrive(6, 0, 3200, { promptTokens: 100, priority: 60 });
    harness.arrive(7, 0, 3200, { promptTokens: 100, tenant: 1 });
    expect(harness.brain.queued(0)).toBe(5);
  });

  test('a request that is too late takes nobody’s place in a full queue', () => {
    const harness = new BrainHarness({ queueMax: 2 });
    harness.replica(0, { prefillUs: 100, maxInFlight: 1 });
    for (const slot of range(3)) harness.arrive(slot, 0, minute, { promptTokens: 10_000 });
    harness.arrive(3, 0, 50, { promptTokens: 100, priority: 60 });
    expect(harness.lastRefusal).toBe('tooLate');
    expect(harness.brain.queued(0)).toBe(2);
  });

  test('are met where another replica can', () => {
    const harness = new BrainHarness({ models: modelsWith('round_robin') });
    harness.replica(0, { prefillUs: 100 });
    harness.replica(1, { prefillUs: 100 });
    harness.arrive(0, 0, minute, { promptTokens: 100_000 });
    const busy = harness.running.get(0)!.replica;
    harness.arrive(1, 0, minute, { promptTokens: 10 });
    harness.arrive(2, 0, 1000, { promptTokens: 10 }); // whose turn is the busy one's
    expect(harness.running.get(2)?.replica).toBe(1 - busy);
    harness.arrive(3, 0, 0.5, { promptTokens: 10 });
    expect(harness.lastRefusal).toBe('tooLate');
  });

  test('a moment at the head of the queue is no wait', () => {
    const harness = new BrainHarness({ queueTimeoutMs: 1000 });
    harness.replica(0, { kvTokens: 10_000 });
    harness.arrive(0, 0, minute, { promptTokens: 6000 });
    harness.arrive(1, 0, minute, { promptTokens: 6000 }); // waits while there is a candidate
    const publishedUs = harness.nowUs;
    harness.advance(400);
    harness.arrive(2, 0, minute, { promptTokens: 6000, publishedUs });
    harness.advance(599);
    expect(harness.brain.queued(0)).toBe(2);
    harness.advance(1);
    expect(harness.brain.queued(0)).toBe(0);
  });
});

test('what replicas report corrects the estimate of prompts that nobody counted', () => {
  const harness = new BrainHarness({ models: modelsHolding(1000) });
  harness.replica(0);
  for (const _ of range(500)) {
    harness.arrive(0, 0, minute, { textBytes: 8000 });
    harness.finish(0, { promptTokens: 1000, completionTokens: 10 });
  }
  harness.arrive(0, 0, minute, { textBytes: 7900 }); // 987 tokens at eight bytes each
  harness.arrive(1, 0, minute, { textBytes: 7900 });
  expect([...harness.running.keys()]).toEqual([0, 1]);
});

test('the measure is all text, not the prompt alone, and media is no measure', () => {
  const harness = new BrainHarness({ models: modelsHolding(1000) });
  harness.replica(0);
  const text = { promptBytes: 80, textBytes: 8000 };
  for (const _ of range(20)) {
    harness.arrive(0, 0, minute, text);
    harness.finish(0, { promptTokens: 1000, completionTokens: 10 });
    harness.arrive(0, 0, minute, { ...text, readsMore: true });
    harness.finish(0, { promptTokens: 100_000, completionTokens: 10 });
  }
  harness.arrive(0, 0, minute, { promptBytes: 80, textBytes: 7900 });
  harness.arrive(1, 0, minute, { promptBytes: 80, textBytes: 7900 });
  expect([...harness.running.keys()]).toEqual([0, 1]);
});

test('tenants that wait are served in turn by tokens, not by arrival', () => {
  const harness = new BrainHarness({ slots: 256 });
  harness.replica(0, { maxInFlight: 1 });
  harness.arrive(0);
  for (const slot of range(40))
    harness.arrive(1 + slot, 0, minute, { tenant: 1, promptTokens: 100 });
  for (const slot of range(4))
    harness.arrive(100 + slot, 0, minute, { tenant: 2, promptTokens: 100 });
  const order: number[] = [];
  for (let slot = 0; order.length < 8; slot = order.at(-1)!) {
    harness.finish(slot);
    order.push([...harness.running.keys()][0]!);
  }
  expect(order.filter((slot) => slot >= 100).length).toBe(4);
});

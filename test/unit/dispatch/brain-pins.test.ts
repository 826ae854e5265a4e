/** Requests for what one replica keeps go there, wait for it alone and keep nobody else waiting. */
import { describe, expect, test } from 'vitest';
import { Refusal, RetryRule } from '../../../src/dispatch/decisions.ts';
import { policyNames } from '../../../src/dispatch/policies/registry.ts';
import { errors } from '../../../src/errors/catalogue.ts';
import {
  BrainHarness,
  breakerRules,
  modelsWith,
  replicaFacts,
} from '../../support/brain-harness.ts';
import { plainArrival } from '../../support/plain-arrival.ts';

const minute = 60_000;
type Config = ConstructorParameters<typeof BrainHarness>[0];

function replicas(count: number, maxInFlight = 1, config: Config = {}): BrainHarness {
  const harness = new BrainHarness(config);
  harness.replicas(count, { maxInFlight });
  return harness;
}

const ask = (harness: BrainHarness, slot: number, pin = -1, more = {}): number | undefined => {
  harness.arrive(slot, 0, minute, { pin, pinEpoch: 1, ...more });
  return harness.running.get(slot)?.replica;
};

test.each(policyNames)('%s has no say', (policy) => {
  const models = modelsWith(policy).map((rules) => ({ ...rules, sessionAffinity: true }));
  const harness = replicas(4, 64, { models });
  for (let slot = 0; slot < 20; slot++) {
    expect(ask(harness, slot, 2, { session0: slot, session1: slot % 2, head0: slot })).toBe(2);
  }
  expect(harness.placements.at(-1)).toMatchObject({
    filtered: { notPinned: 3 },
    isBySession: false,
  });
});

describe('while its replica is full', () => {
  test('it waits, others pass it, and it is next there', () => {
    const harness = replicas(2);
    expect([ask(harness, 0, 1), ask(harness, 1, 1)]).toEqual([1, undefined]);
    expect(ask(harness, 2)).toBe(0);
    expect(ask(harness, 3)).toBe(undefined);
    harness.finish(2);
    expect(harness.running.get(3)?.replica).toBe(0);
    ask(harness, 4); // came after slot 1, and could use replica 1 as well
    harness.finish(0);
    expect(harness.running.get(1)?.replica).toBe(1);
    expect(harness.running.has(4)).toBe(false);
    harness.finish(1);
    expect(harness.running.get(4)?.replica).toBe(1);
  });

  test('who came before it for any replica goes first, also there', () => {
    const harness = replicas(2);
    ask(harness, 0, 0);
    ask(harness, 1, 1);
    ask(harness, 2); // waits for either
    ask(harness, 3, 1);
    harness.finish(1);
    expect([...harness.running.keys()]).toEqual([0, 2]);
    harness.finish(0);
    expect(harness.running.has(3)).toBe(false);
    harness.finish(2);
    expect(harness.running.get(3)?.replica).toBe(1);
  });

  test('those of one replica keep their order, and their wait is over as any other is', () => {
    const harness = replicas(2, 1, { queueTimeoutMs: 1000 });
    ask(harness, 0, 1);
    ask(harness, 1, 1);
    ask(harness, 2, 1);
    harness.finish(0);
    expect(harness.running.get(1)?.replica).toBe(1);
    harness.advance(1001);
    expect(harness.lastRefusal).toBe('queueWaitOver');
    expect(harness.cancel(1)).toBe(true);
  });

  test('no room in its KV cache is waited for without keeping the others from it for ever', () => {
    const harness = new BrainHarness();
    harness.replicas(2, { maxInFlight: 8, kvTokens: 1000 });
    ask(harness, 0, 1, { textBytes: 2400, maxTokens: 1 });
    ask(harness, 1, 1, { textBytes: 2400, maxTokens: 1 });
    expect(harness.running.has(1)).toBe(false);
    expect(ask(harness, 2, -1, { textBytes: 400, maxTokens: 1 })).toBe(0);
    harness.finish(0);
    expect(harness.running.get(1)?.replica).toBe(1);
  });
});

describe('a replica that takes no new requests', () => {
  test.each([
    ['drains', { active: false, draining: true }],
    ['has weight 0', { weight: 0 }],
  ])('and %s serves what it keeps, and nothing else', (_, facts) => {
    const harness = replicas(2);
    harness.replica(1, facts);
    expect(ask(harness, 0, 1)).toBe(1);
    expect(ask(harness, 1, 1)).toBe(undefined);
    expect([ask(harness, 2), ask(harness, 3)]).toEqual([0, undefined]);
    harness.finish(0);
    expect(harness.running.get(1)?.replica).toBe(1);
    harness.finish(1);
    expect(harness.running.has(3)).toBe(false);
    expect(ask(harness, 4, 1)).toBe(1);
  });

  test('is asked though all others of its model have gone', () => {
    const harness = replicas(1);
    harness.replica(0, { active: false, draining: true });
    expect(ask(harness, 0, 0)).toBe(0);
    ask(harness, 1);
    expect(harness.lastRefusal).toBe('noReplica');
  });

  test('once it begins to leave, whoever waits for it is refused at once', () => {
    const harness = replicas(2);
    ask(harness, 0, 1);
    ask(harness, 1, 1);
    ask(harness, 2, 1);
    harness.replica(1, { active: false, draining: true });
    expect(harness.refusals).toEqual([]);
    harness.replica(1, { active: false, draining: false });
    expect(harness.refusals.map(({ slot, refusal }) => [slot, refusal])).toEqual([
      [1, Refusal.gone],
      [2, Refusal.gone],
    ]);
    ask(harness, 3, 1);
    expect(harness.lastRefusal).toBe('gone');
    harness.finish(0);
  });
});

test('another replica in the row is another replica', () => {
  const harness = replicas(2);
  harness.replica(1, { epoch: 2 });
  ask(harness, 0, 1);
  expect(harness.lastRefusal).toBe('gone');
  expect(ask(harness, 1, 1, { pinEpoch: 2 })).toBe(1);
  ask(harness, 2, 1, { pinEpoch: 2 });
  harness.replica(1, { epoch: 3 });
  expect(harness.refusals.map(({ slot }) => slot)).toEqual([0, 2]);
  harness.fail(1, RetryRule.anywhere);
  expect([harness.lastRefusal, harness.running.has(1)]).toEqual(['failed', false]);
});

test('a replica that a reload gives another row is followed there', () => {
  const harness = replicas(2);
  ask(harness, 0, 1);
  ask(harness, 1, 1);
  ask(harness, 2, 1);
  harness.replica(2, { identity: 2, maxInFlight: 1, epoch: 7 });
  harness.replica(1, { active: false });
  expect(harness.running.get(1)?.replica).toBe(2);
  harness.finish(1);
  expect(harness.running.get(2)?.replica).toBe(2);
  harness.finish(2);
  ask(harness, 3, 1); // its acceptor had read the table before
  expect([harness.running.get(3)?.replica, harness.refusals]).toEqual([2, []]);
  harness.replica(1, { epoch: 2, identity: 9, active: true });
  ask(harness, 4, 1);
  expect(harness.lastRefusal).toBe('gone');
});

describe('a replica with another row', () => {
  const moved = { identity: 2, maxInFlight: 1, epoch: 7 };

  test('that is not up yet is waited for, as long as before, each in its turn', () => {
    const harness = replicas(2, 1, { queueTimeoutMs: 1000 });
    for (const slot of [0, 1, 2]) ask(harness, slot, 1);
    harness.advance(600);
    harness.replica(2, { ...moved, healthy: false });
    harness.replica(1, { active: false });
    expect([harness.refusals, harness.follows]).toEqual([
      [],
      [
        { slot: 1, row: 2, epoch: 7 },
        { slot: 2, row: 2, epoch: 7 },
      ],
    ]);
    harness.replica(2, { healthy: true });
    expect(harness.running.get(1)?.replica).toBe(2);
    harness.advance(300);
    expect(harness.refusals).toEqual([]);
    harness.advance(101);
    expect(harness.refusals.map(({ slot }) => slot)).toEqual([2]);
    expect(harness.lastRefusal).toBe('queueWaitOver');
  });

  describe('and a request that comes with the old one', () => {
    /** The replica of row 1 has row 2. */
    function movedOver(facts: Parameters<BrainHarness['replica']>[1]): BrainHarness {
      const harness = replicas(2);
      harness.replica(2, { ...moved, ...facts });
      harness.replica(1, { active: false });
      return harness;
    }

    test('is refused while it is not healthy there, not lost, and served once it is', () => {
      const harness = movedOver({ healthy: false });
      expect(ask(harness, 0, 1)).toBe(undefined);
      expect(harness.lastRefusal).toBe('noReplica');
      expect(harness.follows).toEqual([{ slot: 0, row: 2, epoch: 7 }]);
      expect(ask(harness, 1)).toBe(0); // nobody else is kept from anything
      harness.replica(2, { healthy: true });
      expect(ask(harness, 2, 1)).toBe(2);
      expect(harness.refusals).toHaveLength(1);
    });

    test('waits where it is full, though another row of its model is idle', () => {
      const harness = movedOver({});
      expect([ask(harness, 0, 1), ask(harness, 1, 1)]).toEqual([2, undefined]);
      expect(ask(harness, 2)).toBe(0);
      harness.finish(0);
      expect(harness.running.get(1)?.replica).toBe(2);
      expect(harness.refusals).toEqual([]);
    });

    test('is told when to come back where it is paused or ejected', () => {
      const breaker = { ...breakerRules, mode: 'consecutive', consecutive: 1 } as const;
      for (const end of ['pause', 'ejection']) {
        const harness = replicas(2, 1, { breaker });
        harness.replica(2, moved);
        harness.replica(1, { active: false });
        ask(harness, 0, 1);
        if (end === 'pause') harness.busy(0, 5000, errors.REPLICA_OVERLOADED.number);
        else harness.fail(0, RetryRule.never);
        ask(harness, 1, 1);
        expect(harness.refusals.at(-1), end).toMatchObject({ slot: 1, refusal: Refusal.busy });
        expect(harness.refusals.at(-1)?.retryAfterMs, end).toBeGreaterThan(0);
        expect(ask(harness, 2), end).toBe(0);
      }
    });

    test('goes to the row after that as well, and is refused for good behind the last', () => {
      const harness = movedOver({ healthy: false });
      harness.replica(3, { ...moved, epoch: 9 });
      harness.replica(2, { active: false, draining: false });
      expect(ask(harness, 0, 1)).toBe(3);
      expect(harness.follows.at(-1)).toEqual({ slot: 0, row: 3, epoch: 9 });
      harness.replica(3, { active: false, draining: true, healthy: false });
      ask(harness, 1, 1);
      expect(harness.lastRefusal).toBe('noReplica'); // it drains, and may be back
      harness.replica(3, { draining: false });
      ask(harness, 2, 1);
      expect(harness.lastRefusal).toBe('gone');
    });
  });

  test('is asked by who failed at the old one before anything was sent, and by nobody else', () => {
    const harness = replicas(2, 2);
    ask(harness, 0, 1);
    ask(harness, 1, 1);
    harness.replica(2, { ...moved, maxInFlight: 2 });
    harness.replica(1, { active: false });
    harness.fail(0, RetryRule.anywhere);
    expect(harness.running.get(0)).toEqual({ attempt: 2, replica: 2 });
    harness.fail(1, RetryRule.elsewhere);
    expect([harness.lastRefusal, harness.running.has(1)]).toEqual(['failed', false]);
  });
});

describe('many requests', () => {
  const slots = 65_536;

  test('are not looked through for a row that nobody uses', () => {
    const harness = new BrainHarness({ slots });
    const { brain, nowUs } = harness;
    harness.replica(0);
    brain.arrive({ ...plainArrival, slot: 9, generation: 1, deadlineUs: nowUs + 1e9 }, nowUs);
    const absent = { ...replicaFacts, model: -1, active: false };
    const sinceMs = performance.now();
    for (let i = 0; i < 20_000; i++) brain.updateReplica(1, absent, nowUs);
    expect(performance.now() - sinceMs).toBeLessThan(2000);
  });

  test('that wait for a replica which leaves are refused in one look', () => {
    const harness = new BrainHarness({ slots, queueMax: slots });
    const { brain, nowUs } = harness;
    harness.replicas(2, { maxInFlight: 1 });
    const pinned = { pin: 1, pinEpoch: 1, generation: 1, deadlineUs: nowUs + 1e12 };
    for (let i = 0; i <= 1000; i++) {
      brain.arrive({ ...plainArrival, ...pinned, slot: slots - 1 - i, publishedUs: nowUs }, nowUs);
    }
    expect(brain.queued(0)).toBe(1000);
    const sinceMs = performance.now();
    brain.updateReplica(1, { ...replicaFacts, identity: 2, active: false }, nowUs);
    expect(performance.now() - sinceMs).toBeLessThan(500);
    expect([brain.queued(0), harness.refusals.length]).toEqual([0, 1000]);
  });
});

describe('a replica that cannot be asked', () => {
  test('unhealthy: a request is refused, one that waits waits on', () => {
    const harness = replicas(2);
    ask(harness, 0, 1);
    ask(harness, 1, 1);
    harness.replica(1, { healthy: false });
    ask(harness, 2, 1);
    expect(harness.refusals.map(({ slot }) => slot)).toEqual([2]);
    expect(harness.lastRefusal).toBe('noReplica');
    harness.finish(0);
    harness.replica(1, { healthy: true });
    expect(harness.running.get(1)?.replica).toBe(1);
  });

  test('paused: it is told when to come back', () => {
    const harness = replicas(2);
    ask(harness, 0, 1);
    harness.busy(0, 5000, errors.REPLICA_OVERLOADED.number);
    expect(harness.refusals.at(-1)).toMatchObject({ refusal: Refusal.busy, retryAfterMs: 5000 });
    ask(harness, 1, 1);
    expect(harness.refusals.at(-1)).toMatchObject({ slot: 1, refusal: Refusal.busy });
    expect(ask(harness, 2)).toBe(0);
  });

  test('left out by its breaker: the same, and nobody else is asked', () => {
    const breaker = { ...breakerRules, mode: 'consecutive', consecutive: 1 } as const;
    const harness = replicas(3, 1, { breaker });
    ask(harness, 0, 1);
    harness.fail(0, RetryRule.never);
    ask(harness, 1, 1);
    expect(harness.lastRefusal).toBe('busy');
  });
});

describe('after a failure', () => {
  test('no other replica is asked, and no other model', () => {
    const lists = { fallbacks: [{ model: 1, adapter: 0 }] };
    const models = modelsWith('random', 'random').map((rules) => ({ ...rules, ...lists }));
    const harness = new BrainHarness({ models });
    harness.replicas(3);
    harness.replica(3, { model: 1 });
    for (const retry of [RetryRule.elsewhere, RetryRule.unserved, RetryRule.otherModel]) {
      ask(harness, 0, 1);
      harness.fail(0, retry);
      expect(harness.running.has(0), `${retry}`).toBe(false);
    }
    expect(harness.fallbacks).toEqual([]);
    expect(harness.refusals).toHaveLength(3);
  });

  test('where nothing was sent the same one is asked again', () => {
    const harness = replicas(3);
    ask(harness, 0, 1);
    harness.fail(0, RetryRule.anywhere);
    expect(harness.running.get(0)).toEqual({ attempt: 2, replica: 1 });
    harness.fail(0, RetryRule.again);
    expect(harness.running.get(0)).toEqual({ attempt: 3, replica: 1 });
  });

  test('it is asked again also while it drains', () => {
    const harness = replicas(2);
    ask(harness, 0, 1);
    harness.replica(1, { active: false, draining: true });
    harness.fail(0, RetryRule.anywhere);
    expect(harness.running.get(0)).toEqual({ attempt: 2, replica: 1 });
  });
});

test('no hedge, whoever asks for one', () => {
  const harness = replicas(3, 8, { hedge: { automatic: true, budget: 1 } });
  ask(harness, 0, 1, { hedgeUs: 0 });
  harness.advance(60_000);
  expect(harness.hedgesBegun).toEqual([]);
});

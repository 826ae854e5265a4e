import { describe, expect, test } from 'vitest';
import { configJsonSchema } from '../../../../src/config/reference.ts';
import { Candidates, NONE } from '../../../../src/dispatch/candidates.ts';
import type { PickRequest, Policy } from '../../../../src/dispatch/policies/policy.ts';
import { policyFactory, policyNames } from '../../../../src/dispatch/policies/registry.ts';
import { createPrng } from '../../../../src/lib/prng.ts';
import { loadOf } from '../../../support/brain-harness.ts';

const seed = Number(process.env.SEED ?? 20_260_101);
console.info(`SEED=${seed}`);

const create = (name: string): Policy => policyFactory(name)!(createPrng(seed));

function candidatesOf(loads: readonly number[], weights: readonly number[] = []): Candidates {
  const candidates = new Candidates(loads.length);
  loads.forEach((load, row) => {
    candidates.set(row, loadOf(load, weights[row] ?? 1));
  });
  return candidates;
}

const request: PickRequest = {
  ...{ promptTokens: 100, outputTokens: 256, matched: new Int32Array(1024), key0: 0, key1: 0 },
};

const picks = (policy: Policy, candidates: Candidates, count: number): number[] =>
  Array.from({ length: count }, () => candidates.row[policy.pick(candidates, request)]!);

/** Every pick becomes one more request in flight. */
function fill(policy: Policy, candidates: Candidates, count: number): number[] {
  const { inFlight, weight } = candidates;
  for (let i = 0; i < count; i++) {
    const picked = policy.pick(candidates, request);
    candidates.set(picked, loadOf(inFlight[picked]! + 1, weight[picked]!));
  }
  return [...candidates.inFlight.subarray(0, candidates.length)];
}

describe('registry', () => {
  test('the brain knows exactly the policies that the config accepts', () => {
    const { models } = JSON.parse(configJsonSchema()).properties;
    const accepted: string[] = models.items.properties.policy.anyOf[0].enum;
    expect([...policyNames].sort()).toEqual(accepted.sort());
  });

  test('an unknown name has no factory', () => {
    expect(policyFactory('fastest')).toBeUndefined();
  });

  test.each([...policyNames])(
    '%s picks nobody when there is nobody, and the only one otherwise',
    (name) => {
      const policy = create(name);
      expect(policy.pick(candidatesOf([]), request)).toBe(NONE);
      expect(picks(policy, candidatesOf([7]), 5)).toEqual([0, 0, 0, 0, 0]);
    },
  );
});

describe('round_robin (A-05)', () => {
  test('three candidates take turns in the order of rows', () => {
    expect(picks(create('round_robin'), candidatesOf([0, 0, 0]), 6)).toEqual([0, 1, 2, 0, 1, 2]);
  });

  test('ten picks never hit the one in the middle that is no candidate', () => {
    const candidates = candidatesOf([0, 0, 0]);
    candidates.delete(1);
    expect(picks(create('round_robin'), candidates, 10)).toEqual([0, 2, 0, 2, 0, 2, 0, 2, 0, 2]);
  });

  test('a candidate that comes back takes its turn where it was', () => {
    const policy = create('round_robin');
    const candidates = candidatesOf([0, 0, 0]);
    candidates.delete(1);
    expect(picks(policy, candidates, 1)).toEqual([0]);
    candidates.set(1, loadOf(0));
    expect(picks(policy, candidates, 3)).toEqual([1, 2, 0]);
  });
});

describe('random (A-08)', () => {
  test('picks are uniform by a chi-square test', () => {
    const candidates = candidatesOf(new Array<number>(16).fill(0));
    const draws = 64_000;
    const counts = fill(create('random'), candidates, draws);
    const expected = draws / counts.length;
    const chiSquare = counts.reduce((sum, n) => sum + (n - expected) ** 2 / expected, 0);
    // 15 degrees of freedom: above 44.3 once in 10,000 seeds; a single dead replica gives 4000.
    expect(chiSquare).toBeLessThan(44.3);
  });
});

describe('least_in_flight (A-07)', () => {
  test('the least loaded of 5, 1, 3 is picked, and the next one when it is no candidate', () => {
    const candidates = candidatesOf([5, 1, 3]);
    expect(picks(create('least_in_flight'), candidates, 1)).toEqual([1]);
    candidates.delete(1);
    expect(picks(create('least_in_flight'), candidates, 1)).toEqual([2]);
  });

  test('equal candidates take turns', () => {
    expect(picks(create('least_in_flight'), candidatesOf([2, 2, 2, 9]), 6)).toEqual([
      0, 1, 2, 0, 1, 2,
    ]);
  });

  test('the least loaded is found wherever the scan starts', () => {
    for (let lightest = 0; lightest < 7; lightest++) {
      for (let turns = 0; turns < 7; turns++) {
        const policy = create('least_in_flight');
        picks(policy, candidatesOf(new Array<number>(7).fill(0)), turns);
        const loads = Array.from({ length: 7 }, (_, row) => (row === lightest ? 3 : 4));
        expect(picks(policy, candidatesOf(loads), 1)).toEqual([lightest]);
      }
    }
  });
});

test('the least loaded is found under random starts, ends, joins and leaves', () => {
  const random = createPrng(seed);
  const policy = create('least_in_flight');
  const candidates = candidatesOf(Array.from({ length: 20 }, () => random.below(9)));
  for (let step = 0; step < 20_000; step++) {
    const row = random.below(20);
    if (random.below(10) === 0) candidates.delete(row);
    else candidates.set(row, loadOf(random.below(9)));
    if (candidates.length === 0) continue;
    const loads = [...candidates.inFlight.subarray(0, candidates.length)];
    expect(loads[policy.pick(candidates, request)]).toBe(Math.min(...loads));
  }
});

describe('power_of_two (A-06)', () => {
  test('distinct picks never choose the heavy one of 1, 1, 1, 99', () => {
    const rows = picks(create('power_of_two'), candidatesOf([1, 1, 1, 99]), 2000);
    expect(rows.filter((row) => row === 3)).toEqual([]);
    expect(new Set(rows)).toEqual(new Set([0, 1, 2]));
  });

  test('of two the lighter one always wins, on either side', () => {
    const policy = create('power_of_two');
    expect(new Set(picks(policy, candidatesOf([5, 1]), 200))).toEqual(new Set([1]));
    expect(new Set(picks(policy, candidatesOf([1, 5]), 200))).toEqual(new Set([0]));
  });

  test('every pair is drawn, in both orders equally often', () => {
    const rows = picks(create('power_of_two'), candidatesOf([0, 0, 0, 0, 0]), 50_000);
    for (let row = 0; row < 5; row++) {
      const share = rows.filter((picked) => picked === row).length / rows.length;
      expect(Math.abs(share - 0.2)).toBeLessThan(0.01);
    }
  });

  test('10,000 requests over 100 replicas leave nobody more than 4 above the mean', () => {
    const loads = fill(
      create('power_of_two'),
      candidatesOf(new Array<number>(100).fill(0)),
      10_000,
    );
    expect(Math.max(...loads) - 100).toBeLessThanOrEqual(4);
  });

  test('a replica of weight 3 gets its share of the load', () => {
    const loads = fill(create('power_of_two'), candidatesOf([0, 0], [3, 1]), 4000);
    expect(Math.abs(loads[0]! / 4000 - 0.75)).toBeLessThan(0.01);
  });
});

describe.each(['marginal_cost', 'lmetric', 'min_ttft'])('%s', (name) => {
  test('an idle fleet takes turns, and a weight makes a replica that much faster', () => {
    expect(picks(create(name), candidatesOf([0, 0, 0]), 6)).toEqual([0, 1, 2, 0, 1, 2]);
    expect(picks(create(name), candidatesOf([0, 0, 0], [1, 5, 2]), 2)).toEqual([1, 1]);
  });

  test('a prompt that is held elsewhere is worth some wait there and no more', () => {
    const candidates = candidatesOf([0, 0]);
    const matched = new Int32Array([0, 3000]);
    const asked: PickRequest = { ...request, promptTokens: 4000, matched };
    const waits = (pendingTokens: number): number => {
      candidates.set(1, { ...loadOf(0), pendingTokens });
      return create(name).pick(candidates, asked);
    };
    expect([waits(0), waits(2000), waits(20_000)]).toEqual([1, 1, 0]);
  });
});

describe('weighted_least_connections', () => {
  test('the first request of an idle fleet goes to the heaviest', () => {
    expect(
      picks(create('weighted_least_connections'), candidatesOf([0, 0, 0], [1, 5, 2]), 1),
    ).toEqual([1]);
  });

  test('requests in flight settle in proportion to the weights', () => {
    const candidates = candidatesOf([0, 0, 0], [1, 2, 5]);
    expect(fill(create('weighted_least_connections'), candidates, 800)).toEqual([100, 200, 500]);
  });

  test('equal candidates take turns', () => {
    const rows = picks(create('weighted_least_connections'), candidatesOf([4, 4, 4]), 4);
    expect(rows).toEqual([0, 1, 2, 0]);
  });
});

test('candidates stay in the order of rows and keep their own numbers', () => {
  const candidates = new Candidates(8);
  for (const row of [5, 1, 7, 3]) candidates.set(row, loadOf(row * 10, row + 1));
  candidates.delete(5);
  candidates.delete(6);
  candidates.set(2, loadOf(20, 3));
  candidates.set(7, loadOf(71, 9));
  const { length } = candidates;
  expect([...candidates.row.subarray(0, length)]).toEqual([1, 2, 3, 7]);
  expect([...candidates.inFlight.subarray(0, length)]).toEqual([10, 20, 30, 71]);
  expect([...candidates.weight.subarray(0, length)]).toEqual([2, 3, 4, 9]);
});

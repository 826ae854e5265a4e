/** The terms that a person is shown and the choice of the policy are the same rule. */
import { describe, expect, test } from 'vitest';
import { Candidates } from '../../../../src/dispatch/candidates.ts';
import {
  policyFactory,
  policyNames,
  policyScore,
  sessionPolicy,
} from '../../../../src/dispatch/policies/registry.ts';
import { createPrng } from '../../../../src/lib/prng.ts';

const seed = Number(process.env.SEED ?? 20_260_301);
console.info(`SEED=${seed}`);

const scored = policyNames.filter((name) => policyScore(name).terms !== undefined);
/** It compares two that it draws, not all. */
const overAll = scored.filter((name) => name !== 'power_of_two');

describe.each(overAll)('%s', (name) => {
  test('picks a candidate of the least score', () => {
    const random = createPrng(seed);
    const policy = policyFactory(name)!(random);
    const { terms } = policyScore(name);
    for (let round = 0; round < 200; round++) {
      const length = 1 + random.below(12);
      const candidates = new Candidates(length);
      const matched = Int32Array.from({ length }, () => random.below(3000));
      for (let row = 0; row < length; row++) {
        candidates.set(row, {
          ...{ inFlight: random.below(20), weight: 1 + random.below(4) },
          ...{ pendingTokens: random.below(50_000), contextTokens: random.below(500_000) },
          roomTokens: Number.POSITIVE_INFINITY,
          ...{ prefillUs: 1 + random.below(40), residentUs: (1 + random.below(9)) / 100 },
        });
      }
      const request = { promptTokens: 1 + random.below(4000), outputTokens: 1 + random.below(999) };
      const scores = Array.from({ length }, (_, i) => {
        const { inFlight, weight, pendingTokens, contextTokens, prefillUs, residentUs } =
          candidates;
        return terms!({
          ...request,
          ...{ matchedTokens: matched[i]!, inFlight: inFlight[i]!, weight: weight[i]! },
          ...{ pendingTokens: pendingTokens[i]!, contextTokens: contextTokens[i]! },
          ...{ prefillUs: prefillUs[i]!, residentUs: residentUs[i]! },
        }).score;
      });
      const picked = policy.pick(candidates, { ...request, matched, key0: 0, key1: 0 });
      expect(scores[picked]).toBeCloseTo(Math.min(...scores), 3);
    }
  });
});

test('every policy says its rule', () => {
  for (const name of policyNames) expect(policyScore(name).formula).not.toBe('');
  expect(policyNames).toContain(sessionPolicy);
  expect(scored).toHaveLength(6);
});

test('the terms of marginal_cost are its three delays', () => {
  const of = {
    ...{ promptTokens: 1000, outputTokens: 100, matchedTokens: 400, inFlight: 4, weight: 1 },
    ...{ pendingTokens: 200, contextTokens: 5000, prefillUs: 20, residentUs: 0.06 },
  };
  expect(policyScore('marginal_cost').terms?.(of)).toEqual({
    score: 16_000 + 24_000 + 30_000,
    terms: { own_wait_us: 16_000, delay_of_others_us: 24_000, own_decode_us: 30_000 },
  });
});

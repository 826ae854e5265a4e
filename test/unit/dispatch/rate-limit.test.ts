/** Rate limits of replicas: what a replica may be given, and when. */
import { expect, test } from 'vitest';
import { ownLimit, RetryRule } from '../../../src/dispatch/decisions.ts';
import { RateLimit, type RateTerms } from '../../../src/dispatch/rate-limit.ts';
import { createPrng } from '../../../src/lib/prng.ts';
import { BrainHarness, modelsWith } from '../../support/brain-harness.ts';

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
console.info(`SEED=${seed}`);
const minuteUs = 60e6;
const perMinute = (requests: number, tokens = 0, burstUs = 10e6): RateTerms => {
  return { requestsPerUs: requests / minuteUs, tokensPerUs: tokens / minuteUs, burstUs };
};

test('in any stretch no more is given than the rate and a burst, and what is allowed is given', () => {
  const random = createPrng(seed);
  for (let round = 0; round < 40; round++) {
    const [requests, tokens] = [1 + random.below(600), 1000 + random.below(100_000)];
    const burstUs = 1e6 + random.below(30e6);
    const terms = perMinute(requests, tokens, burstUs);
    const limit = new RateLimit();
    const given: { atUs: number; tokens: number }[] = [];
    let nowUs = 1e9;
    for (let step = 0; step < 400; step++) {
      const freeAtUs = limit.freeAtUs(terms);
      // Asked at once where it is free, else when it says, give or take a microsecond.
      nowUs = Math.max(nowUs + random.below(2) * random.below(2e6), freeAtUs + 1);
      expect(limit.freeAtUs(terms)).toBeLessThanOrEqual(nowUs);
      const expected = 1 + random.below(500);
      limit.took(terms, expected, nowUs);
      const more = random.below(3) === 0 ? random.below(200) - Math.min(100, expected) : 0;
      limit.corrected(terms, more, nowUs);
      given.push({ atUs: nowUs, tokens: expected + more });
    }
    for (let from = 0; from < given.length; from += 37) {
      let count = 0;
      let sum = 0;
      for (const { atUs, tokens: took } of given.slice(from)) {
        const spanUs = atUs - (given[from]?.atUs ?? 0);
        count++;
        const burst = Math.max(1, terms.requestsPerUs * burstUs);
        expect(count).toBeLessThanOrEqual(terms.requestsPerUs * spanUs + burst + 1e-6);
        // The last one may overdraw the bucket, and is waited for.
        const room = Math.max(1, terms.tokensPerUs * burstUs);
        expect(sum).toBeLessThanOrEqual(terms.tokensPerUs * spanUs + room + 1e-6);
        sum += took;
      }
    }
  }
});

test('a replica without room is no candidate until it has some again', () => {
  const harness = new BrainHarness();
  harness.replica(0, { rate: perMinute(60, 0, 1e6) });
  harness.replica(1, { weight: 0.001, maxInFlight: 2 });
  for (const slot of [0, 1, 2]) harness.arrive(slot);
  expect(harness.dispatches.map(({ replica }) => replica)).toEqual([0, 1, 1]);
  expect(harness.placements[1]?.filtered).toEqual({ limited: 1 });
  harness.arrive(3); // the other is full: it will have room when it finishes something
  expect(harness.refusals).toEqual([]);
  harness.advance(999);
  expect(harness.running.has(3)).toBe(false);
  harness.advance(1);
  expect(harness.running.get(3)?.replica).toBe(0);
});

test('with all of them so the client hears when, and a moment is waited for', () => {
  const harness = new BrainHarness();
  harness.replica(0, { rate: perMinute(60, 0, 1e6) });
  harness.arrive(0);
  harness.advance(200);
  harness.arrive(1);
  expect(harness.lastRefusal).toBe('busy');
  expect(harness.refusals[0]).toMatchObject({ error: ownLimit, retryAfterMs: 800 });
  harness.advance(600);
  harness.arrive(2); // 200 ms before there is room
  expect(harness.brain.queued(0)).toBe(1);
  harness.advance(200);
  expect(harness.running.get(2)?.replica).toBe(0);
});

test('tokens count as expected, and as they came to; a hedge and a retry count as well', () => {
  // A burst of 1,000 tokens; a prompt of 400 bytes is 100 tokens, 100 more are asked for.
  const harness = new BrainHarness();
  harness.replica(0, { rate: perMinute(0, 60_000, 1e6) });
  const asked = { maxTokens: 100, promptTokens: 100 };
  for (const slot of [0, 1, 2, 3]) harness.arrive(slot, 0, 600_000, asked);
  expect(harness.running.size).toBe(4);
  harness.finish(0, { promptTokens: 100, completionTokens: 1500 });
  harness.arrive(4, 0, 600_000, asked);
  expect(harness.refusals.at(-1)).toMatchObject({ slot: 4, error: ownLimit });
  harness.finish(1, { promptTokens: 100, completionTokens: 0 });
  harness.finish(2, { promptTokens: 0, completionTokens: 0 });
  harness.advance(2000);
  harness.arrive(5, 0, 600_000, asked);
  expect(harness.running.has(5)).toBe(true);
});

test('another epoch is another replica, and a limit that is used up sends requests on', () => {
  const models = modelsWith('round_robin', 'round_robin');
  const fallbacks = [{ model: 1, adapter: 0 }];
  const harness = new BrainHarness({ models: [{ ...models[0]!, fallbacks }, models[1]!] });
  harness.replica(0, { rate: perMinute(1, 0, 1e6) });
  harness.replica(1, { model: 1 });
  for (const slot of [0, 1]) harness.arrive(slot);
  expect(harness.dispatches.map(({ replica }) => replica)).toEqual([0, 1]);
  expect(harness.fallbacks).toMatchObject([{ slot: 1, reason: 'busy' }]);
  harness.fail(1, RetryRule.never);
  harness.finish(0);
  harness.replica(0, { rate: perMinute(1, 0, 1e6), epoch: 2 });
  harness.arrive(2);
  expect(harness.running.get(2)?.replica).toBe(0);
});

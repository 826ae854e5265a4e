import { expect, test } from 'vitest';
import { FirstTokens } from '../../../src/dispatch/first-tokens.ts';
import { createPrng } from '../../../src/lib/prng.ts';

const seed = Number(process.env.SEED ?? 20_261_129);
console.info(`SEED=${seed}`);

/** Upper end of a quarter octave over the value. */
const isAbout = (estimate: number, exact: number): boolean =>
  estimate >= exact && estimate <= exact * 2 ** 0.25 * 1.01;

test('nothing is known before fifty samples', () => {
  const times = new FirstTokens(1);
  for (let i = 0; i < 49; i++) times.learn(0, 100, 20_000);
  expect(times.lateUs(0, 100)).toBe(Number.POSITIVE_INFINITY);
  times.learn(0, 100, 20_000);
  expect(isAbout(times.lateUs(0, 100), 20_000)).toBe(true);
});

test('the 95th percentile of a spread is met within a bucket', () => {
  const random = createPrng(seed);
  const times = new FirstTokens(1);
  const all = Array.from({ length: 900 }, () => 5000 + random.below(200_000));
  for (const us of all) times.learn(0, 1000, us);
  const exact = all.sort((a, b) => a - b)[Math.ceil(0.95 * all.length) - 1]!;
  expect(times.lateUs(0, 1000)).toBeGreaterThanOrEqual(exact);
  expect(times.lateUs(0, 1000)).toBeLessThanOrEqual(exact * 1.2);
});

test('lengths and models are told apart; absurd values have a place', () => {
  const times = new FirstTokens(2);
  for (let i = 0; i < 60; i++) {
    times.learn(0, 128 + i, 10_000);
    times.learn(0, 1 << 20, 1e12);
    times.learn(1, 0, 0);
  }
  expect(isAbout(times.lateUs(0, 255), 10_000)).toBe(true);
  expect(times.lateUs(0, 256)).toBe(Number.POSITIVE_INFINITY);
  expect(times.lateUs(1, 200)).toBe(Number.POSITIVE_INFINITY);
  expect(times.lateUs(0, 1 << 24)).toBeGreaterThan(60e6);
  expect(times.lateUs(1, 1)).toBeLessThan(1200);
});

test('the estimate follows the traffic', () => {
  const times = new FirstTokens(1);
  for (let i = 0; i < 5000; i++) times.learn(0, 100, 400_000);
  for (let i = 0; i < 5000; i++) times.learn(0, 100, 10_000);
  expect(isAbout(times.lateUs(0, 100), 10_000)).toBe(true);
});

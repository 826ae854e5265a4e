import { expect, test } from 'vitest';
import { createPrng } from '../../../src/lib/prng.ts';
import { createArrivals } from '../../../src/load/arrivals.ts';

const seed = Number(process.env.SEED ?? 20260101);
const rate = 8000;
const meanUs = 1e6 / rate;
const draws = 200_000;

function sample(burstiness: number): number[] {
  const next = createArrivals(rate, burstiness, createPrng(seed));
  return Array.from({ length: draws }, next);
}

function moments(gaps: readonly number[]): { mean: number; variation: number } {
  const mean = gaps.reduce((sum, gap) => sum + gap, 0) / gaps.length;
  const variance = gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / gaps.length;
  return { mean, variation: Math.sqrt(variance) / mean };
}

test.each([0.25, 0.5, 1, 4, 16])(
  `burstiness %d has the mean and the variation of its gamma law (seed ${seed})`,
  (burstiness) => {
    const { mean, variation } = moments(sample(burstiness));
    // Six standard errors of the mean; the variation converges slower, so it gets 5 %.
    const error = (6 * meanUs) / Math.sqrt(burstiness * draws);
    expect(Math.abs(mean - meanUs)).toBeLessThan(error);
    expect(variation * Math.sqrt(burstiness)).toBeGreaterThan(0.95);
    expect(variation * Math.sqrt(burstiness)).toBeLessThan(1.05);
  },
);

test(`Poisson gaps have the exponential tail (seed ${seed})`, () => {
  const gaps = sample(1);
  for (const times of [0.1, 0.5, 1, 2, 4]) {
    const share = gaps.filter((gap) => gap > times * meanUs).length / draws;
    const expected = Math.exp(-times);
    const error = 6 * Math.sqrt((expected * (1 - expected)) / draws);
    expect(Math.abs(share - expected)).toBeLessThan(error);
  }
});

test(`counts of Poisson arrivals in equal windows have variance equal to mean (seed ${seed})`, () => {
  const windowUs = 10_000;
  const counts: number[] = [];
  let at = 0;
  for (const gap of sample(1)) {
    at += gap;
    const window = Math.floor(at / windowUs);
    counts[window] = (counts[window] ?? 0) + 1;
  }
  const full = Array.from(counts.slice(0, -1), (count) => count ?? 0);
  const { mean, variation } = moments(full);
  const dispersion = variation ** 2 * mean;
  expect(mean).toBeGreaterThan(78);
  expect(mean).toBeLessThan(82);
  expect(dispersion).toBeGreaterThan(0.85);
  expect(dispersion).toBeLessThan(1.15);
});

test('infinite burstiness is a constant gap', () => {
  expect(new Set(sample(Number.POSITIVE_INFINITY))).toEqual(new Set([meanUs]));
});

test('the same seed gives the same arrivals, another seed does not', () => {
  const first = createArrivals(100, 0.5, createPrng(1));
  const same = createArrivals(100, 0.5, createPrng(1));
  const other = createArrivals(100, 0.5, createPrng(2));
  const gaps = Array.from({ length: 100 }, first);
  expect(Array.from({ length: 100 }, same)).toEqual(gaps);
  expect(Array.from({ length: 100 }, other)).not.toEqual(gaps);
});

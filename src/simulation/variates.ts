/**
 * Random numbers of the distributions that workloads are made of, from a seeded generator. Pure.
 *
 * Gap distributions have mean 1 and one shape parameter; the caller scales them to its rate.
 */
import type { Prng } from '../lib/prng.ts';
import { drawExponential, drawGamma, uniform } from '../lib/variates.ts';

export interface GapShape {
  readonly family: 'Gamma' | 'Weibull';
  readonly shape: number;
}

/** Gaps of independent arrivals. */
export const poissonGaps: GapShape = { family: 'Gamma', shape: 1 };

/** Uniform integer from `low` to `high`, both included. */
export function between(random: Prng, low: number, high: number): number {
  return low + random.below(high - low + 1);
}

/** One gap with mean 1. */
export function drawGap(random: Prng, { family, shape }: GapShape): number {
  if (family === 'Weibull') {
    return drawExponential(random) ** (1 / shape) / gammaFunction(1 + 1 / shape);
  }
  if (shape === 1) return drawExponential(random);
  return drawGamma(random, shape) / shape;
}

/** Index drawn with the given relative weights. */
export function drawIndex(random: Prng, weights: readonly number[]): number {
  let rest = uniform(random) * weights.reduce((sum, weight) => sum + weight, 0);
  for (let i = 0; i < weights.length - 1; i++) {
    rest -= weights[i] as number;
    if (rest < 0) return i;
  }
  return weights.length - 1;
}

/** Value at a uniform level of a distribution known by quantiles, straight lines between them. */
export function drawQuantile(
  random: Prng,
  levels: readonly number[],
  values: readonly number[],
): number {
  const level = uniform(random);
  let upper = 1;
  while (upper < levels.length - 1 && (levels[upper] as number) < level) upper++;
  const low = levels[upper - 1] as number;
  const share = (level - low) / ((levels[upper] as number) - low);
  const from = values[upper - 1] as number;
  return from + share * ((values[upper] as number) - from);
}

/** Stirling's series, lifted by 8 where it is exact to 12 digits. */
function gammaFunction(x: number): number {
  let product = 1;
  let z = x;
  for (; z < 9; z++) product *= z;
  const series = 1 / (12 * z) - 1 / (360 * z ** 3) + 1 / (1260 * z ** 5);
  return (Math.sqrt((2 * Math.PI) / z) * (z / Math.E) ** z * Math.exp(series)) / product;
}

/**
 * Random numbers of the distributions that workloads are made of, from a seeded generator. Pure.
 *
 * Gap distributions have mean 1 and one shape parameter; the caller scales them to its rate.
 */
import type { Prng } from '../lib/prng.ts';

export interface GapShape {
  readonly family: 'Gamma' | 'Weibull';
  readonly shape: number;
}

/** Gaps of independent arrivals. */
export const poissonGaps: GapShape = { family: 'Gamma', shape: 1 };

/** Uniform in (0, 1): never 0, so its logarithm is finite. */
export function uniform(random: Prng): number {
  return (random.next() + 0.5) / 4294967296;
}

/** Uniform integer from `low` to `high`, both included. */
export function between(random: Prng, low: number, high: number): number {
  return low + random.below(high - low + 1);
}

/** One gap with mean 1. */
export function drawGap(random: Prng, { family, shape }: GapShape): number {
  if (family === 'Weibull') {
    return (-Math.log(uniform(random))) ** (1 / shape) / gammaFunction(1 + 1 / shape);
  }
  if (shape === 1) return -Math.log(uniform(random));
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

/** Marsaglia and Tsang (2000); a shape below 1 is lifted by one and scaled back. */
function drawGamma(random: Prng, shape: number): number {
  if (shape < 1) return drawGamma(random, shape + 1) * uniform(random) ** (1 / shape);
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    // Box and Muller; the second normal is dropped to keep draws independent of their parity.
    const x = Math.sqrt(-2 * Math.log(uniform(random))) * Math.cos(2 * Math.PI * uniform(random));
    const t = (1 + c * x) ** 3;
    if (t <= 0) continue;
    if (Math.log(uniform(random)) < 0.5 * x * x + d - d * t + d * Math.log(t)) return d * t;
  }
}

/** Stirling's series, lifted by 8 where it is exact to 12 digits. */
function gammaFunction(x: number): number {
  let product = 1;
  let z = x;
  for (; z < 9; z++) product *= z;
  const series = 1 / (12 * z) - 1 / (360 * z ** 3) + 1 / (1260 * z ** 5);
  return (Math.sqrt((2 * Math.PI) / z) * (z / Math.E) ** z * Math.exp(series)) / product;
}

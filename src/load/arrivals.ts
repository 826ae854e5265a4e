/**
 * Arrival processes of an open-loop run: gaps between intended send times, from a seed.
 *
 *   gap ~ Gamma(shape = burstiness, scale = 1 / (rate * burstiness))      mean 1 / rate
 *
 * burstiness 1 is Poisson, below 1 is burstier, above 1 is smoother, Infinity is a constant gap: the
 * meaning `vllm bench serve --burstiness` gives it. The coefficient of variation is 1 / sqrt(burstiness).
 * Pure: no clock; the caller adds the gaps up.
 */
import { assert } from '../lib/assert.ts';
import type { Prng } from '../lib/prng.ts';

/** Draws the gap to the next intended send time, in microseconds. */
export type NextGapUs = () => number;

export function createArrivals(ratePerSecond: number, burstiness: number, prng: Prng): NextGapUs {
  assert(ratePerSecond > 0 && Number.isFinite(ratePerSecond), 'an arrival rate is positive');
  assert(burstiness > 0, 'burstiness is positive');
  const meanUs = 1e6 / ratePerSecond;
  if (burstiness === Number.POSITIVE_INFINITY) return () => meanUs;
  if (burstiness === 1) return () => -Math.log(uniform(prng)) * meanUs;
  const scaleUs = meanUs / burstiness;
  return () => gamma(burstiness, prng) * scaleUs;
}

/** Uniform in (0, 1): never 0, so its logarithm is finite. */
function uniform(prng: Prng): number {
  return (prng.next() + 0.5) / 4294967296;
}

/** Marsaglia and Tsang (2000); a shape below 1 is lifted by one and scaled back. */
function gamma(shape: number, prng: Prng): number {
  if (shape < 1) return gamma(shape + 1, prng) * uniform(prng) ** (1 / shape);
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const x = normal(prng);
    const t = 1 + c * x;
    if (t <= 0) continue;
    const v = t * t * t;
    if (Math.log(uniform(prng)) < 0.5 * x * x + d - d * v + d * Math.log(v)) return d * v;
  }
}

/** Box and Muller. The second value is dropped, so one draw never depends on the parity of the last. */
function normal(prng: Prng): number {
  return Math.sqrt(-2 * Math.log(uniform(prng))) * Math.cos(2 * Math.PI * uniform(prng));
}

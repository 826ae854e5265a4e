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
import { drawExponential, drawGamma } from '../lib/variates.ts';

/** Draws the gap to the next intended send time, in microseconds. */
export type NextGapUs = () => number;

export function createArrivals(ratePerSecond: number, burstiness: number, prng: Prng): NextGapUs {
  assert(ratePerSecond > 0 && Number.isFinite(ratePerSecond), 'an arrival rate is positive');
  assert(burstiness > 0, 'burstiness is positive');
  const meanUs = 1e6 / ratePerSecond;
  if (burstiness === Number.POSITIVE_INFINITY) return () => meanUs;
  if (burstiness === 1) return () => drawExponential(prng) * meanUs;
  const scaleUs = meanUs / burstiness;
  return () => drawGamma(prng, burstiness) * scaleUs;
}

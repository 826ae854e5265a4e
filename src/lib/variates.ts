/** Random numbers of continuous distributions, from a seeded generator. Pure. */
import type { Prng } from './prng.ts';

/** Uniform in (0, 1): never 0, so its logarithm is finite. */
export function uniform(random: Prng): number {
  return (random.next() + 0.5) / 4294967296;
}

/** Mean 1. */
export function drawExponential(random: Prng): number {
  return -Math.log(uniform(random));
}

/**
 * Scale 1, so the mean is `shape`. Marsaglia and Tsang (2000); a shape below 1 is lifted by one and
 * scaled back.
 */
export function drawGamma(random: Prng, shape: number): number {
  if (shape < 1) return drawGamma(random, shape + 1) * uniform(random) ** (1 / shape);
  const d = shape - 1 / 3;
  const c = 1 / Math.sqrt(9 * d);
  for (;;) {
    const x = drawNormal(random);
    const t = (1 + c * x) ** 3;
    if (t <= 0) continue;
    if (Math.log(uniform(random)) < 0.5 * x * x + d - d * t + d * Math.log(t)) return d * t;
  }
}

/** Box and Muller. The second normal is dropped to keep draws independent of their parity. */
function drawNormal(random: Prng): number {
  return Math.sqrt(-2 * Math.log(uniform(random))) * Math.cos(2 * Math.PI * uniform(random));
}

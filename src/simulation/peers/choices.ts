/** Choices that several rules make. Pure. */
import type { Prng } from '../../lib/prng.ts';

/** Index with the lowest score, the first of equals. */
export function lowest(length: number, score: (index: number) => number): number {
  let best = 0;
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < length; i++) {
    const value = score(i);
    if (value < least) {
      least = value;
      best = i;
    }
  }
  return best;
}

/** Index with the lowest score, each of equals as likely. */
export function lowestAtRandom(
  length: number,
  random: Prng,
  score: (index: number) => number,
): number {
  let best = 0;
  let least = Number.POSITIVE_INFINITY;
  let equals = 0;
  for (let i = 0; i < length; i++) {
    const value = score(i);
    if (value < least) {
      least = value;
      best = i;
      equals = 1;
    } else if (value === least && random.below(++equals) === 0) best = i;
  }
  return best;
}

/** Two different indexes at random; the same one twice when there is one. */
export function twoAtRandom(length: number, random: Prng): [number, number] {
  const first = random.below(length);
  if (length === 1) return [first, first];
  const draw = random.below(length - 1);
  return [first, draw < first ? draw : draw + 1];
}

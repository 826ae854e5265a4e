/**
 * power_of_two: of two distinct random candidates, the one with the lower score.
 *
 *   score = inFlight / weight        requests per unit of weight; lower wins, first drawn wins ties
 *
 * Distinct picks: with replacement the most loaded of N would still be chosen once in N * N.
 * One candidate: it is picked. None: NONE.
 */
import type { Prng } from '../../lib/prng.ts';
import { type Candidates, NONE } from '../candidates.ts';
import type { Policy, Score, Weighed } from './policy.ts';

export class PowerOfTwo implements Policy {
  readonly #random: Prng;

  constructor(random: Prng) {
    this.#random = random;
  }

  pick(candidates: Candidates): number {
    const { length, inFlight, weight } = candidates;
    if (length < 2) return length === 1 ? 0 : NONE;
    const first = this.#random.below(length);
    const draw = this.#random.below(length - 1);
    const second = draw < first ? draw : draw + 1;
    // Cross-multiplied: a division costs more than both products.
    const firstScore = (inFlight[first] as number) * (weight[second] as number);
    const secondScore = (inFlight[second] as number) * (weight[first] as number);
    return secondScore < firstScore ? second : first;
  }
}

/** Load and share; only the two that were drawn were compared. */
export function powerOfTwoTerms({ inFlight, weight }: Weighed): Score {
  return { score: inFlight / weight, terms: { in_flight_requests: inFlight, weight } };
}

/**
 * weighted_least_connections: the candidate that would be the least loaded for its weight.
 *
 *   score = (inFlight + 1) / weight  requests per unit of weight, this one included; lower wins
 *
 * The + 1 sends the first request of an idle fleet to the heaviest replica instead of to any.
 * Ties rotate as in least_in_flight. None: NONE.
 */
import { type Candidates, NONE } from '../candidates.ts';
import type { Policy, Score, Weighed } from './policy.ts';

export class WeightedLeastConnections implements Policy {
  #start = 0;

  pick(candidates: Candidates): number {
    const { length, inFlight, weight } = candidates;
    if (length === 0) return NONE;
    const start = this.#start < length ? this.#start : 0;
    let best = start;
    let least = Number.POSITIVE_INFINITY;
    for (let step = 0, i = start; step < length; step++) {
      const score = ((inFlight[i] as number) + 1) / (weight[i] as number);
      if (score < least) {
        least = score;
        best = i;
      }
      i = i + 1 < length ? i + 1 : 0;
    }
    this.#start = best + 1;
    return best;
  }
}

/** Load with this request, and share. */
export function weightedLeastConnectionsTerms({ inFlight, weight }: Weighed): Score {
  const terms = { in_flight_with_this_requests: inFlight + 1, weight };
  return { score: (inFlight + 1) / weight, terms };
}

/**
 * least_in_flight: the candidate with the fewest requests in flight, among all.
 *
 *   score = inFlight                 requests; lower wins
 *
 * Ties rotate: the scan starts behind the last pick, so equal replicas take turns and an idle fleet
 * is used evenly. Weight is ignored. None: NONE. At most one pass over a dense array, no heap: below
 * some 500 replicas the scan is cheaper than keeping an order (native-free-bench/policies.ts).
 */
import { type Candidates, NONE } from '../candidates.ts';
import type { Policy, Score, Weighed } from './policy.ts';

export class LeastInFlight implements Policy {
  #start = 0;

  pick(candidates: Candidates): number {
    const { length } = candidates;
    if (length === 0) return NONE;
    const best = candidates.leastLoadedFrom(this.#start < length ? this.#start : 0);
    this.#start = best + 1;
    return best;
  }
}

/** The score is its only term. */
export function leastInFlightTerms({ inFlight }: Weighed): Score {
  return { score: inFlight, terms: { in_flight_requests: inFlight } };
}

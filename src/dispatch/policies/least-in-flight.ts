/**
 * least_in_flight: the candidate with the fewest requests in flight, among all.
 *
 *   score = inFlight                 requests; lower wins
 *
 * Ties rotate: the scan starts behind the last pick, so equal replicas take turns and an idle fleet
 * is used evenly. Weight is ignored. None: NONE. One pass over a dense array, no heap: below some
 * 500 replicas the scan is cheaper than keeping an order (native-free-bench/policies.ts).
 */
import { type Candidates, NONE } from '../candidates.ts';
import type { Policy } from './policy.ts';

export class LeastInFlight implements Policy {
  #start = 0;

  pick(candidates: Candidates): number {
    const { length, inFlight } = candidates;
    if (length === 0) return NONE;
    const start = this.#start < length ? this.#start : 0;
    let best = start;
    let least = inFlight[start] as number;
    for (let i = start + 1; i < length; i++) {
      const load = inFlight[i] as number;
      if (load < least) {
        least = load;
        best = i;
      }
    }
    for (let i = 0; i < start; i++) {
      const load = inFlight[i] as number;
      if (load < least) {
        least = load;
        best = i;
      }
    }
    this.#start = best + 1;
    return best;
  }
}

/**
 * round_robin: the candidate with the next higher row, cyclic.
 *
 *   pick = min { row : row > last }, else min { row }
 *
 * Load and weight are ignored. A replica that is no candidate is passed over and keeps its turn in
 * the order of rows, so the others are not disturbed when it comes back. None: NONE.
 */
import { type Candidates, NONE } from '../candidates.ts';
import type { Policy } from './policy.ts';

export class RoundRobin implements Policy {
  #last = NONE;

  pick(candidates: Candidates): number {
    if (candidates.length === 0) return NONE;
    const next = candidates.lowerBound(this.#last + 1);
    const index = next < candidates.length ? next : 0;
    this.#last = candidates.row[index] as number;
    return index;
  }
}

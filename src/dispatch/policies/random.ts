/**
 * random: every candidate with the same probability.
 *
 *   pick = uniform over the candidates
 *
 * Load and weight are ignored. None: NONE. A baseline; power_of_two costs little more.
 */
import type { Prng } from '../../lib/prng.ts';
import { type Candidates, NONE } from '../candidates.ts';
import type { Policy } from './policy.ts';

export class RandomChoice implements Policy {
  readonly #random: Prng;

  constructor(random: Prng) {
    this.#random = random;
  }

  pick(candidates: Candidates): number {
    return candidates.length === 0 ? NONE : this.#random.below(candidates.length);
  }
}

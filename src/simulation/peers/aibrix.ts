/**
 * aibrix: prefix cache with a load guard, as AIBrix does it. A peer's rule, simulator only.
 *
 *   imbalanced   max - min > 16 requests in flight: fewest in flight
 *   match        most matched tokens among those with inFlight <= mean + 2 sigma, fewer in flight
 *                among equals; nobody: fewest in flight
 *
 * Source: vllm-project/aibrix, pkg/plugins/gateway/algorithms, README.
 */

import type { Candidates } from '../../dispatch/candidates.ts';
import type { PickRequest } from '../../dispatch/policies/policy.ts';
import type { Prng } from '../../lib/prng.ts';
import type { RulePolicy, RuleView } from '../rule.ts';
import { lowestAtRandom } from './choices.ts';

const imbalance = 16;
const sigmas = 2;

export class Aibrix implements RulePolicy {
  readonly #random: Prng;

  constructor({ random }: RuleView) {
    this.#random = random;
  }

  pick({ length, inFlight }: Candidates, { matched }: PickRequest): number {
    let sum = 0;
    let squares = 0;
    let max = 0;
    let min = Number.POSITIVE_INFINITY;
    for (let i = 0; i < length; i++) {
      const load = inFlight[i] as number;
      sum += load;
      squares += load * load;
      max = Math.max(max, load);
      min = Math.min(min, load);
    }
    const mean = sum / length;
    const limit = mean + sigmas * Math.sqrt(Math.max(0, squares / length - mean * mean));
    const random = this.#random;
    if (max - min > imbalance) return lowestAtRandom(length, random, (i) => inFlight[i] as number);
    // Loads stay far below a token's worth of score, so they only order equal matches.
    return lowestAtRandom(length, random, (i) => {
      const load = inFlight[i] as number;
      return load > limit ? Number.MAX_VALUE : load * 1e-6 - (matched[i] as number);
    });
  }
}

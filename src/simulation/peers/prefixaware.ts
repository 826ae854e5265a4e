/**
 * prefixaware: the router of the vLLM production stack. A peer's rule, simulator only.
 *
 *   pick   at random among those with the longest match; nobody has any: at random among all
 *
 * Load does not count. Its hash trie of 128-character chunks forgets nothing.
 * Source: vllm-project/production-stack, routing_logic.py and hashtrie.py.
 */

import type { Candidates } from '../../dispatch/candidates.ts';
import type { PickRequest } from '../../dispatch/policies/policy.ts';
import type { Prng } from '../../lib/prng.ts';
import type { RulePolicy, RuleView } from '../rule.ts';
import { lowestAtRandom } from './choices.ts';

export class PrefixAware implements RulePolicy {
  readonly #random: Prng;

  constructor({ random }: RuleView) {
    this.#random = random;
  }

  pick({ length }: Candidates, { matched }: PickRequest): number {
    return lowestAtRandom(length, this.#random, (i) => -(matched[i] as number));
  }
}

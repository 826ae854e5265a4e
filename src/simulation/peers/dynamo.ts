/**
 * dynamo: the linear cost of NVIDIA Dynamo's KV router. A peer's rule, simulator only.
 *
 *   cost = pendingTokens + max(1, promptTokens - matched) + contextTokens      tokens; lower wins
 *          prefill to be done                               decode blocks held
 *
 * Dynamo counts both in blocks, so the block size cancels; overlap credit 1, temperature 0, ties at
 * random. Source: ai-dynamo/dynamo, docs/components/router/router-concepts.md.
 */

import type { Candidates } from '../../dispatch/candidates.ts';
import type { PickRequest } from '../../dispatch/policies/policy.ts';
import type { Prng } from '../../lib/prng.ts';
import type { RulePolicy, RuleView } from '../rule.ts';
import { lowestAtRandom } from './choices.ts';

export class Dynamo implements RulePolicy {
  readonly #random: Prng;

  constructor({ random }: RuleView) {
    this.#random = random;
  }

  pick(candidates: Candidates, { promptTokens, matched }: PickRequest): number {
    const { length, pendingTokens, contextTokens } = candidates;
    return lowestAtRandom(length, this.#random, (i) => {
      const uncached = Math.max(1, promptTokens - (matched[i] as number));
      return (pendingTokens[i] as number) + uncached + (contextTokens[i] as number);
    });
  }
}

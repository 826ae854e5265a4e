/**
 * sglang_cache_aware: SGLang's gateway with its documented defaults. A peer's rule, simulator only.
 *
 *   imbalanced   max - min > 32 and max > 1.5 min, of requests in flight: fewest in flight
 *   match        longest match; if it is more than half of the prompt: who has it
 *   miss         else: who holds the fewest tokens, whatever its load
 *
 * The tree of prompts has room for 2^26 characters and never fills here. The first replica wins ties.
 * Source: sgl-project/sglang, sgl-router/src/policies/cache_aware.rs and docs/advanced_features/router.md.
 */
import type { Candidates } from '../../dispatch/candidates.ts';
import type { PickRequest } from '../../dispatch/policies/policy.ts';
import type { RulePolicy, RuleView } from '../rule.ts';
import { lowest } from './choices.ts';

const balanceAbsolute = 32;
const balanceRelative = 1.5;
const matchMin = 0.5;

export class SglangCacheAware implements RulePolicy {
  readonly #heldTokens: Float64Array;

  constructor({ heldTokens }: RuleView) {
    this.#heldTokens = heldTokens;
  }

  pick({ length, inFlight, row }: Candidates, { promptTokens, matched }: PickRequest): number {
    let max = 0;
    let min = Number.POSITIVE_INFINITY;
    for (let i = 0; i < length; i++) {
      max = Math.max(max, inFlight[i] as number);
      min = Math.min(min, inFlight[i] as number);
    }
    if (max - min > balanceAbsolute && max > balanceRelative * min) {
      return lowest(length, (i) => inFlight[i] as number);
    }
    const best = lowest(length, (i) => -(matched[i] as number));
    if ((matched[best] as number) > matchMin * promptTokens) return best;
    return lowest(length, (i) => this.#heldTokens[row[i] as number] as number);
  }
}

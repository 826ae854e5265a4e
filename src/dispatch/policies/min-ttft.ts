/**
 * min_ttft: the candidate that would show the first token soonest (Mooncake, FAST '25).
 *
 *   score = prefillUs * (pendingTokens + uncached) / weight  microseconds; lower wins
 *   uncached = max(1, promptTokens - matched)                tokens
 *
 * Blind to what the prefill does to the sequences that already decode there. Ties rotate. None: NONE.
 */
import { type Candidates, NONE } from '../candidates.ts';
import type { PickRequest, Policy, Score, Weighed } from './policy.ts';

export class MinTtft implements Policy {
  readonly needsPrefix = true;
  #start = 0;

  pick(candidates: Candidates, { promptTokens, matched }: PickRequest): number {
    const { length, weight, pendingTokens, prefillUs } = candidates;
    if (length === 0) return NONE;
    let best = NONE;
    let least = Number.POSITIVE_INFINITY;
    for (let step = 0, i = this.#start < length ? this.#start : 0; step < length; step++) {
      const uncached = Math.max(1, promptTokens - (matched[i] as number));
      const waitUs = (prefillUs[i] as number) * ((pendingTokens[i] as number) + uncached);
      const score = waitUs / (weight[i] as number);
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

/** The wait for others and the own prefill. */
export function minTtftTerms(of: Weighed): Score {
  const uncached = Math.max(1, of.promptTokens - of.matchedTokens);
  const terms = {
    wait_us: (of.prefillUs * of.pendingTokens) / of.weight,
    own_prefill_us: (of.prefillUs * uncached) / of.weight,
  };
  return { score: terms.wait_us + terms.own_prefill_us, terms };
}

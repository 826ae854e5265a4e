/**
 * lmetric: waiting prefill times batch size (LMetric, arXiv 2603.15202).
 *
 *   score = (pendingTokens + uncached) * (inFlight + 1) / weight      tokens * requests; lower wins
 *   uncached = max(1, promptTokens - matched)                tokens
 *
 * Free of parameters: whatever a token or a request costs cancels. Nothing matched: a load score.
 * Ties rotate. None: NONE.
 */
import { type Candidates, NONE } from '../candidates.ts';
import type { PickRequest, Policy, Score, Weighed } from './policy.ts';

export class Lmetric implements Policy {
  readonly needsPrefix = true;
  #start = 0;

  pick(candidates: Candidates, { promptTokens, matched }: PickRequest): number {
    const { length, weight, pendingTokens, inFlight } = candidates;
    if (length === 0) return NONE;
    let best = NONE;
    let least = Number.POSITIVE_INFINITY;
    for (let step = 0, i = this.#start < length ? this.#start : 0; step < length; step++) {
      const uncached = Math.max(1, promptTokens - (matched[i] as number));
      const work = ((pendingTokens[i] as number) + uncached) * ((inFlight[i] as number) + 1);
      const score = work / (weight[i] as number);
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

/** The two factors of the score. */
export function lmetricTerms(of: Weighed): Score {
  const uncached = Math.max(1, of.promptTokens - of.matchedTokens);
  const terms = { waiting_tokens: of.pendingTokens + uncached, batch_requests: of.inFlight + 1 };
  return { score: (terms.waiting_tokens * terms.batch_requests) / of.weight, terms };
}

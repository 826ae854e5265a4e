/**
 * marginal_cost: the candidate where the request adds the least delay to everybody (ALGORITHMS 3).
 *
 *   score = (c (P + n) + lambda c B n + O k K) / weight      microseconds; lower wins
 *
 *   c (P + n)      own wait: what is ahead in the prefill queue, and its own prefill
 *   lambda c B n   the delay its prefill puts on the B sequences that decode there
 *   O k K          its own decode: O tokens, each step reading K resident tokens
 *
 *   P pendingTokens, n = max(1, promptTokens - matched) uncached, B inFlight, K contextTokens, O expected output;
 *   c prefillUs, k residentUs of the replica. For equal replicas only the ratio of c and k matters.
 *
 * A weight of w makes a replica w times as fast. Nothing matched: load alone decides. Ties rotate. None: NONE.
 */
import { type Candidates, NONE } from '../candidates.ts';
import type { PickRequest, Policy, Score, Weighed } from './policy.ts';

/** 0.3 to 1 are all good; more favours inter-token latency over the first tokens of long prompts. */
const lambda = 0.5;

export class MarginalCost implements Policy {
  readonly needsPrefix = true;
  #start = 0;

  pick(candidates: Candidates, { promptTokens, outputTokens, matched }: PickRequest): number {
    const { length, weight, pendingTokens, inFlight, contextTokens } = candidates;
    const { prefillUs, residentUs } = candidates;
    if (length === 0) return NONE;
    let best = NONE;
    let least = Number.POSITIVE_INFINITY;
    for (let step = 0, i = this.#start < length ? this.#start : 0; step < length; step++) {
      const uncached = Math.max(1, promptTokens - (matched[i] as number));
      const ahead = (pendingTokens[i] as number) + uncached;
      const delayed = lambda * (inFlight[i] as number) * uncached;
      const addedUs =
        (prefillUs[i] as number) * (ahead + delayed) +
        outputTokens * (residentUs[i] as number) * (contextTokens[i] as number);
      const score = addedUs / (weight[i] as number);
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

/** The three terms of the score. */
export function marginalCostTerms(of: Weighed): Score {
  const uncached = Math.max(1, of.promptTokens - of.matchedTokens);
  const terms = {
    own_wait_us: (of.prefillUs * (of.pendingTokens + uncached)) / of.weight,
    delay_of_others_us: (of.prefillUs * lambda * of.inFlight * uncached) / of.weight,
    own_decode_us: (of.outputTokens * of.residentUs * of.contextTokens) / of.weight,
  };
  return { score: terms.own_wait_us + terms.delay_of_others_us + terms.own_decode_us, terms };
}

/**
 * cache_aware: the longest match among the candidates that are not ahead in load, else the least loaded.
 *
 *   window    inFlight <= least inFlight + max(loadWindow, a quarter of it)     requests
 *   pick      in the window: most matched tokens, if that is at least matchMin of the prompt;
 *             else fewest in flight among all
 *
 * Two faults of the rule it descends from (SGLang's gateway) are left out: a miss goes to the least
 * loaded and not to the smallest tree, and imbalance narrows the choice without giving the
 * cache up. Ties rotate. None: NONE.
 */
import { type Candidates, NONE } from '../candidates.ts';
import type { PickRequest, Policy } from './policy.ts';

/** Requests a replica may be ahead of the least loaded and still be chosen for its cache. */
const loadWindow = 8;
/** Less of the prompt in a cache is not worth a longer queue. */
const matchMin = 0.3;

export class CacheAware implements Policy {
  readonly needsPrefix = true;
  #start = 0;

  pick(candidates: Candidates, { promptTokens, matched }: PickRequest): number {
    const { length, inFlight } = candidates;
    if (length === 0) return NONE;
    const start = this.#start < length ? this.#start : 0;
    const leastLoaded = candidates.leastLoadedFrom(start);
    const least = inFlight[leastLoaded] as number;
    const loadMax = least + Math.max(loadWindow, least / 4);
    let best = leastLoaded;
    let longest = matchMin * promptTokens;
    for (let step = 0, i = start; step < length; step++) {
      const match = matched[i] as number;
      const isBetter =
        match > longest ||
        (match === longest && (inFlight[i] as number) < (inFlight[best] as number));
      if ((inFlight[i] as number) <= loadMax && isBetter) {
        longest = match;
        best = i;
      }
      i = i + 1 < length ? i + 1 : 0;
    }
    this.#start = best + 1;
    return best;
  }
}

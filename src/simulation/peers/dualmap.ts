/**
 * dualmap: two candidates by hash, then cache, then load. A peer's rule, simulator only.
 *
 *   candidates   owners of two independent hashes of the head of the prompt
 *   ttft         prefillUs (pendingTokens + uncached)                     microseconds
 *   pick         more matched tokens, if its ttft is within the SLO; else lower ttft of the two;
 *                both over the SLO: lowest ttft of all, in place of the paper's hotspot migration
 *
 * Source: DualMap, arXiv 2602.06502.
 */
import { type Candidates, NONE } from '../../dispatch/candidates.ts';
import { HashRing, type RingMember } from '../../dispatch/hash-ring.ts';
import type { PickRequest } from '../../dispatch/policies/policy.ts';
import type { RulePolicy } from '../rule.ts';
import { lowest } from './choices.ts';

/** The time to first token of the evaluation's first pair of limits. */
const sloUs = 1_000_000;
/** Any number: makes the second hash independent of the first. */
const secondHash = 0x5bd1e995;

export class DualMap implements RulePolicy {
  readonly #ring = new HashRing();

  setMembers(members: readonly RingMember[]): void {
    this.#ring.rebuild(members);
  }

  pick(candidates: Candidates, request: PickRequest): number {
    const { length, pendingTokens, prefillUs } = candidates;
    const { promptTokens, matched, key0 } = request;
    const ttftUs = (i: number): number => {
      const uncached = Math.max(1, promptTokens - (matched[i] as number));
      return (prefillUs[i] as number) * ((pendingTokens[i] as number) + uncached);
    };
    const one = this.#owner(candidates, key0, 0, NONE);
    const other = this.#owner(candidates, key0, secondHash, one);
    const [near, far] = ttftUs(one) <= ttftUs(other) ? [one, other] : [other, one];
    const cached = (matched[one] as number) >= (matched[other] as number) ? one : other;
    if (matched[one] !== matched[other] && ttftUs(cached) <= sloUs) return cached;
    if (ttftUs(near) <= sloUs || near === far) return near;
    return lowest(length, ttftUs);
  }

  /** The candidate that owns the key; with several, another one than `not`. */
  #owner(candidates: Candidates, key: number, salt: number, not: number): number {
    const at = this.#ring.locate(key, salt);
    for (let steps = 0; steps < this.#ring.length; steps++) {
      const i = candidates.indexOf(this.#ring.rowAt(at, steps));
      if (i !== NONE && (i !== not || candidates.length === 1)) return i;
    }
    return 0;
  }
}

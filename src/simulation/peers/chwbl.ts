/**
 * chwbl: consistent hashing with bounded loads, as KubeAI does it. A peer's rule, simulator only.
 *
 *   owner   first point of the ring at or behind hash(key)
 *   bound   inFlight + 1 <= 1.25 (inFlight of all + 1) / N      requests
 *   pick    the first clockwise from the owner within the bound, else the owner
 *
 * The key is the head of the prompt (KubeAI: 100 characters of the first user message). The ring is
 * dispatch's, of 150 points a replica instead of 256.
 * Source: substratusai/kubeai, balance_chwbl.go.
 */
import { type Candidates, NONE } from '../../dispatch/candidates.ts';
import { HashRing, type RingMember } from '../../dispatch/hash-ring.ts';
import type { PickRequest } from '../../dispatch/policies/policy.ts';
import type { RulePolicy } from '../rule.ts';

const loadFactor = 1.25;

export class Chwbl implements RulePolicy {
  readonly #ring = new HashRing();

  setMembers(members: readonly RingMember[]): void {
    this.#ring.rebuild(members);
  }

  pick(candidates: Candidates, { key0, key1 }: PickRequest): number {
    const { length, inFlight } = candidates;
    let total = 1;
    for (let i = 0; i < length; i++) total += inFlight[i] as number;
    const bound = (loadFactor * total) / length;
    const at = this.#ring.locate(key0, key1);
    let owner = NONE;
    for (let steps = 0; steps < this.#ring.length; steps++) {
      const i = candidates.indexOf(this.#ring.rowAt(at, steps));
      if (i === NONE) continue;
      if (owner === NONE) owner = i;
      if ((inFlight[i] as number) + 1 <= bound) return i;
    }
    return owner;
  }
}

/**
 * prefix_affinity: equal keys go to the same replica, as long as it is not overloaded.
 *
 *   owner   of the key on a hash ring of 150 points a replica (hash-ring.ts)
 *   bound   ceil(loadFactor * (inFlight of all + 1) * weight / weight of all)   requests
 *   pick    the owner, if inFlight + 1 <= bound; else of the next two on the ring the one with fewer in
 *           flight, under the same bound; else fewest in flight among all
 *
 * Consistent hashing with bounded loads (Mirrokni et al., arXiv 1608.01350), with a second choice that
 * looks at loads: what a hot key spills does not all land on one neighbour, and still finds its
 * blocks again. The key is a session, else the first 64 characters of the prompt. No key: fewest in
 * flight. None: NONE.
 */
import { type Candidates, NONE } from '../candidates.ts';
import { HashRing, type RingMember } from '../hash-ring.ts';
import type { PickRequest, Policy } from './policy.ts';

/** KubeAI's, and near the knee of the trade-off in the paper. */
const loadFactor = 1.25;

export class PrefixAffinity implements Policy {
  readonly #ring = new HashRing();
  #start = 0;

  setMembers(members: readonly RingMember[]): void {
    this.#ring.rebuild(members);
  }

  pick(candidates: Candidates, { key0, key1 }: PickRequest): number {
    const { length, inFlight, weight } = candidates;
    if (length === 0) return NONE;
    if (key0 === 0 && key1 === 0) return this.#leastLoaded(candidates);
    let load = 1;
    let share = 0;
    for (let i = 0; i < length; i++) {
      load += inFlight[i] as number;
      share += weight[i] as number;
    }
    const perWeight = (loadFactor * load) / share;
    const hasRoom = (i: number): boolean =>
      (inFlight[i] as number) < Math.ceil(perWeight * (weight[i] as number));
    const owner = this.#next(candidates, key0, key1, NONE, NONE);
    if (owner === NONE) return this.#leastLoaded(candidates);
    if (hasRoom(owner)) return owner;
    const second = this.#next(candidates, key0, key1, owner, NONE);
    const third = this.#next(candidates, key0, key1, owner, second);
    const isThird = third !== NONE && (inFlight[third] as number) < (inFlight[second] as number);
    const spill = isThird ? third : second;
    return spill !== NONE && hasRoom(spill) ? spill : this.#leastLoaded(candidates);
  }

  /** The first candidate clockwise from the key that is neither of the two. */
  #next(candidates: Candidates, key0: number, key1: number, not: number, nor: number): number {
    const ring = this.#ring;
    const first = ring.locate(key0, key1);
    for (let steps = 0; steps < ring.length; steps++) {
      const i = candidates.indexOf(ring.rowAt(first, steps));
      if (i !== NONE && i !== not && i !== nor) return i;
    }
    return NONE;
  }

  #leastLoaded(candidates: Candidates): number {
    const best = candidates.leastLoadedFrom(this.#start < candidates.length ? this.#start : 0);
    this.#start = best + 1;
    return best;
  }
}

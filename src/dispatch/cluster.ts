/**
 * Cluster: the replicas of one model, and who of them may be picked. Pure.
 *
 * A candidate is routable, not paused, not ejected, below its limits, with no more than `holdTokens` to
 * prefill. Whatever changes one of these ends in refresh(), so `candidates` is current at a pick. Two things are the cluster's: how many may be ejected
 * at once, and panic: so few are left that breakers are not heeded.
 */
import { assert } from '../lib/assert.ts';
import type { Pressure } from './admission.ts';
import { BreakerState } from './breaker.ts';
import { Candidates, NONE } from './candidates.ts';
import { Filter, filterNames } from './choice.ts';
import { type OutlierRules, ownLimit } from './decisions.ts';
import type { RingMember } from './hash-ring.ts';
import type { ReplicaState } from './replica-state.ts';
import { SlowStart } from './slow-start.ts';

/** Whether a request that no candidate can take may hope for one. */
export const Outlook = { none: 0, paused: 1, full: 2 } as const;
export type Outlook = (typeof Outlook)[keyof typeof Outlook];

export interface ClusterRules {
  /** A replica with more prompt tokens to prefill is no candidate. */
  readonly holdTokens: number;
  readonly breaker: OutlierRules;
  readonly slowStartUs: number;
}

export class Cluster {
  readonly members: ReplicaState[] = [];
  readonly candidates: Candidates;
  /** Those that could take a request and are given only what they alone can serve: they drain, or weigh 0. */
  readonly reserved: Candidates;
  /** Members that are no candidates, by Filter; those left out for one request are counted at its pick. */
  readonly filtered = new Int32Array(filterNames.length);
  readonly slowStart: SlowStart;
  /** Of the last outlook() that said `paused`: when the first resumes, and the error it paused with. */
  pauseEndUs = 0;
  pauseError = 0;
  readonly #rules: ClusterRules;
  #panics = false;
  #nowUs = 0;

  constructor(rows: number, rules: ClusterRules) {
    this.candidates = new Candidates(rows);
    this.reserved = new Candidates(rows);
    this.slowStart = new SlowStart(rules.slowStartUs);
    this.#rules = rules;
  }

  add(replica: ReplicaState): void {
    this.members.push(replica);
  }

  remove(replica: ReplicaState): void {
    this.members.splice(this.members.indexOf(replica), 1);
    this.candidates.delete(replica.row);
    this.reserved.delete(replica.row);
    this.#setFilter(replica, NONE);
    this.slowStart.end(replica.row);
  }

  /** Members as the ring knows them: routable, whatever their load. */
  ringMembers(): RingMember[] {
    const routable = this.members.filter((replica) => replica.routable);
    return routable.map(({ row, facts: { identity } }) => ({ row, identity }));
  }

  /** A request has gone to the replica. */
  took(replica: ReplicaState, nowUs: number): void {
    this.#nowUs = nowUs;
    this.slowStart.took(replica.row);
    this.refresh(replica);
  }

  /** It is starting and has had its part for the moment: others are asked first. */
  hasEnough(row: number): boolean {
    const { slowStart, members } = this;
    return slowStart.isStarting(row) && slowStart.hasEnough(row, members.length, this.#nowUs);
  }

  /** Load or room of the replica have changed. */
  refresh(replica: ReplicaState): void {
    const { row } = replica;
    replica.derive();
    const filter = replica.whyNot(this.#rules.holdTokens, this.#panics);
    if (filter !== replica.filter) this.#setFilter(replica, filter);
    assert(filter !== NONE || replica.weight > 0, 'a candidate has a share');
    if (filter === NONE) this.candidates.set(row, replica);
    else this.candidates.delete(row);
    const isReserved =
      replica.isReserved && replica.whyNotNow(this.#rules.holdTokens, this.#panics) === NONE;
    if (isReserved) this.reserved.set(row, replica);
    else this.reserved.delete(row);
  }

  /** Whether the replica is fit has changed, which the others may feel. */
  refreshAll(replica: ReplicaState, nowUs: number): void {
    this.#nowUs = nowUs;
    this.refresh(replica);
    const panics = this.#isPanicking();
    if (this.#panics === panics) return;
    this.#panics = panics;
    for (const member of this.members) this.refresh(member);
  }

  /** One more may be left out for what it did. */
  get mayEject(): boolean {
    let active = 0;
    let ejected = 0;
    for (const { isActive, breaker, routable } of this.members) {
      if (isActive) active++;
      // One that is out for other reasons is no part of what breakers may take.
      if (routable && breaker.state !== BreakerState.closed) ejected++;
    }
    const most = Math.floor(this.#rules.breaker.maxEjected * active);
    return ejected < Math.max(1, most);
  }

  /**
   * Until the replicas could have shown the first token of `tokens` more prompt tokens, if the work they
   * have were spread evenly: a lower bound, microseconds. 0 without replicas.
   */
  waitUs(tokens: number): number {
    let workUs = 0;
    let prefillUs = 0;
    let count = 0;
    for (const replica of this.members) {
      if (!replica.routable) continue;
      workUs += replica.pendingTokens * replica.prefillUs;
      prefillUs += replica.prefillUs;
      count++;
    }
    return count === 0 ? 0 : (workUs + (tokens * prefillUs) / count) / count;
  }

  /** Routable replicas, and how full their caches are. Off the hot path. */
  pressure(waiting: number): Pressure {
    const pressure = { waiting, replicas: 0, contextTokens: 0, kvTokens: 0 };
    for (const replica of this.members) {
      if (!replica.routable) continue;
      pressure.replicas++;
      pressure.contextTokens += replica.contextTokens;
      pressure.kvTokens += replica.kvTokens;
    }
    return pressure;
  }

  /**
   * Off the hot path. none: no routable replica but excluded ones. paused: all others are paused,
   * ejected or at their rate limits. full: one of them will have room when it finishes something. `only`:
   * no other one can serve, and this one may although it is reserved; NONE: any can.
   */
  outlook(excluded: (row: number) => boolean, only: number = NONE): Outlook {
    let outlook: Outlook = Outlook.none;
    this.pauseEndUs = Number.POSITIVE_INFINITY;
    for (const replica of this.members) {
      const isAsked = only === NONE ? replica.routable : replica.row === only && replica.reachable;
      if (!isAsked || excluded(replica.row)) continue;
      const { pausedUntilUs, limitedUntilUs, breaker } = replica;
      const outUntilUs = this.#panics ? 0 : breaker.openUntilUs;
      const untilUs = Math.max(pausedUntilUs, limitedUntilUs, outUntilUs);
      if (untilUs === 0) return Outlook.full;
      outlook = Outlook.paused;
      if (untilUs >= this.pauseEndUs) continue;
      this.pauseEndUs = untilUs;
      this.pauseError = errorOf(replica, untilUs);
    }
    return outlook;
  }

  assertExact(): void {
    const filtered = this.filtered.subarray(0, Filter.noKvRoom).reduce((sum, n) => sum + n, 0);
    const isWhole = this.candidates.length + filtered === this.members.length;
    assert(isWhole, 'who is no candidate is filtered by one reason');
  }

  #isPanicking(): boolean {
    let active = 0;
    let fit = 0;
    for (const { isActive, breaker, routable } of this.members) {
      if (isActive) active++;
      if (routable && breaker.state === BreakerState.closed) fit++;
    }
    return fit < this.#rules.breaker.panicBelow * active;
  }

  #setFilter(replica: ReplicaState, filter: Filter | typeof NONE): void {
    const { filtered } = this;
    if (replica.filter !== NONE)
      filtered[replica.filter] = (filtered[replica.filter] as number) - 1;
    if (filter !== NONE) filtered[filter] = (filtered[filter] as number) + 1;
    replica.filter = filter;
  }
}

/** Why the replica takes nothing until then; 0: for what it did. */
function errorOf({ pausedUntilUs, pauseError, limitedUntilUs }: ReplicaState, untilUs: number) {
  if (untilUs === pausedUntilUs) return pauseError;
  return untilUs === limitedUntilUs ? ownLimit : 0;
}

/**
 * What the brain knows of one replica, and what keeps it from being picked. Pure.
 *
 * Membership (the row exists under this epoch), admin, health, breaker and pause are separate facts;
 * routable is derived: active, healthy, weight above 0. Limits count what is ours and are exact; a
 * policy sees what other clients have there as well (foreign-load.ts). A pause is what a replica asks
 * for that answers "busy": it never ends early, a shorter one does not cut a longer one.
 */
import { assert } from '../lib/assert.ts';
import type { BatchTerms } from './batches.ts';
import { Breaker, type BreakerRules } from './breaker.ts';
import { NONE, type ReplicaLoad } from './candidates.ts';
import { Filter } from './choice.ts';
import { ForeignLoad } from './foreign-load.ts';
import { RateLimit, type RateTerms } from './rate-limit.ts';

export interface ReplicaFacts {
  /** Another epoch is another replica: nothing that was counted before belongs to it. */
  readonly epoch: number;
  readonly model: number;
  readonly active: boolean;
  /** It is given nothing but what it alone can serve; absent: it is not there, or is active. */
  readonly draining?: boolean | undefined;
  readonly healthy: boolean;
  readonly maxInFlight: number;
  readonly weight: number;
  /** Hash of what names the replica; equal on every gateway. */
  readonly identity: number;
  /** Microseconds per prompt token of prefill, and per resident token and decode step. */
  readonly prefillUs: number;
  readonly residentUs: number;
  /** Tokens its KV cache holds; 0: what its engine reports, if it does. */
  readonly kvTokens: number;
  /** One bit for each adapter of the model that it has loaded, from adapter 1 on; absent: none. */
  readonly adapters?: Int32Array | undefined;
  /** The same of those that it loads when a request waits for them; absent: none. */
  readonly loadable?: Int32Array | undefined;
  /** Absent: it takes no batches. */
  readonly batching?: BatchTerms | undefined;
  /** Absent: it may be given what it takes. */
  readonly rate?: RateTerms | undefined;
}

const unused: ReplicaFacts = {
  ...{ epoch: 0, model: -1, active: false, healthy: false, maxInFlight: 0, weight: 0 },
  ...{ identity: 0, prefillUs: 0, residentUs: 0, kvTokens: 0 },
};

const hasBit = (bits: Int32Array | undefined, bit: number): boolean =>
  (((bits?.[bit >>> 5] ?? 0) >>> (bit & 31)) & 1) === 1;

/** An engine preempts what does not fit: some room is left for estimates that are off. */
const kvShare = 0.95;

export class ReplicaState implements ReplicaLoad {
  readonly row: number;
  readonly foreign = new ForeignLoad();
  readonly breaker: Breaker;
  facts = unused;
  routable = false;
  /** It answers; only those that nobody else can serve may ask it if it is not routable. */
  reachable = false;
  /** What keeps it from being a candidate; NONE for one. */
  filter: Filter | typeof NONE = NONE;
  /** Attempts of ours, and the prompt tokens they keep resident. */
  ownRequests = 0;
  ownTokens = 0;
  inFlight = 0;
  weight = 0;
  pendingTokens = 0;
  contextTokens = 0;
  roomTokens = 0;
  prefillUs = 0;
  residentUs = 0;
  /** Not picked before this time; 0: no pause. And the error it paused itself with. */
  pausedUntilUs = 0;
  pauseError = 0;
  /** Its rate limits allow nothing before this time; 0: they do. */
  limitedUntilUs = 0;
  readonly #rate = new RateLimit();
  /** Before this time it takes no batches. */
  batchesAtUs = 0;

  constructor(row: number, rules: BreakerRules) {
    this.row = row;
    this.breaker = new Breaker(rules);
  }

  get isActive(): boolean {
    return this.facts.active && this.facts.weight > 0;
  }

  /** It has not left: it serves what it has begun, and what it keeps. */
  get isMember(): boolean {
    return this.facts.active || this.facts.draining === true;
  }

  get isReserved(): boolean {
    return this.reachable && !this.routable;
  }

  /** Tokens its KV cache holds; 0: not known. */
  get kvTokens(): number {
    return this.facts.kvTokens || this.foreign.kvCapacity;
  }

  hasAdapter(adapter: number): boolean {
    return adapter === 0 || hasBit(this.facts.adapters, adapter - 1);
  }

  /** It has the adapter, or loads it when a request waits for it. */
  couldServe(adapter: number): boolean {
    return this.hasAdapter(adapter) || hasBit(this.facts.loadable, adapter - 1);
  }

  /** With `facts` it could not serve some adapter that it could load before. */
  losesAdapter({ adapters, loadable, active, weight }: ReplicaFacts): boolean {
    const { loadable: before } = this.facts;
    if (before === undefined) return false;
    if (this.isActive && !(active && weight > 0)) return before.some((word) => word !== 0);
    return before.some((word, i) => (word & ~((adapters?.[i] ?? 0) | (loadable?.[i] ?? 0))) !== 0);
  }

  set(facts: ReplicaFacts): void {
    if (this.facts.epoch !== facts.epoch) {
      this.ownRequests = this.ownTokens = this.pendingTokens = 0;
      this.pausedUntilUs = this.limitedUntilUs = this.batchesAtUs = 0;
      this.#rate.reset();
      this.foreign.forget();
      this.breaker.reset();
    }
    // Its probes have seen it come back: what it did before it went says nothing.
    else if (facts.healthy && !this.facts.healthy) this.breaker.reset();
    this.facts = facts;
    this.weight = facts.weight;
    this.prefillUs = facts.prefillUs;
    this.residentUs = facts.residentUs;
    this.routable = this.isActive && facts.healthy;
    this.reachable = this.isMember && facts.healthy;
  }

  add(requests: number, pendingTokens: number, contextTokens: number): void {
    this.ownRequests += requests;
    this.pendingTokens += pendingTokens;
    this.ownTokens += contextTokens;
    assert(this.ownRequests >= 0, 'what is released was taken');
    assert(this.pendingTokens >= 0, 'what is prefilled was pending');
    assert(this.ownTokens >= 0, 'what is released was resident');
  }

  /** A request of so many tokens counts in its rate limits. */
  limitBy(tokens: number, nowUs: number): void {
    const { rate } = this.facts;
    if (rate === undefined) return;
    this.#rate.took(rate, tokens, nowUs);
    this.#setLimited(rate, nowUs);
  }

  /** It came to so many more, or less. */
  correctLimit(tokens: number, nowUs: number): void {
    const { rate } = this.facts;
    if (rate === undefined || tokens === 0) return;
    this.#rate.corrected(rate, tokens, nowUs);
    this.#setLimited(rate, nowUs);
  }

  #setLimited(rate: RateTerms, nowUs: number): void {
    const freeAtUs = this.#rate.freeAtUs(rate);
    this.limitedUntilUs = freeAtUs > nowUs ? freeAtUs : 0;
  }

  /** Derives what a policy sees. */
  derive(): void {
    const { facts, ownRequests, ownTokens, foreign } = this;
    this.inFlight = ownRequests + foreign.requests;
    this.contextTokens = ownTokens + foreign.tokens;
    // With nothing of ours a replica takes anything: what does not fit there fits nowhere, and is its
    // to refuse. So what others have there can delay requests and never stop them.
    // Only a size that was configured limits; what prompts share is taken off in shared-blocks.ts.
    const kvTokens = ownRequests === 0 ? 0 : facts.kvTokens;
    this.roomTokens =
      kvTokens === 0 ? Number.POSITIVE_INFINITY : kvShare * kvTokens - this.contextTokens;
  }

  /** Why it is no candidate, its slow start aside. `panics`: too few are left to heed the breaker. */
  whyNot(holdTokens: number, panics: boolean): Filter | typeof NONE {
    return this.routable ? this.whyNotNow(holdTokens, panics) : Filter.notRoutable;
  }

  /** Why it takes no request at the moment, whoever may be given to it. */
  whyNotNow(holdTokens: number, panics: boolean): Filter | typeof NONE {
    if (this.pausedUntilUs !== 0) return Filter.paused;
    if (!panics && !this.breaker.allows) return Filter.ejected;
    if (this.limitedUntilUs !== 0) return Filter.limited;
    if (this.ownRequests >= this.facts.maxInFlight) return Filter.full;
    return this.pendingTokens > holdTokens ? Filter.held : NONE;
  }
}

/**
 * What a replica may be given by the rate limits that its owner has for it (a hosted provider, as a rule): two
 * token buckets (lib/gcra.ts). Pure.
 *
 * A request takes one request and the tokens it is expected to have; what it comes to is corrected when it is
 * over. A bucket that holds something lets any request through, and one that was overdrawn by it is waited
 * for: over time no more is given than the limits allow.
 */
import { taken } from '../lib/gcra.ts';

/** 0: no limit of that kind. */
export interface RateTerms {
  readonly requestsPerUs: number;
  readonly tokensPerUs: number;
  /** What a full bucket holds, as the time in which as much comes. */
  readonly burstUs: number;
}

export class RateLimit {
  #requestTat = 0;
  #tokenTat = 0;

  reset(): void {
    this.#requestTat = this.#tokenTat = 0;
  }

  /** A request of so many tokens goes to the replica. */
  took({ requestsPerUs, tokensPerUs }: RateTerms, tokens: number, nowUs: number): void {
    if (requestsPerUs > 0) this.#requestTat = taken(this.#requestTat, nowUs, 1, requestsPerUs);
    if (tokensPerUs > 0) this.#tokenTat = taken(this.#tokenTat, nowUs, tokens, tokensPerUs);
  }

  /** It came to so many tokens more, or less, than it was given. */
  corrected({ tokensPerUs }: RateTerms, tokens: number, nowUs: number): void {
    if (tokensPerUs > 0) this.#tokenTat = taken(this.#tokenTat, nowUs, tokens, tokensPerUs);
  }

  /** When the replica may be given the next request; in the past: now. */
  freeAtUs({ requestsPerUs, tokensPerUs, burstUs }: RateTerms): number {
    return Math.max(
      freeAtUs(this.#requestTat, requestsPerUs, burstUs),
      freeAtUs(this.#tokenTat, tokensPerUs, burstUs),
    );
  }
}

/** When a bucket, which can hold one unit at least, holds one. */
function freeAtUs(tat: number, ratePerUs: number, burstUs: number): number {
  if (ratePerUs === 0) return 0;
  const burst = Math.max(1, ratePerUs * burstUs);
  return tat - (burst - 1) / ratePerUs;
}

/**
 * Retry budget: one for all retries of the gateway, so that a failing fleet is not asked again and
 * again by everybody at once. Pure.
 *
 *   retries + hedges in flight <= max(floor, share * requests in flight)      requests
 *   hedges <= half of it, rounded up
 *
 * Hedges are for the taste of clients and have the smaller right: whatever they take, a failure finds the other half.
 * A request counts as a retry from the decision to try again until it ends, unless no replica has got
 * it yet; as a hedge while two replicas have it. The floor lets a gateway with few requests retry at all.
 */
import { assert } from '../lib/assert.ts';

export class RetryBudget {
  /** Requests that are being tried again. */
  retries = 0;
  /** Requests that two replicas have. */
  hedges = 0;
  readonly #share: number;
  readonly #floor: number;

  constructor(share: number, floor: number) {
    this.#share = share;
    this.#floor = floor;
  }

  /** Whether one more request may be tried again while `requests` are in flight, itself included. */
  allows(requests: number): boolean {
    return this.retries + this.hedges < Math.max(this.#floor, this.#share * requests);
  }

  /** Whether one more request may be given to two replicas at once. */
  allowsHedge(requests: number): boolean {
    const most = Math.max(this.#floor, this.#share * requests);
    return this.allows(requests) && 2 * this.hedges < most;
  }

  /** More fails than a calm fleet accounts for. */
  get hasDebt(): boolean {
    return this.retries > this.#floor;
  }

  take(): void {
    this.retries++;
  }

  release(): void {
    assert(this.retries > 0, 'what is released was taken');
    this.retries--;
  }
}

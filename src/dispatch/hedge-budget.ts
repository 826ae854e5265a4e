/**
 * Hedge budget: how many hedges nobody asked for, as a share of all requests. Pure.
 *
 *   credit += share      per request, at most creditMax
 *   credit -= 1          per hedge, which needs a whole one and reserve / waits more
 *
 * So hedges never exceed the share of the requests so far, and a long calm pays for no flood. Five of a
 * hundred requests are later than 95 %, more than any budget pays for: the reserve is kept from those
 * that are only a little late, for those that have waited many times as long.
 */
const creditMax = 10;
const reserve = 5;

export class HedgeBudget {
  #credit = 0;
  readonly #share: number;

  constructor(share: number) {
    this.#share = share;
  }

  /** For a request that has waited `waits` times as long as is late. */
  allows(waits: number): boolean {
    return this.#credit >= 1 + reserve / waits;
  }

  /** A request has started. */
  earn(): void {
    this.#credit = Math.min(creditMax, this.#credit + this.#share);
  }

  take(): void {
    this.#credit--;
  }
}

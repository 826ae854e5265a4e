/**
 * Hedge budget: how many hedges nobody asked for, as a share of all requests. Pure.
 *
 *   credit += share      per request, at most creditMax
 *   credit -= 1          per hedge, which needs a whole one
 *
 * So hedges never exceed the share of the requests so far, and a long calm pays for no flood.
 */
const creditMax = 10;

export class HedgeBudget {
  #credit = 0;
  readonly #share: number;

  constructor(share: number) {
    this.#share = share;
  }

  get allows(): boolean {
    return this.#credit >= 1;
  }

  /** A request has started. */
  earn(): void {
    this.#credit = Math.min(creditMax, this.#credit + this.#share);
  }

  take(): void {
    this.#credit--;
  }
}

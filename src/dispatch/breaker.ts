/**
 * The circuit breaker of one replica: whether what it did keeps it from being asked. Pure.
 *
 *   closed     asked as any other
 *   open       not asked for `openUs`
 *   halfOpen   one request at a time: its first token or good end closes, its failure opens again; after
 *              each `openUs` without either one more, because an answer may take minutes
 *
 *   window       opens when more than `failureRate` of the last `window` outcomes are failures, and
 *                there were as many (System B: 10, 0.5, 5 s)
 *   consecutive  opens after so many failures in a row (System A: 5, 30 s)
 *   quarantine   opens after one failure, closes by itself (System C: 15 s)
 *
 * Every change of state begins a term; what began in an earlier one says nothing about this one.
 */
export type BreakerMode = 'off' | 'window' | 'consecutive' | 'quarantine';

export interface BreakerRules {
  readonly mode: BreakerMode;
  /** Outcomes looked at. */
  readonly window: number;
  readonly failureRate: number;
  readonly consecutive: number;
  readonly openUs: number;
}

export const BreakerState = { closed: 0, open: 1, halfOpen: 2 } as const;
export type BreakerState = (typeof BreakerState)[keyof typeof BreakerState];

export class Breaker {
  state: BreakerState = BreakerState.closed;
  /** When an open one is half open. */
  openUntilUs = 0;
  /** When a half-open one may be tried by one more beside those that try it; 0: it is not tried. */
  moreAtUs = 0;
  term = 0;
  /** Attempts of this term that a half-open one has been given, and may have at a time. */
  #probes = 0;
  #probesMax = 1;
  readonly #rules: BreakerRules;
  /** The last outcomes, 1 for a failure; a ring. */
  readonly #outcomes: Uint8Array;
  #seen = 0;
  #failures = 0;
  #inRow = 0;

  constructor(rules: BreakerRules) {
    this.#rules = rules;
    this.#outcomes = new Uint8Array(rules.window);
  }

  /** It may be given a request. */
  get allows(): boolean {
    const { state } = this;
    return (
      state === BreakerState.closed ||
      (state === BreakerState.halfOpen && this.#probes < this.#probesMax)
    );
  }

  /** An attempt begins; it is of this term. */
  took(nowUs: number): void {
    if (this.state !== BreakerState.halfOpen) return;
    this.#probes++;
    this.moreAtUs = nowUs + this.#rules.openUs;
  }

  /** An attempt of `term` is over, whatever it came to: there may be room for another probe. */
  released(term: number): void {
    if (this.state !== BreakerState.halfOpen || term !== this.term || this.#probes === 0) return;
    this.#probes--;
    if (this.#probes === 0) this.moreAtUs = 0;
  }

  /** An attempt of `term` has shown a token or ended well. True when that has closed it. */
  succeeded(term: number): boolean {
    if (term !== this.term || this.state !== BreakerState.halfOpen) return false;
    this.#become(BreakerState.closed);
    return true;
  }

  /**
   * An attempt of `term` has ended well (`failed` false) or by the replica's doing. `mayOpen`: others can
   * do without it. True when the state has changed.
   */
  ended(term: number, failed: boolean, nowUs: number, mayOpen: boolean): boolean {
    if (this.#rules.mode === 'off' || term !== this.term) return false;
    if (this.state === BreakerState.halfOpen) {
      if (failed) this.#open(nowUs);
      else this.#become(BreakerState.closed);
      return true;
    }
    // What was sent to an open one in panic says nothing: it was not asked for its own sake.
    if (this.state === BreakerState.open) return false;
    this.#remember(failed);
    if (!failed || !mayOpen || !this.#isOver) return false;
    this.#open(nowUs);
    return true;
  }

  /** True when it may be given more from here on, because a time is over. */
  tick(nowUs: number): boolean {
    const { closed, halfOpen, open } = BreakerState;
    const isOpenOver = this.state === open && nowUs >= this.openUntilUs;
    if (isOpenOver) this.#become(this.#rules.mode === 'quarantine' ? closed : halfOpen);
    else if (this.moreAtUs === 0 || nowUs < this.moreAtUs) return false;
    else {
      this.#probesMax = this.#probes + 1;
      this.moreAtUs = 0;
    }
    return true;
  }

  /** It is another replica. */
  reset(): void {
    this.#become(BreakerState.closed);
  }

  get #isOver(): boolean {
    const { mode, window, failureRate, consecutive } = this.#rules;
    if (mode === 'quarantine') return true;
    if (mode === 'consecutive') return this.#inRow >= consecutive;
    return this.#seen >= window && this.#failures > failureRate * window;
  }

  #remember(failed: boolean): void {
    const at = this.#seen++ % this.#outcomes.length;
    const outcome = failed ? 1 : 0;
    this.#failures += outcome - (this.#outcomes[at] as number); // 0 before the first round is over
    this.#outcomes[at] = outcome;
    this.#inRow = failed ? this.#inRow + 1 : 0;
  }

  #open(nowUs: number): void {
    this.#become(BreakerState.open);
    this.openUntilUs = nowUs + this.#rules.openUs;
  }

  #become(state: BreakerState): void {
    this.state = state;
    this.term++;
    this.openUntilUs = this.moreAtUs = 0;
    this.#probes = 0;
    this.#probesMax = 1;
    this.#seen = this.#failures = this.#inRow = 0;
    this.#outcomes.fill(0);
  }
}

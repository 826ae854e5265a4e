/**
 * Hedges: whether and when a request that waits for its first token gets a second exchange beside the
 * first, on another replica. Pure; nothing is allocated per request.
 *
 * Asked for by the client: at once, or after the time it named. Automatic, for streams: when the first
 * token is later than 95 % of those of its length (first-tokens.ts), within `hedge.budget`, on a
 * replica that would be done with its prefill sooner than has been waited. Never on a replica that
 * somebody who waits could use (passing.ts), never beyond the retry budget, once a request.
 */
import type { Attempts } from './attempts.ts';
import { NONE } from './candidates.ts';
import { Filter } from './choice.ts';
import type { BrainConfig } from './decisions.ts';
import { FirstTokens } from './first-tokens.ts';
import type { Fleet } from './fleet.ts';
import { HedgeBudget } from './hedge-budget.ts';
import type { Lanes } from './lanes.ts';
import type { Passing } from './passing.ts';
import type { Placement } from './placement.ts';
import { HedgeState, type Requests } from './requests.ts';
import type { RetryBudget } from './retry-budget.ts';
import { SlotTimers } from './slot-timers.ts';

/** An automatic hedge that may not be is asked for again after twice the wait, at least so much later. */
const againUsMin = 1000;

export interface HedgeParts {
  readonly requests: Requests;
  readonly fleet: Fleet;
  readonly lanes: Lanes;
  readonly passing: Passing;
  readonly placement: Placement;
  readonly attempts: Attempts;
  readonly retryBudget: RetryBudget;
}

export class Hedges {
  readonly #parts: HedgeParts;
  readonly #automatic: boolean;
  readonly #budget: HedgeBudget;
  readonly #firstTokens: FirstTokens;
  readonly #timers: SlotTimers;
  /** When the first exchange of the current attempt began. */
  readonly #begunUs: Float64Array;
  #stopped = false;
  #asking = NONE;
  readonly #isOut = (row: number): boolean => {
    const { requests } = this.#parts;
    return row === requests.replica[this.#asking] || requests.hasFailed(this.#asking, row);
  };

  constructor({ slots, models, hedge }: BrainConfig, parts: HedgeParts) {
    this.#parts = parts;
    this.#automatic = hedge.automatic;
    this.#budget = new HedgeBudget(hedge.budget);
    this.#firstTokens = new FirstTokens(models.length);
    this.#timers = new SlotTimers(slots);
    this.#begunUs = new Float64Array(slots);
  }

  /** When the next hedge is due; Infinity for never. */
  get nextUs(): number {
    return this.#timers.nextUs;
  }

  /** An attempt has begun. */
  begin(slot: number, nowUs: number): void {
    const { attempt, hedge } = this.#parts.requests;
    if (attempt[slot] === 1) this.#budget.earn();
    this.#begunUs[slot] = nowUs;
    if (this.#stopped || hedge[slot] !== HedgeState.none) return;
    const delayUs = this.#delayUs(slot);
    if (delayUs !== Number.POSITIVE_INFINITY) this.#timers.set(slot, nowUs + delayUs);
  }

  /** It shows its first token or ends. */
  end(slot: number): void {
    if (this.#timers.has(slot)) this.#timers.clear(slot);
  }

  /** The exchange that answers has shown its first token after `us`; `wins`: as the hedge of another. */
  learn(slot: number, us: number, wins: boolean, nowUs: number): void {
    if (!this.#automatic) return;
    const { model, promptTokens, streams } = this.#parts.requests;
    if (streams[slot] === 0) return;
    const [row, tokens] = [model[slot] as number, promptTokens[slot] as number];
    this.#firstTokens.learn(row, tokens, us);
    // The first one would have been later still: without it the late ones would be forgotten.
    if (wins) this.#firstTokens.learn(row, tokens, nowUs - (this.#begunUs[slot] as number));
  }

  /** Starts the hedges that are due, as far as they may be. */
  expire(nowUs: number): void {
    while (this.#timers.nextUs <= nowUs) {
      const slot = this.#timers.first;
      this.#timers.clear(slot);
      const waitedUs = nowUs - (this.#begunUs[slot] as number);
      if (this.#isAllowed(slot, waitedUs) && this.#start(slot, nowUs)) continue;
      if (this.#isAsked(slot)) continue;
      this.#timers.set(slot, nowUs + Math.max(againUsMin, waitedUs));
    }
  }

  /** No more of them. */
  stop(): void {
    this.#stopped = true;
    for (let slot = this.#timers.first; slot !== NONE; slot = this.#timers.first) {
      this.#timers.clear(slot);
    }
  }

  #delayUs(slot: number): number {
    const { hedgeUs, streams, pin } = this.#parts.requests;
    if (pin[slot] !== NONE) return Number.POSITIVE_INFINITY;
    if (this.#isAsked(slot)) return hedgeUs[slot] as number;
    if (!this.#automatic || streams[slot] === 0) return Number.POSITIVE_INFINITY;
    return this.#lateUs(slot);
  }

  #isAsked(slot: number): boolean {
    return (this.#parts.requests.hedgeUs[slot] as number) >= 0;
  }

  #isAllowed(slot: number, waitedUs: number): boolean {
    const { requests, lanes, attempts, retryBudget } = this.#parts;
    if (requests.cancelled[slot] === 1) return false;
    if (!retryBudget.allowsHedge(attempts.running + lanes.retryWaiters)) return false;
    if (this.#isAsked(slot)) return true;
    return !retryBudget.hasDebt && this.#budget.allows(waitedUs / this.#lateUs(slot));
  }

  #lateUs(slot: number): number {
    const { model, promptTokens } = this.#parts.requests;
    return this.#firstTokens.lateUs(model[slot] as number, promptTokens[slot] as number);
  }

  #start(slot: number, nowUs: number): boolean {
    const { requests, fleet, passing, placement, attempts } = this.#parts;
    const isLeft = passing.holdForAll(requests.model[slot] as number);
    const row = isLeft ? this.#choose(slot, nowUs) : NONE;
    passing.end();
    if (row === NONE) return false;
    if (!this.#isAsked(slot)) {
      const { pendingTokens, prefillUs } = fleet.load(row);
      const aheadUs = prefillUs * (pendingTokens + placement.pendingTokens);
      const waitedUs = nowUs - (this.#begunUs[slot] as number);
      if (pendingTokens > 0 && aheadUs >= waitedUs) return false;
      this.#budget.take();
    }
    attempts.beginHedge(slot, row, nowUs);
    return true;
  }

  #choose(slot: number, nowUs: number): number {
    const { requests, fleet, placement } = this.#parts;
    this.#asking = slot;
    const allowed = fleet.candidatesWithout(requests.model[slot] as number, this.#isOut);
    if (allowed.length === 0) return NONE;
    const leftUs = (requests.deadlineUs[slot] as number) - nowUs;
    return placement.choose(slot, allowed, Filter.notForHedge, leftUs);
  }
}

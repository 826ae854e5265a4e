/**
 * Attempts: the requests that a replica is running, from the choice to the end. Pure.
 *
 * Whatever an attempt holds (its place on the replica, its tokens, the debt of its tenant) is taken in
 * begin() and given back in end(), which every attempt passes once. A hedge is a second exchange of the
 * same attempt and holds the same of its replica, from beginHedge() until one of the two is left.
 */
import { assert } from '../lib/assert.ts';
import {
  type DecisionSink,
  HedgeResult,
  type Release,
  RetryRule,
  type RunningAttempt,
} from './decisions.ts';
import type { Fleet } from './fleet.ts';
import type { Lanes } from './lanes.ts';
import type { Placement } from './placement.ts';
import type { Prefills } from './prefills.ts';
import { HedgeState, Phase, type Requests } from './requests.ts';
import type { RetryBudget } from './retry-budget.ts';

/** Pause of a busy replica that did not say how long: some engine steps. */
const pauseDefaultMs = 200;
/** A replica cannot ask to be left alone for longer. */
const pauseMaxMs = 60_000;

/** Members of a batch that failed are asked again: this bounds how often that doubles the work. */
const batchPauseUs = 1_000_000;

export interface AttemptParts {
  readonly requests: Requests;
  readonly fleet: Fleet;
  readonly lanes: Lanes;
  readonly placement: Placement;
  readonly prefills: Prefills;
  readonly retryBudget: RetryBudget;
}

export class Attempts {
  /** Running, ever started and ever released. */
  running = 0;
  dispatched = 0;
  released = 0;
  readonly #parts: AttemptParts;
  readonly #sink: DecisionSink;

  constructor(parts: AttemptParts, sink: DecisionSink) {
    this.#parts = parts;
    this.#sink = sink;
  }

  /** The request goes to `row`, as the placement has just chosen. */
  begin(slot: number, row: number, heldUs: number, nowUs: number): void {
    const { requests, fleet, lanes, placement, prefills } = this.#parts;
    const attempt = (requests.attempt[slot] as number) + 1;
    const epoch = fleet.epoch(row);
    this.#sink.placed(slot, attempt, heldUs, placement.choice);
    placement.commit(slot, row, slot);
    requests.term[slot] = fleet.term(row);
    fleet.take(row, placement, nowUs);
    requests.begin(slot, attempt, row, epoch, placement);
    requests.startedUs[slot] = nowUs;
    prefills.begin(slot, nowUs);
    lanes.charge(slot);
    this.running++;
    this.dispatched++;
    this.#sink.dispatch(slot, attempt, row, epoch, heldUs);
  }

  /** The attempt goes to `row` as well, as the placement has just chosen. */
  beginHedge(slot: number, row: number, nowUs: number): void {
    const { requests, fleet, placement, prefills, retryBudget } = this.#parts;
    const epoch = fleet.epoch(row);
    const place = requests.hedgeOf(slot);
    placement.commit(slot, row, place);
    requests.term[place] = fleet.term(row);
    this.#sink.hedge(slot, requests.attempt[slot] as number, row, epoch, placement.choice);
    fleet.take(row, placement, nowUs);
    requests.beginHedge(slot, row, epoch, placement);
    prefills.begin(place, nowUs);
    retryBudget.hedges++;
  }

  /** Of two exchanges the one that answers stays, or none does. True when one has ended. */
  decide(slot: number, byHedge: boolean): boolean {
    const { hedge, cancelled } = this.#parts.requests;
    if (hedge[slot] !== HedgeState.running) return false;
    const ofHedge = cancelled[slot] === 1 ? HedgeResult.cancelled : HedgeResult.lost;
    this.#leaveOne(slot, byHedge, byHedge ? HedgeResult.won : ofHedge);
    return true;
  }

  /** One of two exchanges has failed. False: there are not two. */
  drop(release: Release, nowUs: number): boolean {
    const { requests } = this.#parts;
    const { slot } = release;
    if (requests.hedge[slot] !== HedgeState.running) return false;
    const place = release.hedge ? requests.hedgeOf(slot) : slot;
    const row = requests.replica[place] as number;
    this.#judge(place, release, nowUs);
    requests.addFailed(slot, row);
    this.#sink.dropped(slot, row);
    this.#leaveOne(slot, !release.hedge, release.hedge ? HedgeResult.failed : HedgeResult.won);
    return true;
  }

  /** Takes over an attempt that runs already. */
  restore({ arrival, attempt, replica, epoch, hasToken, ...more }: RunningAttempt): void {
    const { requests, fleet, placement, retryBudget } = this.#parts;
    const { slot } = arrival;
    const promptTokens = placement.promptTokens(arrival);
    // What it had in its cache died with the predecessor: all of the prompt counts.
    const pendingTokens = hasToken || !arrival.streams ? 0 : promptTokens;
    requests.open(arrival, promptTokens, more.pastAttempts);
    const cost = { pendingTokens, contextTokens: promptTokens, outputTokens: 0 };
    requests.begin(slot, attempt, replica, epoch, cost);
    requests.term[slot] = fleet.term(replica);
    fleet.restore(replica, epoch, pendingTokens, promptTokens);
    placement.begin(slot, replica, epoch, slot);
    this.running++;
    this.dispatched++;
    if (more.hedge !== undefined) {
      const place = requests.hedgeOf(slot);
      requests.beginHedge(slot, more.hedge.replica, more.hedge.epoch, cost);
      requests.term[place] = fleet.term(more.hedge.replica);
      fleet.restore(more.hedge.replica, more.hedge.epoch, pendingTokens, promptTokens);
      placement.begin(slot, more.hedge.replica, more.hedge.epoch, place);
      retryBudget.hedges++;
    } else if (more.isHedgeUsed) requests.hedge[slot] = HedgeState.used;
  }

  /** Its first token is out. True when its replica has less to do than before, or is trusted again. */
  answered(slot: number, nowUs: number): boolean {
    const { requests, fleet, prefills } = this.#parts;
    const { term, replica, epoch } = requests;
    const before = term[slot] as number;
    const row = replica[slot] as number;
    term[slot] = fleet.answered(row, epoch[slot] as number, before, nowUs);
    return prefills.end(slot) || term[slot] !== before;
  }

  /** It ends, and what it came to is known: its replica is judged, costs are learnt. */
  conclude(release: Release, nowUs: number): void {
    const { requests, fleet, lanes, placement } = this.#parts;
    const { slot, retry } = release;
    this.decide(slot, release.hedge);
    this.#judge(slot, release, nowUs);
    if (retry === RetryRule.alone) {
      const row = requests.replica[slot] as number;
      fleet.pauseBatching(row, requests.epoch[slot] as number, nowUs + batchPauseUs);
    }
    placement.learn(slot, release);
    this.#correctLimit(slot, release, nowUs);
    lanes.settleAccount(slot, release.completionTokens);
    this.end(slot);
    if (release.continues) requests.hedge[slot] = HedgeState.used;
  }

  end(slot: number): void {
    const { requests } = this.#parts;
    const { phase, replica, hedge } = requests;
    assert(phase[slot] === Phase.running, 'only a running attempt ends');
    if (hedge[slot] === HedgeState.running) this.#leaveOne(slot, false, HedgeResult.cancelled);
    this.#endExchange(slot);
    this.running--;
    this.released++;
    phase[slot] = Phase.idle;
    this.#sink.attemptEnded(slot, replica[slot] as number);
  }

  /** Recounts them from the requests. */
  assertExact(): void {
    const running = this.#parts.requests.countRunning();
    assert(this.running === running);
    assert(this.dispatched - this.released === running, 'dispatched = released + in flight');
    assert(this.#parts.retryBudget.hedges === this.#parts.requests.countHedges());
  }

  /** One of two exchanges ends; the other, if it is the hedge, takes the place of the slot. */
  #leaveOne(slot: number, isHedgeLeft: boolean, result: HedgeResult): void {
    const { requests, placement, prefills, retryBudget } = this.#parts;
    this.#endExchange(isHedgeLeft ? slot : requests.hedgeOf(slot));
    requests.hedge[slot] = HedgeState.used;
    if (isHedgeLeft) {
      requests.moveHedge(slot);
      prefills.moveHedge(slot);
      placement.moveHedge(slot);
    }
    retryBudget.hedges--;
    this.#sink.hedgeEnded(slot, result);
  }

  #endExchange(place: number): void {
    const { requests, fleet, placement, prefills } = this.#parts;
    const { replica, epoch, term, contextTokens } = requests;
    prefills.end(place);
    placement.end(place);
    const tokens = contextTokens[place] as number;
    const row = replica[place] as number;
    fleet.release(row, epoch[place] as number, term[place] as number, tokens);
  }

  /** The rate limits of its replica count what it took, where that is known. */
  #correctLimit(slot: number, { promptTokens, completionTokens }: Release, nowUs: number): void {
    const { requests, fleet } = this.#parts;
    const { replica, epoch, contextTokens, outputTokens } = requests;
    if (promptTokens < 0) return;
    const expected = (contextTokens[slot] as number) + (outputTokens[slot] as number);
    const more = promptTokens + Math.max(0, completionTokens) - expected;
    fleet.cameTo(replica[slot] as number, epoch[slot] as number, more, nowUs);
  }

  #judge(place: number, release: Release, nowUs: number): void {
    const { requests, fleet } = this.#parts;
    const { verdict, busy, retryAfterMs, error } = release;
    const row = requests.replica[place] as number;
    const epoch = requests.epoch[place] as number;
    fleet.judge(row, epoch, requests.term[place] as number, verdict, nowUs);
    if (!busy) return;
    const pauseMs = Math.min(retryAfterMs || pauseDefaultMs, pauseMaxMs);
    fleet.pause(row, epoch, nowUs + pauseMs * 1000, error);
  }
}

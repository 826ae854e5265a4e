/**
 * Attempts: the requests that a replica is running, from the choice to the end. Pure.
 *
 * Whatever an attempt holds (its place on the replica, its tokens, the debt of its tenant) is taken in
 * begin() and given back in end(), which every attempt passes once.
 */
import { assert } from '../lib/assert.ts';
import { type DecisionSink, type Release, RetryRule, type RunningAttempt } from './decisions.ts';
import type { Fleet } from './fleet.ts';
import type { Lanes } from './lanes.ts';
import type { Placement } from './placement.ts';
import type { Prefills } from './prefills.ts';
import { Phase, type Requests } from './requests.ts';

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
    placement.commit(slot, row);
    requests.term[slot] = fleet.term(row);
    fleet.take(row, placement.pendingTokens, placement.contextTokens, nowUs);
    requests.begin(slot, attempt, row, epoch, placement);
    prefills.begin(slot, nowUs);
    lanes.charge(slot);
    this.running++;
    this.dispatched++;
    this.#sink.dispatch(slot, attempt, row, epoch, heldUs);
  }

  /** Takes over an attempt that runs already. */
  restore({ arrival, attempt, replica, epoch, hasToken }: RunningAttempt): void {
    const { requests, fleet, placement } = this.#parts;
    const { slot } = arrival;
    const promptTokens = placement.promptTokens(arrival);
    // What it had in its cache died with the predecessor: all of the prompt counts.
    const pendingTokens = hasToken || !arrival.streams ? 0 : promptTokens;
    requests.open(arrival, promptTokens);
    const cost = { pendingTokens, contextTokens: promptTokens, outputTokens: 0 };
    requests.begin(slot, attempt, replica, epoch, cost);
    requests.term[slot] = fleet.term(replica);
    fleet.restore(replica, epoch, pendingTokens, promptTokens);
    placement.begin(slot, replica, epoch);
    this.running++;
    this.dispatched++;
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
    const { slot, verdict, busy, retry, retryAfterMs, error } = release;
    const row = requests.replica[slot] as number;
    const epoch = requests.epoch[slot] as number;
    fleet.judge(row, epoch, requests.term[slot] as number, verdict, nowUs);
    if (busy) {
      const pauseMs = Math.min(retryAfterMs || pauseDefaultMs, pauseMaxMs);
      fleet.pause(row, epoch, nowUs + pauseMs * 1000, error);
    }
    if (retry === RetryRule.alone) fleet.pauseBatching(row, epoch, nowUs + batchPauseUs);
    placement.learn(slot, release);
    lanes.settleAccount(slot, release.completionTokens);
    this.end(slot);
  }

  end(slot: number): void {
    const { requests, fleet, placement, prefills } = this.#parts;
    const { phase, replica, epoch, term, contextTokens } = requests;
    assert(phase[slot] === Phase.running, 'only a running attempt ends');
    const row = replica[slot] as number;
    prefills.end(slot);
    placement.end(slot);
    const tokens = contextTokens[slot] as number;
    fleet.release(row, epoch[slot] as number, term[slot] as number, tokens);
    this.running--;
    this.released++;
    phase[slot] = Phase.idle;
    this.#sink.attemptEnded(slot, row);
  }

  /** Recounts them from the requests. */
  assertExact(): void {
    const running = this.#parts.requests.countRunning();
    assert(this.running === running);
    assert(this.dispatched - this.released === running, 'dispatched = released + in flight');
  }
}

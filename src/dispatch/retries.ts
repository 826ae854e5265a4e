/**
 * Retries: whether a request whose attempt failed is tried again. Pure.
 *
 * On another replica, or on the same when nothing of the request was sent; within the attempts of the
 * request and the budget of the gateway (retry-budget.ts). `Refusal.busy` is for a fleet that asked to
 * be left alone for longer than a request should wait.
 */
import { assert } from '../lib/assert.ts';
import { NONE } from './candidates.ts';
import { Outlook } from './cluster.ts';
import {
  type BrainConfig,
  Refusal,
  type Release,
  RetryRule,
  type RunningAttempt,
} from './decisions.ts';
import type { Fleet } from './fleet.ts';
import type { Pins } from './pins.ts';
import { Phase, type Requests } from './requests.ts';
import { RetryBudget } from './retry-budget.ts';

/** A pause shorter than this is waited for; to send the client away would cost it more. */
const pauseWaitedForUs = 250_000;

/** The budget bounds work that is done again; a request that was not sent, or not read, has done none. */
const needsBudget = ({ retry }: Release): boolean =>
  retry !== RetryRule.anywhere && retry !== RetryRule.unserved;

export class Retries {
  readonly budget: RetryBudget;
  readonly #requests: Requests;
  readonly #fleet: Fleet;
  readonly #pins: Pins;
  readonly #attemptsMax: number;
  /** The slot that the two below are asked about. */
  #asking = NONE;
  readonly #hasFailed = (row: number): boolean => this.#requests.hasFailed(this.#asking, row);
  readonly #isExcluded = (row: number): boolean =>
    this.#hasFailed(row) ||
    !this.#fleet.couldServe(row, this.#requests.adapter[this.#asking] as number);

  constructor({ retry }: BrainConfig, requests: Requests, fleet: Fleet, pins: Pins) {
    this.budget = new RetryBudget(retry.budget, retry.budgetMin);
    this.#requests = requests;
    this.#fleet = fleet;
    this.#pins = pins;
    this.#attemptsMax = retry.maxAttempts;
  }

  /** Tells which replicas have failed the request, or neither have nor load its adapter; valid until the next question. */
  excludedOf(slot: number): (row: number) => boolean {
    this.#asking = slot;
    return this.#isExcluded;
  }

  /** Takes over a running request: what its earlier attempts have used up. */
  restore({ arrival: { slot }, attempt, pastAttempts, failed }: RunningAttempt): void {
    for (const replica of [...failed].reverse()) this.#requests.addFailed(slot, replica);
    if (attempt - pastAttempts <= 1) return; // the first one at a model is no retry
    this.#requests.retried[slot] = 1;
    this.budget.take();
  }

  /** The request is over: its part of the budget is free. */
  close(slot: number): void {
    const { retried } = this.#requests;
    if (retried[slot] === 1) this.budget.release();
    retried[slot] = 0;
  }

  /** Tells which replicas have failed the request; valid until the next question. */
  failersOf(slot: number): (row: number) => boolean {
    this.#asking = slot;
    return this.#hasFailed;
  }

  /** All of the last outlook are paused, and not just for a moment. */
  isPauseLong(model: number, nowUs: number): boolean {
    return this.#fleet.cluster(model).pauseEndUs - nowUs > pauseWaitedForUs;
  }

  /**
   * Why the request is not tried again after `release` of `replica`; NONE when it is, and then it is
   * counted. `inFlight`: requests that run or wait to be tried again, itself included.
   */
  whyNot(
    release: Release,
    replica: number,
    inFlight: number,
    nowUs: number,
  ): Refusal | typeof NONE {
    const { slot } = release;
    const { model: models, attempt, pastAttempts, retried } = this.#requests;
    if (release.retry === RetryRule.never) return Refusal.failed;
    if (release.retry === RetryRule.otherModel) return Refusal.tooLong;
    if (release.retry === RetryRule.refused) return Refusal.refused;
    if (release.retry === RetryRule.unsure) return Refusal.unsure;
    const model = models[slot] as number;
    if (release.retry === RetryRule.alone) {
      pastAttempts[slot] = (pastAttempts[slot] as number) + 1;
      const hasReplica = this.#pins.outlook(slot, this.excludedOf(slot)) !== Outlook.none;
      return hasReplica ? NONE : Refusal.failed;
    }
    if (release.retry !== RetryRule.again) this.#requests.addFailed(slot, replica);
    const outlook = this.#outlookAfterFailure(slot, release.retry);
    if (outlook === Outlook.paused && this.isPauseLong(model, nowUs)) return Refusal.busy;
    if (outlook === Outlook.none) {
      return release.busy && this.#areAllPaused(slot) ? Refusal.busy : Refusal.failed;
    }
    const attempts = (attempt[slot] as number) - (pastAttempts[slot] as number);
    if (attempts >= this.#attemptsMax) return Refusal.failed;
    if (retried[slot] === 1 || !needsBudget(release)) return NONE;
    if (!this.budget.allows(inFlight)) return Refusal.failed;
    this.budget.take();
    retried[slot] = 1;
    return NONE;
  }

  /** Recounts the budget from the requests. */
  assertExact(): void {
    const { phase, retried } = this.#requests;
    let retries = 0;
    for (let slot = 0; slot < phase.length; slot++) {
      if (phase[slot] !== Phase.idle) retries += retried[slot] as number;
    }
    assert(this.budget.retries === retries);
  }

  /** What there is besides the replicas that failed the request; they count when nothing was sent. */
  #outlookAfterFailure(slot: number, retry: RetryRule): Outlook {
    const outlook = this.#pins.outlook(slot, this.excludedOf(slot));
    if (outlook !== Outlook.none || retry !== RetryRule.anywhere) return outlook;
    this.#requests.forgiveAll(slot);
    return this.#pins.outlook(slot, this.#isExcluded);
  }

  #areAllPaused(slot: number): boolean {
    this.#requests.forgiveAll(slot);
    return this.#pins.outlook(slot, this.excludedOf(slot)) === Outlook.paused;
  }
}

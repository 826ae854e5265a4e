/**
 * The brain: every routing, queueing, retry and refusal decision. Pure: events and a time in,
 * decisions out through a DecisionSink; nothing is allocated per request.
 *
 * Waking is level-triggered: after every event that can make room, a lane (lanes.ts) gives out all
 * the room there is, so there is no permit to bank or to lose. Waiters stay when the last replica
 * goes down, until it is back or their wait is over; who arrives meanwhile is refused at once.
 * Each attempt is released once, whoever comes first; later events about it change nothing.
 */
import { assert } from '../lib/assert.ts';
import { createPrng } from '../lib/prng.ts';
import { type Candidates, NONE } from './candidates.ts';
import {
  type BrainConfig,
  type DecisionSink,
  Refusal,
  type Release,
  RetryRule,
  type RunningAttempt,
} from './decisions.ts';
import { Fleet, Outlook, type ReplicaFacts } from './fleet.ts';
import { Lanes } from './lanes.ts';
import type { Policy } from './policies/policy.ts';
import { policyFactory } from './policies/registry.ts';
import { Phase, Requests } from './requests.ts';
import { RetryBudget } from './retry-budget.ts';

/** A pause shorter than this is waited for; to send the client away would cost it more. */
const pauseWaitedForUs = 250_000;
/** Pause of a busy replica that did not say how long: some engine steps. */
const pauseDefaultMs = 200;
/** A replica cannot ask to be left alone for longer. */
const pauseMaxMs = 60_000;

/** The budget bounds work that is done again; a request that was never sent has done none. */
const needsBudget = (release: Release): boolean => release.retry !== RetryRule.anywhere;

export class Brain {
  /** Attempts running, attempts ever started and ever released. */
  running = 0;
  dispatched = 0;
  released = 0;
  readonly #fleet: Fleet;
  readonly #requests: Requests;
  readonly #lanes: Lanes;
  readonly #policies: readonly Policy[];
  readonly #budget: RetryBudget;
  readonly #sink: DecisionSink;
  readonly #queueMax: number;
  readonly #attemptsMax: number;
  #stopping = false;
  #nowUs = 0;
  /** The slot whose failed replicas the next two functions leave out. */
  #asking = NONE;
  readonly #excluded = (row: number): boolean => this.#requests.hasFailed(this.#asking, row);
  readonly #resumed = (model: number): void => this.#pump(model);

  constructor(config: BrainConfig, sink: DecisionSink) {
    this.#sink = sink;
    this.#queueMax = config.queueMax;
    this.#attemptsMax = config.retry.maxAttempts;
    this.#fleet = new Fleet(config.replicaRows, config.policies.length);
    this.#requests = new Requests(config.slots);
    this.#lanes = new Lanes(
      this.#requests,
      config.slots,
      config.policies.length,
      config.queueTimeoutMs * 1000,
    );
    this.#budget = new RetryBudget(config.retry.budget, config.retry.budgetMin);
    this.#policies = config.policies.map((name, model) => {
      const factory = policyFactory(name);
      assert(factory !== undefined, `policy ${name} is known`);
      return factory(createPrng(config.seed + model));
    });
  }

  /** Requests of the model that wait for a replica. */
  queued(model: number): number {
    return this.#lanes.depth(model);
  }

  inFlight(replica: number): number {
    return this.#fleet.inFlight(replica);
  }

  /** When tick() has something to do; Infinity for never. */
  get nextTimerUs(): number {
    return Math.min(this.#lanes.nextUs, this.#fleet.nextResumeUs);
  }

  /** The request the brain knows under this slot; meaningful while it runs or waits. */
  generation(slot: number): number {
    return this.#requests.generation[slot] as number;
  }

  /** The attempt that runs under this slot; NONE when none does. */
  runningAttempt(slot: number): number {
    const { phase, attempt } = this.#requests;
    return phase[slot] === Phase.running ? (attempt[slot] as number) : NONE;
  }

  /** A request. False: it is known already, and nothing changes. */
  arrive(
    slot: number,
    generation: number,
    model: number,
    publishedUs: number,
    deadlineUs: number,
    nowUs: number,
  ): boolean {
    const requests = this.#requests;
    if (requests.phase[slot] !== Phase.idle) {
      if (requests.generation[slot] === generation) return false;
      // Its last request has ended and the news of it is still on its way: the room is given out now.
      this.#nowUs = nowUs;
      this.#endAttempt(slot);
      this.#close(slot);
      this.#pump(requests.model[slot] as number);
    }
    this.#nowUs = nowUs;
    requests.open(slot, generation, model, publishedUs, deadlineUs);
    const candidates = this.#fleet.candidates(model);
    if (this.#stopping) this.#refuse(slot, Refusal.stopping);
    else if (nowUs >= deadlineUs) this.#refuse(slot, Refusal.deadline);
    else if (candidates.length === 0) this.#admit(slot, model);
    else {
      assert(this.#lanes.lane(model).waiting.length === 0, 'nobody waits while there is room');
      this.#dispatch(slot, candidates, 0);
    }
    return true;
  }

  /** An attempt has ended. False: it had ended before, or is another request's; nothing changes. */
  release(release: Release, nowUs: number): boolean {
    const { slot } = release;
    const requests = this.#requests;
    if (!requests.isRunning(slot, release.generation, release.attempt)) return false;
    this.#nowUs = nowUs;
    const replica = requests.replica[slot] as number;
    const model = requests.model[slot] as number;
    if (release.busy) {
      const pauseMs = Math.min(release.retryAfterMs || pauseDefaultMs, pauseMaxMs);
      const epoch = requests.epoch[slot] as number;
      this.#fleet.pause(replica, epoch, nowUs + pauseMs * 1000, release.error);
    }
    this.#endAttempt(slot);
    if (release.settled) this.#close(slot);
    else this.#decideRetry(slot, replica, release);
    this.#pump(model);
    return true;
  }

  /** The client has left. False: the request is not ours any more. */
  cancel(slot: number, generation: number, nowUs: number): boolean {
    const requests = this.#requests;
    if (requests.phase[slot] === Phase.idle || requests.generation[slot] !== generation)
      return false;
    this.#nowUs = nowUs;
    if (requests.phase[slot] !== Phase.running) {
      this.#lanes.leave(slot, nowUs);
      this.#refuse(slot, Refusal.clientGone);
    } else if (requests.cancelled[slot] === 0) {
      requests.cancelled[slot] = 1;
      this.#sink.abort(slot);
    }
    return true;
  }

  /** Joins, leaves, drains, health and limits. */
  updateReplica(row: number, facts: ReplicaFacts, nowUs: number): void {
    this.#nowUs = nowUs;
    this.#fleet.update(row, facts);
    if (facts.model >= 0 && facts.model < this.#policies.length) this.#pump(facts.model);
  }

  /** Ends the pauses and waits that are over. */
  tick(nowUs: number): void {
    this.#nowUs = nowUs;
    this.#expireWaits();
    this.#fleet.resume(nowUs, this.#resumed);
  }

  /** Refuses what waits and whatever arrives from here on; what runs is ended by the forwarders. */
  stop(nowUs: number): void {
    this.#nowUs = nowUs;
    this.#stopping = true;
    for (let slot = this.#lanes.first; slot !== NONE; slot = this.#lanes.first) {
      this.#lanes.leave(slot, nowUs);
      this.#refuse(slot, Refusal.stopping);
    }
  }

  /** Takes over a running attempt. Before the first event, after the replicas are known. */
  restore(attempt: RunningAttempt): void {
    const { slot, replica, epoch } = attempt;
    const requests = this.#requests;
    const { generation, model, publishedUs, deadlineUs } = attempt;
    requests.open(slot, generation, model, publishedUs, deadlineUs);
    requests.phase[slot] = Phase.running;
    requests.attempt[slot] = attempt.attempt;
    requests.replica[slot] = replica;
    requests.epoch[slot] = epoch;
    for (const failed of [...attempt.failed].reverse()) requests.addFailed(slot, failed);
    if (attempt.attempt > 1) {
      requests.retried[slot] = 1;
      this.#budget.take();
    }
    this.#fleet.restore(replica, epoch);
    this.running++;
    this.dispatched++;
  }

  /** Recounts everything from the requests. `perReplica`: scratch of one element per row. */
  assertExact(perReplica: Int32Array): void {
    const { phase, replica, epoch, retried } = this.#requests;
    perReplica.fill(0);
    let running = 0;
    let retries = 0;
    for (let slot = 0; slot < phase.length; slot++) {
      retries += phase[slot] === Phase.idle ? 0 : (retried[slot] as number);
      if (phase[slot] !== Phase.running) continue;
      running++;
      const row = replica[slot] as number;
      if (this.#fleet.epoch(row) === epoch[slot]) perReplica[row] = (perReplica[row] as number) + 1;
    }
    for (let row = 0; row < this.#fleet.rows; row++) {
      assert(this.#fleet.inFlight(row) === perReplica[row], 'in-flight is what the requests hold');
    }
    assert(this.running === running);
    assert(this.dispatched - this.released === running, 'dispatched = released + in flight');
    assert(this.#budget.retries === retries);
  }

  /** Queues a request that found no room, or refuses it. */
  #admit(slot: number, model: number): void {
    this.#asking = slot;
    const outlook = this.#fleet.outlook(model, this.#excluded);
    if (outlook === Outlook.none) this.#refuse(slot, Refusal.noReplica);
    else if (outlook === Outlook.paused && this.#isPauseLong()) this.#refuse(slot, Refusal.busy);
    else if (this.queued(model) >= this.#queueMax) this.#refuse(slot, Refusal.queueFull);
    else this.#lanes.enter(slot, Phase.waiting);
  }

  #decideRetry(slot: number, replica: number, release: Release): void {
    const requests = this.#requests;
    requests.lastError[slot] = release.error;
    const refusal = this.#whyNotAgain(slot, replica, release);
    if (refusal !== NONE) {
      this.#refuse(slot, refusal);
      return;
    }
    if (requests.retried[slot] === 0 && needsBudget(release)) {
      this.#budget.take();
      requests.retried[slot] = 1;
    }
    this.#sink.retry(slot, replica);
    requests.waitingSinceUs[slot] = this.#nowUs;
    this.#lanes.enter(slot, Phase.retrying);
  }

  /** Why the request is not tried again after `release`; NONE when it is. */
  #whyNotAgain(slot: number, replica: number, release: Release): Refusal | typeof NONE {
    const { model: models, attempt, cancelled, deadlineUs, retried } = this.#requests;
    if (cancelled[slot] === 1) return Refusal.clientGone;
    if (this.#stopping) return Refusal.stopping;
    if (this.#nowUs >= (deadlineUs[slot] as number)) return Refusal.deadline;
    if (release.retry === RetryRule.never) return Refusal.failed;
    const model = models[slot] as number;
    this.#requests.addFailed(slot, replica);
    const outlook = this.#outlookAfterFailure(slot, model, release.retry);
    if (outlook === Outlook.paused && this.#isPauseLong()) return Refusal.busy;
    if (outlook === Outlook.none) {
      return release.busy && this.#areAllPaused(slot, model) ? Refusal.busy : Refusal.failed;
    }
    if ((attempt[slot] as number) >= this.#attemptsMax) return Refusal.failed;
    if (retried[slot] === 1 || !needsBudget(release)) return NONE;
    const requestsInFlight = this.running + this.#lanes.retryWaiters + 1;
    return this.#budget.allows(requestsInFlight) ? NONE : Refusal.failed;
  }

  /** What there is besides the replicas that failed the request; they count when nothing was sent. */
  #outlookAfterFailure(slot: number, model: number, retry: RetryRule): Outlook {
    this.#asking = slot;
    const outlook = this.#fleet.outlook(model, this.#excluded);
    if (outlook !== Outlook.none || retry !== RetryRule.anywhere) return outlook;
    this.#requests.forgiveAll(slot);
    return this.#fleet.outlook(model, this.#excluded);
  }

  #areAllPaused(slot: number, model: number): boolean {
    this.#requests.forgiveAll(slot);
    return this.#fleet.outlook(model, this.#excluded) === Outlook.paused;
  }

  #isPauseLong(): boolean {
    return this.#fleet.pauseEndUs - this.#nowUs > pauseWaitedForUs;
  }

  #refuse(slot: number, refusal: Refusal): void {
    this.#close(slot);
    if (refusal === Refusal.busy) {
      // The outlook that led here said `paused`: its first replica to resume is what to wait for.
      const waitMs = Math.max(1, Math.ceil((this.#fleet.pauseEndUs - this.#nowUs) / 1000));
      this.#sink.refuse(slot, refusal, this.#fleet.pauseError, waitMs);
    } else {
      const error = refusal === Refusal.failed ? (this.#requests.lastError[slot] as number) : 0;
      this.#sink.refuse(slot, refusal, error, 0);
    }
  }

  /** The request is over for the brain. */
  #close(slot: number): void {
    const { phase, retried } = this.#requests;
    assert(phase[slot] === Phase.idle, 'it neither waits nor runs');
    if (retried[slot] === 1) this.#budget.release();
    retried[slot] = 0;
  }

  #endAttempt(slot: number): void {
    const { phase, replica, epoch } = this.#requests;
    assert(phase[slot] === Phase.running, 'only a running attempt ends');
    const row = replica[slot] as number;
    this.#fleet.release(row, epoch[slot] as number);
    this.running--;
    this.released++;
    phase[slot] = Phase.idle;
    this.#sink.attemptEnded(slot, row);
  }

  #expireWaits(): void {
    const { phase, deadlineUs } = this.#requests;
    while (this.#lanes.nextUs <= this.#nowUs) {
      const slot = this.#lanes.first;
      const isRetry = phase[slot] === Phase.retrying;
      this.#lanes.leave(slot, this.#nowUs);
      if (this.#nowUs >= (deadlineUs[slot] as number)) this.#refuse(slot, Refusal.deadline);
      else this.#refuse(slot, isRetry ? Refusal.failed : Refusal.queueWaitOver);
    }
  }

  /** Gives out all the room that the model's replicas have. */
  #pump(model: number): void {
    const candidates = this.#fleet.candidates(model);
    if (candidates.length === 0) return;
    // A thread that was late must not start what should have been refused already.
    this.#expireWaits();
    const { retrying, waiting } = this.#lanes.lane(model);
    let slot = retrying.head;
    while (slot !== NONE && candidates.length > 0) {
      const next = retrying.after(slot);
      this.#asking = slot;
      const allowed = this.#fleet.candidatesWithout(model, this.#excluded);
      if (allowed.length > 0) this.#dispatch(slot, allowed, this.#lanes.leave(slot, this.#nowUs));
      slot = next;
    }
    while (waiting.head !== NONE && candidates.length > 0) {
      const head = waiting.head;
      this.#dispatch(head, candidates, this.#lanes.leave(head, this.#nowUs));
    }
  }

  #dispatch(slot: number, candidates: Candidates, heldUs: number): void {
    const requests = this.#requests;
    const policy = this.#policies[requests.model[slot] as number] as Policy;
    const row = candidates.row[policy.pick(candidates)];
    assert(row !== undefined, 'a policy picks one of its candidates');
    const attempt = (requests.attempt[slot] as number) + 1;
    const epoch = this.#fleet.epoch(row);
    this.#fleet.take(row);
    requests.phase[slot] = Phase.running;
    requests.attempt[slot] = attempt;
    requests.replica[slot] = row;
    requests.epoch[slot] = epoch;
    this.running++;
    this.dispatched++;
    this.#sink.dispatch(slot, attempt, row, epoch, heldUs);
  }
}

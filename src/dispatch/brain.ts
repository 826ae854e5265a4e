/**
 * The brain: every routing, queueing, retry and refusal decision. Pure: events and a time in,
 * decisions out through a DecisionSink; nothing is allocated per request.
 *
 * Waking is level-triggered: after every event that can make room, a lane (lanes.ts) gives out all
 * the room there is, so there is no permit to bank or to lose. Waiters stay when the last replica
 * goes down, until it is back or their wait is over; who arrives meanwhile is refused at once.
 * Each attempt is released once, whoever comes first; later events about it change nothing.
 */
import { createPrng } from '../lib/prng.ts';
import type { Arrival } from './arrival.ts';
import { Attempts } from './attempts.ts';
import { Batching } from './batching.ts';
import { type Candidates, NONE } from './candidates.ts';
import { Filter } from './choice.ts';
import {
  type BrainConfig,
  type DecisionSink,
  type FirstToken,
  Refusal,
  type Release,
  RetryRule,
  type RunningAttempt,
} from './decisions.ts';
import { Door } from './door.ts';
import { Fleet } from './fleet.ts';
import type { EngineReport } from './foreign-load.ts';
import { Hedges } from './hedges.ts';
import { Lanes } from './lanes.ts';
import { Passing } from './passing.ts';
import { Placement } from './placement.ts';
import { Prefills } from './prefills.ts';
import { Quotas, type QuotasParts, WAITS } from './quotas.ts';
import { Refusing } from './refusing.ts';
import type { ReplicaFacts } from './replica-state.ts';
import { Phase, Requests } from './requests.ts';
import { Retries } from './retries.ts';

export class Brain {
  readonly #fleet: Fleet;
  readonly #requests: Requests;
  readonly #lanes: Lanes;
  readonly #passing: Passing;
  readonly #placement: Placement;
  readonly #prefills: Prefills;
  readonly #attempts: Attempts;
  readonly #door: Door;
  readonly #batching: Batching;
  readonly #models: readonly number[];
  readonly #retries: Retries;
  readonly #refusing: Refusing;
  readonly #hedges: Hedges;
  readonly quotas: Quotas;
  readonly #sink: DecisionSink;
  #stopping = false;
  #nowUs = 0;
  readonly #membersChanged = (model: number): void => this.#placement.setMembers(model);
  readonly #resumed = (model: number): void => this.#pump(model);

  constructor(config: BrainConfig, sink: DecisionSink) {
    const { models, slots } = config;
    this.#sink = sink;
    this.#fleet = new Fleet(config);
    this.#requests = new Requests(slots);
    this.#lanes = new Lanes(this.#requests, config, (slot) => this.#placement.cachedTokens(slot));
    this.#passing = new Passing(this.#fleet);
    this.#placement = new Placement(config, this.#requests, this.#fleet, this.#passing);
    this.#prefills = new Prefills(slots, this.#requests, this.#fleet);
    this.#retries = new Retries(config, this.#requests, this.#fleet);
    const door = { retries: this.#retries, random: createPrng(config.seed) };
    const parts = { requests: this.#requests, fleet: this.#fleet, lanes: this.#lanes };
    const choosing = { ...parts, placement: this.#placement, retryBudget: this.#retries.budget };
    this.#attempts = new Attempts({ ...choosing, prefills: this.#prefills }, sink);
    this.#hedges = new Hedges(config, { ...choosing, attempts: this.#attempts });
    const { limits, sharedLimits: shared } = config;
    const decided: QuotasParts['decided'] = (...decision) => this.#decided(...decision);
    this.quotas = new Quotas({ ...choosing, limits, shared, sink, decided });
    this.#refusing = new Refusing({ ...parts, retries: this.#retries, quotas: this.quotas }, sink);
    this.#door = new Door({ ...parts, ...door }, config.queueMax);
    this.#batching = new Batching(slots, parts, sink, {
      dispatch: (slot, allowed) => this.#dispatch(slot, allowed, Filter.notOfBatch),
      alone: (slot) => this.#sendAlone(slot),
    });
    this.#models = models.map((_, model) => model);
  }

  /** How many there are. */
  get attempts(): Pick<Attempts, 'running' | 'dispatched' | 'released'> {
    return this.#attempts;
  }

  /** Requests of the model that wait for a replica. */
  queued(model: number): number {
    return this.#lanes.depth(model);
  }

  /** How the replicas stand. */
  get fleet(): Pick<Fleet, 'inFlight' | 'breakerState' | 'contextTokens'> {
    return this.#fleet;
  }

  /** When tick() has something to do; Infinity for never. */
  get nextTimerUs(): number {
    // A prefill that is over makes room; it matters only while somebody waits for some.
    const prefillUs = this.#lanes.waiters > 0 ? this.#prefills.nextUs : Number.POSITIVE_INFINITY;
    const waitUs = Math.min(this.#lanes.nextUs, this.#batching.nextUs, this.#hedges.nextUs);
    return Math.min(waitUs, this.#fleet.nextResumeUs, prefillUs, this.quotas.nextUs);
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
  arrive(arrival: Arrival, nowUs: number): boolean {
    const { slot, model } = arrival;
    const requests = this.#requests;
    this.#nowUs = nowUs;
    if (requests.phase[slot] !== Phase.idle) {
      if (requests.generation[slot] === arrival.generation) return false;
      // Its last request has ended and the news of it is still on its way: the room is given out now.
      this.#hedges.end(slot);
      this.#attempts.end(slot);
      this.quotas.lose(slot);
      this.#refusing.close(slot, nowUs);
      this.#pump(requests.model[slot] as number);
    }
    if (this.#prefills.nextUs <= nowUs) this.#prefills.expire(nowUs, this.#resumed);
    requests.open(arrival, this.#placement.promptTokens(arrival));
    const refusal = this.#stopping ? Refusal.stopping : this.quotas.whyNot(arrival, nowUs);
    if (refusal === WAITS) return true;
    if (refusal !== NONE) this.#refuse(slot, refusal);
    else if (!this.#batching.gather(arrival, nowUs)) this.#dispatchOrAdmit(slot, model);
    return true;
  }

  /** The first token of an attempt is out: its prefill is over. False: the attempt is not running. */
  firstToken({ slot, generation, attempt, hedge, afterUs }: FirstToken, nowUs: number): boolean {
    if (!this.#requests.isRunning(slot, generation, attempt)) return false;
    this.#nowUs = nowUs;
    this.#hedges.end(slot);
    this.quotas.began(slot);
    const isDecided = this.#attempts.decide(slot, hedge);
    this.#hedges.learn(slot, afterUs, isDecided && hedge, nowUs);
    const hasRoom = this.#attempts.answered(slot, nowUs);
    if (hasRoom || isDecided) this.#pump(this.#requests.model[slot] as number);
    return true;
  }

  /** One of the two exchanges of an attempt has failed before either answered. False: as release(). */
  drop(release: Release, nowUs: number): boolean {
    const { slot, generation, attempt } = release;
    if (!this.#requests.isRunning(slot, generation, attempt)) return false;
    this.#nowUs = nowUs;
    if (!this.#attempts.drop(release, nowUs)) return false;
    this.#pump(this.#requests.model[slot] as number);
    return true;
  }

  /** An attempt has ended. False: it had ended before, or is another request's; nothing changes. */
  release(release: Release, nowUs: number): boolean {
    const { slot } = release;
    const requests = this.#requests;
    if (!requests.isRunning(slot, release.generation, release.attempt)) return false;
    this.#nowUs = nowUs;
    this.#hedges.end(slot);
    this.#attempts.conclude(release, nowUs);
    this.quotas.answered(release);
    if (release.settled) this.#refusing.close(slot, nowUs);
    else this.#decideRetry(slot, requests.replica[slot] as number, release);
    this.#pump(requests.model[slot] as number);
    return true;
  }

  /** The client has left. False: the request is not ours any more. */
  cancel(slot: number, generation: number, nowUs: number): boolean {
    const requests = this.#requests;
    if (requests.phase[slot] === Phase.idle || requests.generation[slot] !== generation)
      return false;
    this.#nowUs = nowUs;
    if (requests.phase[slot] !== Phase.running) {
      this.#endWait(slot);
      this.#refuse(slot, Refusal.clientGone);
      this.#pump(requests.model[slot] as number); // it may have stood before one that fits
    } else if (requests.cancelled[slot] === 0) {
      requests.cancelled[slot] = 1;
      this.#sink.abort(slot);
    }
    return true;
  }

  /** Joins, leaves, drains, health and limits. */
  updateReplica(row: number, facts: ReplicaFacts, nowUs: number): void {
    this.#nowUs = nowUs;
    const isAnother = this.#fleet.epoch(row) !== facts.epoch;
    this.#fleet.update(row, facts, nowUs, this.#membersChanged);
    this.#placement.setReplica(row, isAnother);
    if (facts.model >= 0 && facts.model < this.#models.length) this.#pump(facts.model);
  }

  /** The last report of a replica's engine; told again now and then, because it counts less with age. */
  reportEngine(row: number, report: EngineReport, nowUs: number): void {
    if (!this.#fleet.report(row, report, nowUs)) return;
    this.#nowUs = nowUs;
    this.#placement.setReplica(row, false);
    this.#pump(this.#fleet.model(row));
  }

  /** Ends the pauses and waits that are over. */
  tick(nowUs: number): void {
    this.#nowUs = nowUs;
    if (this.#expireWaits()) for (const model of this.#models) this.#pump(model);
    this.#prefills.expire(nowUs, this.#resumed);
    this.#batching.expire(nowUs);
    this.#fleet.resume(nowUs, this.#resumed);
    this.#hedges.expire(nowUs);
    this.quotas.tick(nowUs);
  }

  /** Refuses what waits and whatever arrives from here on; what runs is ended by the forwarders. */
  stop(nowUs: number): void {
    this.#nowUs = nowUs;
    this.#stopping = true;
    this.#hedges.stop();
    for (const waiters of [this.#lanes, this.#batching, this.quotas]) {
      for (let slot = waiters.first; slot !== NONE; slot = waiters.first) {
        this.#endWait(slot);
        this.#refuse(slot, Refusal.stopping);
      }
    }
  }

  /** Takes over a running attempt. Before the first event, after the replicas are known. */
  restore(attempt: RunningAttempt): void {
    this.#attempts.restore(attempt);
    this.#retries.restore(attempt);
    this.quotas.restore(attempt.arrival, attempt.hasToken);
  }

  /** Recounts everything from the requests. */
  assertExact(): void {
    this.#fleet.assertExact(this.#requests);
    this.#retries.assertExact();
    this.#attempts.assertExact();
    this.#batching.assertExact();
  }

  /** The limits of its tenant let a request in that waited for their store, or do not. */
  #decided(slot: number, refusal: Refusal | typeof NONE, nowUs: number): void {
    this.#nowUs = nowUs;
    if (refusal === NONE) this.#sendAlone(slot);
    else {
      this.#endWait(slot);
      this.#refuse(slot, refusal);
    }
  }

  #dispatchOrAdmit(slot: number, model: number): void {
    if (this.#dispatchAtOnce(slot, model)) return;
    this.#endWait(slot);
    this.#admit(slot, model);
  }

  /** A request that waited, for a batch or for the store of limits, goes the way of any other. */
  #sendAlone(slot: number): void {
    const { model, deadlineUs } = this.#requests;
    const row = model[slot] as number;
    const isLate = this.#nowUs >= (deadlineUs[slot] as number);
    if (isLate || this.#lanes.lane(row).waiting.length > 0) this.#endWait(slot);
    if (isLate) this.#refuse(slot, Refusal.deadline);
    else this.#dispatchOrAdmit(slot, row);
  }

  /** Ends the wait of the request, if it waits. Returns its length. */
  #endWait(slot: number): number {
    const phase = this.#requests.phase[slot];
    if (phase === Phase.idle) return 0;
    if (phase === Phase.gathering) return this.#batching.leave(slot, this.#nowUs);
    if (phase === Phase.asking) return this.quotas.leave(slot, this.#nowUs);
    return this.#lanes.leave(slot, this.#nowUs);
  }

  /** Starts the request if a replica has room that nobody waits for. False: nothing has changed. */
  #dispatchAtOnce(slot: number, model: number): boolean {
    const candidates = this.#fleet.candidates(model);
    if (candidates.length === 0) return false;
    if (this.#lanes.lane(model).waiting.length === 0) return this.#dispatch(slot, candidates);
    // Who waits while there are candidates cannot use them: the request takes its place for a moment.
    const { phase, waitedUs } = this.#requests;
    this.#lanes.enter(slot, Phase.waiting);
    this.#pump(model);
    if (phase[slot] !== Phase.waiting) return true;
    const before = waitedUs[slot] as number;
    this.#lanes.leave(slot, this.#nowUs);
    waitedUs[slot] = before; // its wait has not begun
    return false;
  }

  /** Queues a request that found no room, or refuses it. */
  #admit(slot: number, model: number): void {
    const refusal = this.#door.whyNot(slot, model, this.#nowUs);
    if (refusal !== NONE) {
      this.#refuse(slot, refusal);
      return;
    }
    // Who is refused anyway takes nobody's place.
    const lateUs = this.#door.lateUs(slot, model, this.#nowUs);
    if (this.#refusing.refuseLate(slot, lateUs, this.#nowUs)) return;
    const { victim } = this.#door;
    if (victim !== NONE) {
      this.#lanes.leave(victim, this.#nowUs);
      this.#refuse(victim, this.#door.whyOut(victim, slot));
    }
    this.#lanes.enter(slot, Phase.waiting);
    this.#pump(model); // whoever was pushed out may have stood before one that fits
  }

  #decideRetry(slot: number, replica: number, release: Release): void {
    const requests = this.#requests;
    requests.lastError[slot] = release.error;
    const refusal = this.#whyNotAgain(release, replica);
    if (refusal !== NONE) {
      this.#refuse(slot, refusal);
      return;
    }
    const isOfReplica = release.retry !== RetryRule.alone && release.retry !== RetryRule.again;
    if (isOfReplica) this.#sink.retry(slot, replica);
    requests.waitingSinceUs[slot] = this.#nowUs;
    this.#lanes.enter(slot, Phase.retrying);
  }

  #whyNotAgain(release: Release, replica: number): Refusal | typeof NONE {
    const { cancelled, deadlineUs } = this.#requests;
    if (cancelled[release.slot] === 1) return Refusal.clientGone;
    if (this.#stopping) return Refusal.stopping;
    if (this.#nowUs >= (deadlineUs[release.slot] as number)) return Refusal.deadline;
    const inFlight = this.#attempts.running + this.#lanes.retryWaiters + 1;
    return this.#retries.whyNot(release, replica, inFlight, this.#nowUs);
  }

  #refuse(slot: number, refusal: Refusal): void {
    this.#refusing.refuse(slot, refusal, this.#nowUs);
  }

  /** True when somebody's wait was over. */
  #expireWaits(): boolean {
    if (this.#lanes.nextUs > this.#nowUs) return false;
    while (this.#lanes.nextUs <= this.#nowUs) {
      const slot = this.#lanes.first;
      this.#refuse(slot, this.#lanes.expire(slot, this.#nowUs));
    }
    return true;
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
      const allowed = this.#fleet.candidatesWithout(model, this.#retries.failersOf(slot));
      if (allowed.length > 0) this.#dispatch(slot, allowed);
      slot = next;
    }
    while (waiting.length > 0 && candidates.length > 0) {
      slot = waiting.next(this.#nowUs, this.#passing.adapters);
      if (slot === NONE) break;
      if (this.#dispatch(slot, candidates)) continue;
      if (!this.#passing.hold(this.#requests.adapter[slot] as number, candidates)) break;
    }
    this.#passing.end();
  }

  /** Gives the request to one of the candidates. False: none that has its adapter has room for it. */
  #dispatch(slot: number, candidates: Candidates, leftOut: Filter = Filter.failedBefore): boolean {
    const leftUs = (this.#requests.deadlineUs[slot] as number) - this.#nowUs;
    const row = this.#placement.choose(slot, candidates, leftOut, leftUs);
    if (row === NONE) return false;
    const heldUs = this.#endWait(slot);
    const load = this.#fleet.load(row);
    const pendingTokens = load.pendingTokens + this.#placement.pendingTokens;
    const lateUs = load.prefillUs * pendingTokens - leftUs;
    if (this.#refusing.refuseLate(slot, lateUs, this.#nowUs)) return true;
    this.#attempts.begin(slot, row, heldUs, this.#nowUs);
    this.#hedges.begin(slot, this.#nowUs);
    return true;
  }
}

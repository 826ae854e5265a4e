/**
 * The brain: every routing, queueing, retry and refusal decision. Pure: events and a time in,
 * decisions out through a DecisionSink; nothing is allocated per request.
 *
 * Waking is level-triggered: after every event that can make room, a lane (lanes.ts) gives out all
 * the room there is, so there is no permit to bank or to lose. Waiters stay when the last replica
 * goes down, until it is back or their wait is over; who arrives meanwhile is refused at once.
 * Each attempt is released once, whoever comes first; later events about it change nothing.
 */
import type { Arrival } from './arrival.ts';
import type { Attempts } from './attempts.ts';
import { assertPartsExact, type BrainParts, createParts, restoreParts } from './brain-parts.ts';
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
import type { Fleet } from './fleet.ts';
import type { EngineReport } from './foreign-load.ts';
import type { Lanes } from './lanes.ts';
import { Pump } from './pump.ts';
import { type Quotas, type QuotasParts, WAITS } from './quotas.ts';
import type { ReplicaFacts } from './replica-state.ts';
import { Phase, type Requests } from './requests.ts';

export class Brain {
  readonly #parts: BrainParts;
  readonly #outlet: Pump;
  readonly #fleet: Fleet;
  readonly #requests: Requests;
  readonly #lanes: Lanes;
  readonly #models: readonly number[];
  readonly quotas: Quotas;
  readonly fallbacks: BrainParts['fallbacks'];
  readonly #sink: DecisionSink;
  #stopping = false;
  #nowUs = 0;
  readonly #membersChanged = (model: number): void => this.#parts.placement.setMembers(model);
  readonly #resumed = (model: number): void => this.#pump(model);
  readonly #lost = (slot: number): void => this.#refuse(slot, Refusal.gone);
  readonly #unserved = (slot: number, why: Refusal): void => this.#refuse(slot, why);

  constructor(config: BrainConfig, sink: DecisionSink) {
    const decided: QuotasParts['decided'] = (...decision) => this.#decided(...decision);
    const parts = createParts(config, sink, decided, {
      dispatch: (slot, allowed) => this.#dispatch(slot, allowed, Filter.notOfBatch),
      alone: (slot) => this.#sendAlone(slot),
    });
    this.#sink = sink;
    this.#parts = parts;
    this.#outlet = new Pump(parts, (slot, candidates) => this.#dispatch(slot, candidates));
    this.#fleet = parts.fleet;
    this.#requests = parts.requests;
    this.#lanes = parts.lanes;
    this.quotas = parts.quotas;
    this.fallbacks = parts.fallbacks;
    this.#models = config.models.map((_, model) => model);
  }

  /** How many there are. */
  get attempts(): Pick<Attempts, 'running' | 'dispatched' | 'released'> {
    return this.#parts.attempts;
  }

  /** Requests of the model that wait for a replica. */
  queued(model: number): number {
    return this.#lanes.depth(model);
  }

  /** How the replicas stand. */
  get fleet(): Pick<Fleet, 'inFlight' | 'breakerState' | 'contextTokens' | 'model'> {
    return this.#fleet;
  }

  /** When tick() has something to do; Infinity for never. */
  get nextTimerUs(): number {
    // A prefill that is over makes room; it matters only while somebody waits for some.
    const { prefills, batching, hedges, fallbacks } = this.#parts;
    const prefillUs = this.#lanes.waiters > 0 ? prefills.nextUs : Number.POSITIVE_INFINITY;
    const waitUs = Math.min(this.#lanes.nextUs, batching.nextUs, hedges.nextUs, fallbacks.nextUs);
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

  /** A request, after `attempts` that ended before. False: it is known already, and nothing changes. */
  arrive(arrival: Arrival, nowUs: number, attempts = 0): boolean {
    const { slot, model } = arrival;
    const requests = this.#requests;
    this.#nowUs = nowUs;
    if (requests.phase[slot] !== Phase.idle) {
      if (requests.generation[slot] === arrival.generation) return false;
      // Its last request has ended and the news of it is still on its way: the room is given out now.
      this.#parts.hedges.end(slot);
      this.#parts.attempts.end(slot);
      this.quotas.lose(slot);
      this.#parts.refusing.close(slot, nowUs);
      this.#pump(requests.model[slot] as number);
    }
    if (this.#parts.prefills.nextUs <= nowUs) this.#parts.prefills.expire(nowUs, this.#resumed);
    requests.open(arrival, this.#parts.placement.promptTokens(arrival), attempts);
    this.fallbacks.open(arrival);
    const refusal = this.#whyNotAtAll(arrival, nowUs);
    if (refusal === WAITS) return true;
    if (refusal !== NONE) this.#refuse(slot, refusal);
    else if (attempts > 0 || !this.#parts.batching.gather(arrival, nowUs))
      this.#dispatchOrAdmit(slot, model);
    return true;
  }

  /** The first token of an attempt is out: its prefill is over. False: the attempt is not running. */
  firstToken({ slot, generation, attempt, hedge, afterUs }: FirstToken, nowUs: number): boolean {
    if (!this.#requests.isRunning(slot, generation, attempt)) return false;
    this.#nowUs = nowUs;
    this.#parts.hedges.end(slot);
    this.quotas.began(slot);
    const isDecided = this.#parts.attempts.decide(slot, hedge);
    this.#parts.hedges.learn(slot, afterUs, isDecided && hedge, nowUs);
    const hasRoom = this.#parts.attempts.answered(slot, nowUs);
    if (hasRoom || isDecided) this.#pump(this.#requests.model[slot] as number);
    return true;
  }

  /** One of the two exchanges of an attempt has failed before either answered. False: as release(). */
  drop(release: Release, nowUs: number): boolean {
    const { slot, generation, attempt } = release;
    if (!this.#requests.isRunning(slot, generation, attempt)) return false;
    this.#nowUs = nowUs;
    if (!this.#parts.attempts.drop(release, nowUs)) return false;
    this.#pump(this.#requests.model[slot] as number);
    return true;
  }

  /** An attempt has ended. False: it had ended before, or is another request's; nothing changes. */
  release(release: Release, nowUs: number): boolean {
    const { slot } = release;
    const requests = this.#requests;
    if (!requests.isRunning(slot, release.generation, release.attempt)) return false;
    const model = requests.model[slot] as number;
    this.#nowUs = nowUs;
    this.#parts.hedges.end(slot);
    this.#parts.attempts.conclude(release, nowUs);
    this.quotas.answered(release, nowUs);
    if (release.settled) this.#parts.refusing.close(slot, nowUs);
    else this.#decideRetry(slot, requests.replica[slot] as number, release);
    this.#pump(model); // the request may be on its way to another one
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
    const epoch = this.#fleet.epoch(row);
    const model = this.#fleet.isMember(row, epoch) ? this.#fleet.model(row) : NONE;
    const losesAdapter = this.#fleet.losesAdapter(row, facts);
    this.#fleet.update(row, facts, nowUs, this.#membersChanged);
    this.#parts.placement.setReplica(row, epoch !== facts.epoch);
    const hasLeft = model !== NONE && !this.#fleet.isMember(row, epoch);
    if (hasLeft) this.#parts.pins.settleGone(model, nowUs, this.#lost);
    if (model !== NONE && (hasLeft || losesAdapter))
      this.#parts.unserved.settle(model, nowUs, this.#unserved);
    if (facts.model >= 0 && facts.model < this.#models.length) this.#pump(facts.model);
  }

  /** The last report of a replica's engine; told again now and then, because it counts less with age. */
  reportEngine(row: number, report: EngineReport, nowUs: number): void {
    if (!this.#fleet.report(row, report, nowUs)) return;
    this.#nowUs = nowUs;
    this.#parts.placement.setReplica(row, false);
    this.#pump(this.#fleet.model(row));
  }

  /** Ends the pauses and waits that are over. */
  tick(nowUs: number): void {
    this.#nowUs = nowUs;
    if (this.#expireWaits()) for (const model of this.#models) this.#pump(model);
    this.#parts.prefills.expire(nowUs, this.#resumed);
    this.#parts.batching.expire(nowUs);
    this.#sendOn();
    this.#fleet.resume(nowUs, this.#resumed);
    this.#parts.hedges.expire(nowUs);
    this.quotas.tick(nowUs);
  }

  /** Refuses what waits and whatever arrives from here on; what runs is ended by the forwarders. */
  stop(nowUs: number): void {
    this.#nowUs = nowUs;
    this.#stopping = true;
    const { hedges, batching, fallbacks } = this.#parts;
    hedges.stop();
    for (const waiters of [this.#lanes, batching, this.quotas, fallbacks]) {
      for (let slot = waiters.first; slot !== NONE; slot = waiters.first) {
        this.#endWait(slot);
        this.#refuse(slot, Refusal.stopping);
      }
    }
  }

  /** Takes over a running attempt. Before the first event, after the replicas are known. */
  restore(attempt: RunningAttempt): void {
    restoreParts(this.#parts, attempt);
  }

  /** Recounts everything from the requests. */
  assertExact(): void {
    assertPartsExact(this.#parts);
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
    if (phase === Phase.gathering) return this.#parts.batching.leave(slot, this.#nowUs);
    if (phase === Phase.moving) return this.fallbacks.leave(slot);
    if (phase === Phase.asking) return this.quotas.leave(slot, this.#nowUs);
    return this.#lanes.leave(slot, this.#nowUs);
  }

  /** Starts the request if a replica has room that nobody waits for. False: nothing has changed. */
  #dispatchAtOnce(slot: number, model: number): boolean {
    const candidates = this.#parts.pins.among(slot, this.#fleet.candidates(model));
    if (candidates.length === 0) return false;
    // One that may not wait, as who has waited for another model, is not to be late by this look.
    const isFirst = this.#lanes.lane(model).waiting.length === 0;
    if (isFirst || !this.#lanes.mayWait(slot)) return this.#dispatch(slot, candidates);
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
    const refusal = this.#parts.door.whyNot(slot, model, this.#nowUs);
    if (refusal !== NONE) {
      this.#refuse(slot, refusal);
      return;
    }
    // Who is refused anyway takes nobody's place.
    const lateUs = this.#parts.door.lateUs(slot, model, this.#nowUs);
    if (this.#parts.refusing.refuseLate(slot, lateUs, this.#nowUs)) return;
    const { victim } = this.#parts.door;
    if (victim !== NONE) {
      this.#lanes.leave(victim, this.#nowUs);
      this.#refuse(victim, this.#parts.door.whyOut(victim, slot));
    }
    this.#lanes.enter(slot, Phase.waiting);
    this.#pump(model); // whoever was pushed out may have stood before one that fits
  }

  #decideRetry(slot: number, replica: number, release: Release): void {
    const requests = this.#requests;
    requests.lastError[slot] = release.error;
    // Another model cannot go on with an answer, nor mend what forbids to ask anybody.
    if (release.continues || release.retry === RetryRule.never) this.fallbacks.close(slot);
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
    const inFlight = this.attempts.running + this.#lanes.retryWaiters + 1;
    return this.#parts.retries.whyNot(release, replica, inFlight, this.#nowUs);
  }

  #whyNotAtAll(arrival: Arrival, nowUs: number): ReturnType<Quotas['whyNot']> {
    if (this.#stopping) return Refusal.stopping;
    return this.#parts.pins.isLost(arrival.slot)
      ? Refusal.gone
      : this.quotas.whyNot(arrival, nowUs);
  }

  #refuse(slot: number, refusal: Refusal): void {
    if (this.fallbacks.take(slot, refusal)) return;
    this.#parts.refusing.refuse(slot, this.fallbacks.lastWord(slot, refusal), this.#nowUs);
  }

  /** Requests arrive at the models that they went on to. */
  #sendOn(): void {
    const { model, waitingSinceUs } = this.#requests;
    for (let slot = this.fallbacks.first; slot !== NONE; slot = this.fallbacks.first) {
      this.#endWait(slot);
      waitingSinceUs[slot] = this.#nowUs;
      this.#dispatchOrAdmit(slot, model[slot] as number);
    }
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
    if (!this.#outlet.hasRoom(model)) return;
    // A thread that was late must not start what should have been refused already.
    this.#expireWaits();
    this.#outlet.run(model, this.#nowUs);
  }

  /** Gives the request to one of the candidates. False: none that has its adapter has room for it. */
  #dispatch(slot: number, candidates: Candidates, leftOut: Filter = Filter.failedBefore): boolean {
    const leftUs = (this.#requests.deadlineUs[slot] as number) - this.#nowUs;
    const { pins, placement } = this.#parts;
    const filter = pins.has(slot) ? Filter.notPinned : leftOut;
    const row = placement.choose(slot, pins.among(slot, candidates), filter, leftUs);
    if (row === NONE) return false;
    const heldUs = this.#endWait(slot) || this.#requests.heldUs(slot);
    const load = this.#fleet.load(row);
    const pendingTokens = load.pendingTokens + placement.pendingTokens;
    const lateUs = load.prefillUs * pendingTokens - leftUs;
    if (this.#parts.refusing.refuseLate(slot, lateUs, this.#nowUs)) return true;
    this.#parts.attempts.begin(slot, row, heldUs, this.#nowUs);
    this.#parts.hedges.begin(slot, this.#nowUs);
    return true;
  }
}

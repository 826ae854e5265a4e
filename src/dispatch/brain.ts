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
import { createPrng, type Prng } from '../lib/prng.ts';
import { shedProbability } from './admission.ts';
import type { Arrival } from './arrival.ts';
import { type Candidates, NONE } from './candidates.ts';
import {
  type BrainConfig,
  type DecisionSink,
  Refusal,
  type Release,
  type RunningAttempt,
} from './decisions.ts';
import { Fleet, Outlook, type ReplicaFacts } from './fleet.ts';
import type { EngineReport } from './foreign-load.ts';
import { Lanes } from './lanes.ts';
import { Passing } from './passing.ts';
import { Placement } from './placement.ts';
import { Prefills } from './prefills.ts';
import { Phase, Requests } from './requests.ts';
import { Retries } from './retries.ts';

/** Pause of a busy replica that did not say how long: some engine steps. */
const pauseDefaultMs = 200;
/** A replica cannot ask to be left alone for longer. */
const pauseMaxMs = 60_000;

export class Brain {
  /** Attempts running, attempts ever started and ever released. */
  running = 0;
  dispatched = 0;
  released = 0;
  readonly #fleet: Fleet;
  readonly #requests: Requests;
  readonly #lanes: Lanes;
  readonly #passing: Passing;
  readonly #placement: Placement;
  readonly #prefills: Prefills;
  readonly #random: Prng;
  readonly #models: readonly number[];
  readonly #retries: Retries;
  readonly #sink: DecisionSink;
  readonly #queueMax: number;
  #stopping = false;
  #nowUs = 0;
  readonly #membersChanged = (model: number): void => this.#placement.setMembers(model);
  readonly #resumed = (model: number): void => this.#pump(model);

  constructor(config: BrainConfig, sink: DecisionSink) {
    const { models, slots } = config;
    this.#sink = sink;
    this.#queueMax = config.queueMax;
    const holdTokens = models.map((rules) => rules.holdTokens);
    this.#fleet = new Fleet(config.replicaRows, holdTokens);
    this.#requests = new Requests(slots);
    this.#lanes = new Lanes(this.#requests, config);
    this.#passing = new Passing(this.#fleet);
    this.#placement = new Placement(config, this.#requests, this.#fleet, this.#passing);
    this.#prefills = new Prefills(slots, this.#requests, this.#fleet);
    this.#retries = new Retries(config, this.#requests, this.#fleet);
    this.#random = createPrng(config.seed);
    this.#models = models.map((_, model) => model);
  }

  /** Requests of the model that wait for a replica. */
  queued(model: number): number {
    return this.#lanes.depth(model);
  }

  inFlight(replica: number): number {
    return this.#fleet.inFlight(replica);
  }

  /** Prompt tokens of what is in flight there. */
  contextTokens(replica: number): number {
    return this.#fleet.contextTokens(replica);
  }

  /** When tick() has something to do; Infinity for never. */
  get nextTimerUs(): number {
    // A prefill that is over makes room; it matters only while somebody waits for some.
    const prefillUs = this.#lanes.waiters > 0 ? this.#prefills.nextUs : Number.POSITIVE_INFINITY;
    return Math.min(this.#lanes.nextUs, this.#fleet.nextResumeUs, prefillUs);
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
      this.#endAttempt(slot);
      this.#close(slot);
      this.#pump(requests.model[slot] as number);
    }
    if (this.#prefills.nextUs <= nowUs) this.#prefills.expire(nowUs, this.#resumed);
    requests.open(arrival, this.#placement.promptTokens(arrival));
    if (this.#stopping) this.#refuse(slot, Refusal.stopping);
    else if (nowUs >= arrival.deadlineUs) this.#refuse(slot, Refusal.deadline);
    else if (!this.#dispatchAtOnce(slot, model)) this.#admit(slot, model);
    return true;
  }

  /** The first token of an attempt is out: its prefill is over. False: the attempt is not running. */
  firstToken(slot: number, generation: number, attempt: number, nowUs: number): boolean {
    if (!this.#requests.isRunning(slot, generation, attempt)) return false;
    this.#nowUs = nowUs;
    if (this.#prefills.end(slot)) this.#pump(this.#requests.model[slot] as number);
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
    this.#placement.learn(slot, release);
    this.#lanes.settleAccount(slot, release.completionTokens);
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
    this.#fleet.update(row, facts, this.#membersChanged);
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
    const { arrival, replica, epoch } = attempt;
    const { slot } = arrival;
    const requests = this.#requests;
    const promptTokens = this.#placement.promptTokens(arrival);
    // What it had in its cache died with the predecessor: all of the prompt counts.
    const pendingTokens = attempt.hasToken || !arrival.streams ? 0 : promptTokens;
    requests.open(arrival, promptTokens);
    requests.begin(slot, attempt.attempt, replica, epoch, {
      ...{ pendingTokens, contextTokens: promptTokens, outputTokens: 0 },
    });
    this.#retries.restore(attempt);
    this.#fleet.restore(replica, epoch, pendingTokens, promptTokens);
    this.running++;
    this.dispatched++;
  }

  /** Recounts everything from the requests. */
  assertExact(): void {
    this.#fleet.assertExact(this.#requests);
    this.#retries.assertExact();
    const running = this.#requests.countRunning();
    assert(this.running === running);
    assert(this.dispatched - this.released === running, 'dispatched = released + in flight');
  }

  /** Starts the request if a replica has room that nobody waits for. False: nothing has changed. */
  #dispatchAtOnce(slot: number, model: number): boolean {
    const candidates = this.#fleet.candidates(model);
    if (candidates.length === 0) return false;
    if (this.#lanes.lane(model).waiting.length === 0) return this.#dispatch(slot, candidates);
    // Who waits while there are candidates cannot use them: the request takes its place for a moment.
    this.#lanes.enter(slot, Phase.waiting);
    this.#pump(model);
    if (this.#requests.phase[slot] !== Phase.waiting) return true;
    this.#lanes.leave(slot, this.#nowUs);
    return false;
  }

  /** Queues a request that found no room, or refuses it. */
  #admit(slot: number, model: number): void {
    const outlook = this.#fleet.outlook(model, this.#retries.excludedOf(slot));
    if (outlook === Outlook.none) this.#refuse(slot, Refusal.noReplica);
    else if (outlook === Outlook.paused && this.#retries.isPauseLong(this.#nowUs))
      this.#refuse(slot, Refusal.busy);
    else if (this.#isShed(slot, model)) this.#refuse(slot, Refusal.shed);
    else if (this.queued(model) >= this.#queueMax && !this.#pushOut(slot, model)) {
      this.#refuse(slot, Refusal.queueFull);
    } else {
      if (!this.#refuseLate(slot, this.#fleet.waitUs(model, this.#lanes.tokensThrough(slot)))) {
        this.#lanes.enter(slot, Phase.waiting);
        this.#pump(model); // whoever was pushed out may have stood before one that fits
      }
    }
  }

  #isShed(slot: number, model: number): boolean {
    if ((this.#requests.priority[slot] as number) >= 0) return false;
    const share = shedProbability(this.#fleet.pressure(model, this.queued(model)));
    return this.#random.next() < share * 2 ** 32;
  }

  /** A full queue gives up a waiter whose place the newcomer may have. False: there is none. */
  #pushOut(slot: number, model: number): boolean {
    const victim = this.#lanes.lane(model).waiting.placeFor(slot);
    if (victim === NONE) return false;
    const { priority } = this.#requests;
    this.#lanes.leave(victim, this.#nowUs);
    this.#refuse(victim, priority[victim] === priority[slot] ? Refusal.queueFull : Refusal.shed);
    return true;
  }

  /** Refuses a request whose first token would come after its deadline. */
  #refuseLate(slot: number, waitUs: number): boolean {
    const lateUs = this.#nowUs + waitUs - (this.#requests.deadlineUs[slot] as number);
    if (lateUs <= 0) return false;
    this.#refuse(slot, Refusal.tooLate, Math.ceil(lateUs / 1000));
    return true;
  }

  #decideRetry(slot: number, replica: number, release: Release): void {
    const requests = this.#requests;
    requests.lastError[slot] = release.error;
    const refusal = this.#whyNotAgain(release, replica);
    if (refusal !== NONE) {
      this.#refuse(slot, refusal);
      return;
    }
    this.#sink.retry(slot, replica);
    requests.waitingSinceUs[slot] = this.#nowUs;
    this.#lanes.enter(slot, Phase.retrying);
  }

  #whyNotAgain(release: Release, replica: number): Refusal | typeof NONE {
    const { cancelled, deadlineUs } = this.#requests;
    if (cancelled[release.slot] === 1) return Refusal.clientGone;
    if (this.#stopping) return Refusal.stopping;
    if (this.#nowUs >= (deadlineUs[release.slot] as number)) return Refusal.deadline;
    const inFlight = this.running + this.#lanes.retryWaiters + 1;
    return this.#retries.whyNot(release, replica, inFlight, this.#nowUs);
  }

  #refuse(slot: number, refusal: Refusal, retryAfterMs = 0): void {
    this.#close(slot);
    if (refusal === Refusal.busy) {
      // The outlook that led here said `paused`: its first replica to resume is what to wait for.
      const waitMs = Math.max(1, Math.ceil((this.#fleet.pauseEndUs - this.#nowUs) / 1000));
      this.#sink.refuse(slot, refusal, this.#fleet.pauseError, waitMs);
    } else {
      const error = refusal === Refusal.failed ? (this.#requests.lastError[slot] as number) : 0;
      this.#sink.refuse(slot, refusal, error, retryAfterMs);
    }
  }

  /** The request is over for the brain. */
  #close(slot: number): void {
    assert(this.#requests.phase[slot] === Phase.idle, 'it neither waits nor runs');
    this.#retries.close(slot);
  }

  #endAttempt(slot: number): void {
    const { phase, replica, epoch, contextTokens } = this.#requests;
    assert(phase[slot] === Phase.running, 'only a running attempt ends');
    const row = replica[slot] as number;
    this.#prefills.end(slot);
    this.#fleet.release(row, epoch[slot] as number, contextTokens[slot] as number);
    this.running--;
    this.released++;
    phase[slot] = Phase.idle;
    this.#sink.attemptEnded(slot, row);
  }

  /** True when somebody's wait was over. */
  #expireWaits(): boolean {
    const { phase, deadlineUs } = this.#requests;
    if (this.#lanes.nextUs > this.#nowUs) return false;
    while (this.#lanes.nextUs <= this.#nowUs) {
      const slot = this.#lanes.first;
      const isRetry = phase[slot] === Phase.retrying;
      this.#lanes.leave(slot, this.#nowUs);
      if (this.#nowUs >= (deadlineUs[slot] as number)) this.#refuse(slot, Refusal.deadline);
      else this.#refuse(slot, isRetry ? Refusal.failed : Refusal.queueWaitOver);
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
  #dispatch(slot: number, candidates: Candidates): boolean {
    const requests = this.#requests;
    const placement = this.#placement;
    const row = placement.choose(slot, candidates);
    if (row === NONE) return false;
    const heldUs = requests.phase[slot] === Phase.idle ? 0 : this.#lanes.leave(slot, this.#nowUs);
    const { pendingTokens, contextTokens } = placement;
    const load = this.#fleet.load(row);
    if (this.#refuseLate(slot, load.prefillUs * (load.pendingTokens + pendingTokens))) return true;
    const attempt = (requests.attempt[slot] as number) + 1;
    const epoch = this.#fleet.epoch(row);
    this.#sink.placed(slot, attempt, heldUs, placement.choice);
    placement.commit(slot, row);
    this.#fleet.take(row, pendingTokens, contextTokens);
    requests.begin(slot, attempt, row, epoch, placement);
    this.#prefills.begin(slot, this.#nowUs);
    this.#lanes.charge(slot);
    this.running++;
    this.dispatched++;
    this.#sink.dispatch(slot, attempt, row, epoch, heldUs);
    return true;
  }
}

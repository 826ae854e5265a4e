/**
 * A brain with a clock in hand and a sink that keeps a model of what it was told: which attempts run
 * where, how each request ended. It refuses decisions that break a law on the spot.
 */
import type { Arrival, PrefixSource } from '../../src/dispatch/arrival.ts';
import { Brain } from '../../src/dispatch/brain.ts';
import type { ReplicaLoad } from '../../src/dispatch/candidates.ts';
import type { Choice } from '../../src/dispatch/choice.ts';
import {
  type BrainConfig,
  type DecisionSink,
  type FallbackList,
  FallbackReason,
  HedgeResult,
  Refusal,
  RetryRule,
  Verdict,
} from '../../src/dispatch/decisions.ts';
import { createRelease } from '../../src/dispatch/empty-records.ts';
import type { EngineReport } from '../../src/dispatch/foreign-load.ts';
import type { ReplicaFacts } from '../../src/dispatch/replica-state.ts';
import { errors } from '../../src/errors/catalogue.ts';
import { assert } from '../../src/lib/assert.ts';
import {
  anything,
  hasAdapter,
  isRoutable,
  mayServe,
  type Placed,
  placedOf,
  type Running,
  type Wanted,
  waitsFor,
} from './brain-records.ts';
import { plainArrival } from './plain-arrival.ts';

const fallbackReasons = Object.keys(FallbackReason);
const refusalNames = Object.keys(Refusal);

/** One model for each policy; sessions and held requests are for tests that ask for them. */
export const modelsWith = (...policies: string[]): BrainConfig['models'] =>
  policies.map((policy) => {
    return { policy, sessionAffinity: false, holdTokens: Number.POSITIVE_INFINITY };
  });

/** A candidate of which only in-flight and weight matter. */
export const loadOf = (inFlight: number, weight = 1): ReplicaLoad => {
  const { prefillUs, residentUs } = replicaFacts;
  const tokens = { pendingTokens: 0, contextTokens: 0, roomTokens: Number.POSITIVE_INFINITY };
  return { inFlight, weight, ...tokens, prefillUs, residentUs };
};

export const noPrefixes: PrefixSource = {
  words: new Int32Array(0),
  startOf: () => 0,
  countOf: () => 0,
  depths: [1, 2, 3, 4, 6, 8],
  blockBytes: 2048,
};

/** A replica as the config makes one that says nothing of its costs. */
export const replicaFacts: ReplicaFacts = {
  ...{ epoch: 1, model: 0, active: true, healthy: true, maxInFlight: 256, weight: 1 },
  ...{ identity: 1, prefillUs: 21.2, residentUs: 0.06, kvTokens: 0 },
};

/** Breakers that never open; a test that is about them says otherwise. */
export const breakerRules: BrainConfig['breaker'] = {
  ...{ mode: 'off', window: 10, failureRate: 0.5, consecutive: 5, openUs: 5_000_000 },
  ...{ maxEjected: 0.5, panicBelow: 0.5 },
};

export const plainRelease = createRelease();

export class BrainHarness implements DecisionSink {
  readonly brain: Brain;
  nowUs = 1_000_000;
  /** Every decision, in words; two runs of one seed give the same text. */
  readonly log: string[] = [];
  readonly running = new Map<number, Running>();
  /** Hedges that run beside those. */
  readonly hedges = new Map<number, Running>();
  readonly hedgesBegun: { slot: number; replica: number; atUs: number }[] = [];
  readonly hedgeEnds: string[] = [];
  readonly dispatches: { slot: number; replica: number; attempt: number; heldUs: number }[] = [];
  readonly refusals: { slot: number; refusal: Refusal; error: number; retryAfterMs: number }[] = [];
  readonly placements: Placed[] = [];
  /** Hedges, and members of batches, that began while somebody of their model waited. */
  passes = { hedges: 0, members: 0 };
  /** Slots of each batch that was sent, as they were dispatched. */
  readonly batches: number[][] = [];
  readonly fallbacks: { slot: number; from: number; to: number; reason: string }[] = [];
  readonly goOn = new Map<number, number>();
  readonly follows: { slot: number; row: number; epoch: number }[] = [];
  readonly aborts: number[] = [];
  readonly retries: number[] = [];
  /** Requests told to have ended by the brain, by slot and generation. */
  readonly generations: number[];
  readonly #facts = new Map<number, ReplicaFacts>();
  /** Of each request that has not ended. */
  readonly #wanted = new Map<number, Wanted>();
  /** When the attempt of each slot began, and its hedge. */
  readonly #sinceUs = new Map<number, number>();
  readonly #hedgeSinceUs = new Map<number, number>();
  #batch: number[] | undefined;

  constructor(config: Partial<BrainConfig> = {}) {
    const full: BrainConfig = {
      ...{ slots: 64, replicaRows: 8, tenants: 16, prefixes: noPrefixes, seed: 1 },
      models: modelsWith('least_in_flight'),
      ...{ queueMax: 1000, queueTimeoutMs: 30_000, slowStartUs: 0, breaker: breakerRules },
      retry: { maxAttempts: 3, budget: 0.2, budgetMin: 3 },
      hedge: { automatic: false, budget: 0.02 },
      ...config,
    };
    this.brain = new Brain(full, this);
    this.generations = new Array<number>(full.slots).fill(0);
  }

  replica(row: number, facts: Partial<ReplicaFacts> = {}): void {
    const known = this.#facts.get(row) ?? { ...replicaFacts, identity: row + 1 };
    const next: ReplicaFacts = { ...known, ...facts };
    this.#facts.set(row, next);
    this.brain.updateReplica(row, next, this.nowUs);
    this.check();
  }

  /** Rows in use. */
  get rows(): readonly number[] {
    return [...this.#facts.keys()];
  }

  replicas(count: number, facts: Partial<ReplicaFacts> = {}): void {
    for (let row = 0; row < count; row++) this.replica(row, facts);
  }

  /** The engine of a replica reports, once a second. */
  report(row: number, report: Partial<EngineReport>): void {
    const nothing = { running: 0, waiting: 0, kvTokens: 0, kvCapacity: 0 };
    const own = { ownRequests: 0, ownTokens: 0 };
    const times = { scrapedUs: this.nowUs, intervalUs: 1_000_000 };
    this.brain.reportEngine(row, { ...nothing, ...own, ...times, ...report }, this.nowUs);
    this.check();
  }

  arrive(slot: number, model = 0, deadlineMs = 600_000, more: Partial<Arrival> = {}): boolean {
    const generation = (this.generations[slot] ?? 0) + 1;
    this.generations[slot] = generation;
    const deadlineUs = this.nowUs + deadlineMs * 1000;
    const times = { publishedUs: this.nowUs, deadlineUs };
    const of = { slot, generation, model, askedModel: model };
    const request = { ...plainArrival, ...of, ...times, ...more };
    const gathers = request.batch0 !== 0 || request.batch1 !== 0;
    const { adapter, pin } = request;
    this.#wanted.set(slot, { model, adapter, pin, queues: !gathers });
    const known = this.brain.arrive(request, this.nowUs);
    this.check();
    return known;
  }

  /** The first token of the running attempt, or of its hedge, is out. */
  firstToken(slot: number, hedge = false): boolean {
    const running = (hedge ? this.hedges : this.running).get(slot);
    const attempt = running?.attempt ?? 0;
    const generation = this.generations[slot] ?? 0;
    const sinceUs = (hedge ? this.#hedgeSinceUs : this.#sinceUs).get(slot) ?? 0;
    const afterUs = this.nowUs - sinceUs;
    const known = this.brain.firstToken({ slot, generation, attempt, hedge, afterUs }, this.nowUs);
    this.check();
    return known;
  }

  /** The running attempt of the slot ends well. */
  finish(slot: number, end: Partial<typeof plainRelease> = {}): boolean {
    return this.#release(slot, { settled: true, verdict: Verdict.good, ...end });
  }

  /** One of its two exchanges fails while the other goes on. */
  drop(slot: number, hedge: boolean): boolean {
    const generation = this.generations[slot] ?? 0;
    const attempt = this.running.get(slot)?.attempt ?? 0;
    const failure = { retry: RetryRule.elsewhere, error: 65, verdict: Verdict.bad };
    const release = { ...plainRelease, slot, generation, attempt, ...failure, hedge };
    const known = this.brain.drop(release, this.nowUs);
    this.check();
    return known;
  }

  /** It fails before anything was committed. */
  fail(
    slot: number,
    retry: RetryRule = RetryRule.elsewhere,
    error = 65,
    more: Partial<typeof plainRelease> = {},
  ): boolean {
    return this.#release(slot, { retry, error, verdict: Verdict.bad, ...more });
  }

  busy(slot: number, retryAfterMs: number, error = 77): boolean {
    return this.#release(slot, { retry: RetryRule.elsewhere, error, busy: true, retryAfterMs });
  }

  /** Its connection is refused: nothing was sent. */
  refuseConnection(slot: number): boolean {
    const error = errors.CONNECT_REFUSED.number;
    const retry = RetryRule.anywhere;
    return this.#release(slot, { retry, error, busy: true, verdict: Verdict.bad });
  }

  cancel(slot: number): boolean {
    const known = this.brain.cancel(slot, this.generations[slot] ?? 0, this.nowUs);
    this.check();
    return known;
  }

  advance(ms: number): void {
    this.nowUs += ms * 1000;
    this.brain.tick(this.nowUs);
    this.check();
  }

  get lastRefusal(): string | undefined {
    return refusalNames[this.refusals.at(-1)?.refusal ?? -1];
  }

  admitted(): void {}

  fellBack(slot: number, from: number, to: FallbackList[number], reason: FallbackReason): void {
    assert(!this.running.has(slot), 'who goes on has ended its attempt');
    assert(this.#wantedOf(slot).pin < 0, 'who is pinned goes on to no other model');
    this.#wanted.set(slot, { ...to, pin: -1, queues: false });
    this.fallbacks.push({ slot, from, to: to.model, reason: fallbackReasons[reason] as string });
    this.log.push(`${slot}:${from}>>${to.model}.${to.adapter}:${reason}`);
  }

  settledLimits(): void {}

  mayGoOn(slot: number, goOn: number): void {
    this.goOn.set(slot, goOn);
  }

  followed(slot: number, row: number, epoch: number): void {
    this.#wanted.set(slot, { ...this.#wantedOf(slot), pin: row });
    this.follows.push({ slot, row, epoch });
  }

  placed(slot: number, attempt: number, heldUs: number, choice: Choice): void {
    const placed = placedOf(slot, attempt, heldUs, choice);
    const left = Object.values(placed.filtered).reduce((sum, count) => sum + count, 0);
    const isReserved = choice.isPinned && !isRoutable(this.#facts.get(placed.replica));
    const counted = placed.seen.length + left - (isReserved ? 1 : 0);
    assert(counted === choice.members, 'who is left out is so for one reason');
    this.placements.push(placed);
  }

  dispatch(slot: number, attempt: number, replica: number, _epoch: number, heldUs: number): void {
    assert(!this.running.has(slot), 'one attempt of a request at a time');
    const last = this.placements.at(-1);
    assert(last?.slot === slot && last.attempt === attempt, 'a dispatch says why');
    assert(last.replica === replica && last.heldUs === heldUs, 'it goes where it says');
    const facts = this.#facts.get(replica);
    const { adapter, pin } = this.#wantedOf(slot);
    assert(hasAdapter(facts, adapter), 'only a replica that has the adapter is given the request');
    const pinned = this.#facts.get(pin);
    assert(mayServe(facts, pinned), 'it goes where it is pinned to, or to a routable replica');
    assert(this.#loadOf(replica) < (facts?.maxInFlight ?? 0), 'never over max_in_flight');
    const first = this.#batch?.[0];
    if (first !== undefined) {
      assert(this.running.get(first)?.replica === replica, 'a batch goes to one replica');
      const { itemsMax = 0 } = facts?.batching ?? {};
      assert((this.#batch?.length ?? 0) < itemsMax, 'a batch is within the limits of its replica');
    }
    if (this.#batch !== undefined) {
      assert(attempt === 1, 'a retry is in no batch');
      assert(facts?.batching !== undefined, 'a batch goes where batches are taken');
      assert(!this.#isAwaited(replica), 'a batch takes no room that somebody waits for');
      if (this.brain.queued(facts.model) > 0) this.passes.members++;
    }
    this.#batch?.push(slot);
    this.running.set(slot, { attempt, replica });
    this.#sinceUs.set(slot, this.nowUs);
    this.dispatches.push({ slot, replica, attempt, heldUs });
    this.log.push(`${slot}.${attempt}>${replica}`);
  }

  hedge(slot: number, attempt: number, replica: number, _epoch: number, choice: Choice): void {
    assert(this.#wantedOf(slot).pin < 0, 'who is pinned has no hedge');
    const facts = this.#facts.get(replica);
    const first = this.running.get(slot);
    assert(first?.attempt === attempt && !this.hedges.has(slot), 'one hedge beside an attempt');
    assert(first.replica !== replica, 'a hedge goes to another replica');
    assert(choice.candidates.row[choice.index] === replica, 'it goes where it says');
    assert(facts !== undefined && mayServe(facts, undefined), 'replica is routable');
    assert(this.#loadOf(replica) < facts.maxInFlight, 'never over max_in_flight');
    assert(!this.#isAwaited(replica), 'a hedge takes no room that somebody waits for');
    if (this.brain.queued(facts.model) > 0) this.passes.hedges++;
    this.hedges.set(slot, { attempt, replica });
    this.#hedgeSinceUs.set(slot, this.nowUs);
    this.hedgesBegun.push({ slot, replica, atUs: this.nowUs });
    this.log.push(`${slot}.${attempt}+${replica}`);
  }

  hedgeEnded(slot: number, result: HedgeResult): void {
    const hedge = this.hedges.get(slot);
    assert(hedge !== undefined && this.running.has(slot), 'what ends ran beside an attempt');
    this.hedges.delete(slot);
    if (result === HedgeResult.won) this.running.set(slot, hedge);
    this.hedgeEnds.push(Object.keys(HedgeResult)[result] as string);
    this.log.push(`${slot}=${this.hedgeEnds.at(-1)}`);
  }

  dropped(slot: number, replica: number): void {
    const both = [this.running.get(slot), this.hedges.get(slot)];
    assert(both[0] !== undefined && both[1] !== undefined, 'one of two is dropped');
    assert(both[0].replica === replica || both[1].replica === replica, 'it ran there');
    this.log.push(`${slot}-${replica}`);
  }

  batchBegins(): void {
    assert(this.#batch === undefined, 'one batch at a time');
    this.#batch = [];
  }

  batchEnds(): void {
    assert(this.#batch !== undefined, 'a batch ends that began');
    this.batches.push(this.#batch);
    this.log.push(`[${this.#batch.join()}]`);
    this.#batch = undefined;
  }

  refuse(slot: number, refusal: Refusal, error: number, retryAfterMs: number): void {
    assert(!this.running.has(slot), 'a running request is not refused');
    this.#wanted.delete(slot);
    this.refusals.push({ slot, refusal, error, retryAfterMs });
    this.log.push(`${slot}:${refusalNames[refusal]}:${error}:${retryAfterMs}`);
  }

  abort(slot: number): void {
    assert(this.running.has(slot), 'only a running attempt is aborted');
    this.aborts.push(slot);
    this.log.push(`${slot}!`);
  }

  attemptEnded(slot: number, replica: number): void {
    assert(this.running.get(slot)?.replica === replica, 'what ends was running there');
    this.running.delete(slot);
  }

  retry(slot: number, replica: number): void {
    this.retries.push(slot);
    this.log.push(`${slot}~${replica}`);
  }

  /** The brain's own recount, and the same counts as the model of this harness, once nothing is due at once. */
  check(): void {
    if (this.brain.nextTimerUs === 0) this.brain.tick(this.nowUs);
    this.brain.assertExact();
    assert(this.brain.attempts.running === this.running.size, 'running as told');
    for (const row of this.#facts.keys()) {
      const inFlight = this.brain.fleet.inFlight(row);
      assert(inFlight <= this.#loadOf(row), 'what a replica has was given to it');
    }
  }

  #wantedOf(slot: number): Wanted {
    return this.#wanted.get(slot) ?? anything;
  }

  /** Somebody waits who could use the replica. */
  #isAwaited(replica: number): boolean {
    const waiting = [...this.#wanted].filter(([slot]) => !this.running.has(slot));
    return waiting.some(([, wanted]) => waitsFor(wanted, replica, this.#facts.get(replica)));
  }

  #loadOf(replica: number): number {
    let load = 0;
    for (const running of [this.running, this.hedges]) {
      for (const other of running.values()) load += other.replica === replica ? 1 : 0;
    }
    return load;
  }

  #release(slot: number, end: Partial<Parameters<Brain['release']>[0]>): boolean {
    const generation = this.generations[slot] ?? 0;
    const attempt = this.running.get(slot)?.attempt ?? 0;
    if (end.settled === true && this.running.has(slot)) this.#wanted.delete(slot);
    const known = this.brain.release(
      { ...plainRelease, slot, generation, attempt, ...end },
      this.nowUs,
    );
    this.check();
    return known;
  }
}

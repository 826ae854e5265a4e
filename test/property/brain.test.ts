/**
 * Laws of the brain over random event sequences. The harness checks after every event: in-flight
 * equals a recount, waiters and what they wait for equal one, never over a limit, never below zero,
 * dispatched = released + in flight, one attempt a request, no hedge and no batch where somebody waits
 * for the room. This file adds: FIFO, every request ends once, work conservation, replay.
 */
import { expect, test } from 'vitest';
import type { PrefixSource } from '../../src/dispatch/arrival.ts';
import { BreakerState } from '../../src/dispatch/breaker.ts';
import { type Refusal, RetryRule } from '../../src/dispatch/decisions.ts';
import { policyNames } from '../../src/dispatch/policies/registry.ts';
import { createPrng, type Prng } from '../../src/lib/prng.ts';
import { BrainHarness, breakerRules, modelsWith, noPrefixes } from '../support/brain-harness.ts';

const seed = Number(process.env.SEED ?? Date.now() >>> 0);
console.info(`SEED=${seed}`);

const slots = 60;
const rows = 5;
const rules = [
  RetryRule.never,
  RetryRule.elsewhere,
  RetryRule.anywhere,
  RetryRule.alone,
  RetryRule.otherModel,
];
const batching = { windowUs: 20_000, itemsMax: 3, bytesMax: 40_000 };

const breakers = [
  { mode: 'off' },
  { mode: 'window', window: 4, openUs: 80_000 },
  { mode: 'consecutive', consecutive: 2, openUs: 80_000, panicBelow: 0 },
  { mode: 'quarantine', openUs: 50_000 },
] as const;

/** Adapters 1 and 2 of each row; nobody has adapter 2 of the second model. */
const adapterBits = [1, 3, 0, 1, 0];
const canServe = (row: number, adapter: number): boolean =>
  adapter === 0 || (((adapterBits[row] as number) >>> (adapter - 1)) & 1) === 1;

/** Prompts of up to six depths, of which few differ. */
function somePrefixes(walkSeed: number): PrefixSource {
  const random = createPrng(walkSeed);
  const words = Int32Array.from({ length: slots * 12 }, () => random.below(3));
  return { ...noPrefixes, words, startOf: (slot) => slot * 12, countOf: (slot) => slot % 7 };
}

class Walk {
  readonly harness: BrainHarness;
  readonly #random: Prng;
  /** Arrival number of the request that holds each slot; -1 for none. */
  readonly #held = new Array<number>(slots).fill(-1);
  /** How often each request has ended. */
  readonly ends: number[] = [];
  readonly #models: number[] = [];
  readonly #active = new Array<boolean>(rows).fill(true);
  readonly #healthy = new Array<boolean>(rows).fill(true);
  readonly #pausedUntilUs = new Array<number>(rows).fill(0);
  readonly #tried = new Set<number>();
  readonly #moved = new Set<number>();
  #fallbacksSeen = 0;
  /** Half of the walks have room to spare: batches are for those. */
  readonly #limit: number;
  readonly #limits: number[];
  /** Until when each request may wait for a batch. */
  readonly #gatherEndUs: number[] = [];
  #refusalsSeen = 0;
  #dispatchesSeen = 0;
  /** The newest request that has left each lane, by model and adapter. */
  readonly #lastFresh = new Map<string, number>();
  readonly #adapters: number[] = [];
  /** The row that alone can serve each request; -1: any can. */
  readonly #pins: number[] = [];
  readonly #draining = new Array<boolean>(rows).fill(false);

  constructor(walkSeed: number) {
    this.#random = createPrng(walkSeed);
    this.#limit = walkSeed % 2 === 0 ? 4 : 12;
    this.#limits = new Array<number>(rows).fill(this.#limit);
    const pick = (): string => policyNames[this.#random.below(policyNames.length)] as string;
    this.harness = new BrainHarness({
      ...{ slots, replicaRows: rows, prefixes: somePrefixes(walkSeed), seed: walkSeed },
      models: modelsWith(pick(), pick()).map((rules, model) => {
        // In every third walk requests go on from each model to the other.
        const goOn = walkSeed % 3 === 0 ? [{ model: 1 - model, adapter: model }] : [];
        const lists = { fallbacks: goOn, contextFallbacks: goOn };
        return { ...rules, sessionAffinity: true, ...lists };
      }),
      ...{ queueMax: 12, queueTimeoutMs: 400 },
      retry: { maxAttempts: 3, budget: 0.2, budgetMin: this.#limit },
      hedge: { automatic: this.#random.below(2) === 0, budget: 0.3 },
      breaker: { ...breakerRules, ...breakers[this.#random.below(breakers.length)] },
      slowStartUs: this.#random.below(2) * 300_000,
    });
    for (let row = 0; row < rows; row++) {
      const facts = { model: row < 3 ? 0 : 1, maxInFlight: this.#limit, weight: 1 + (row % 2) };
      const adapters = Int32Array.of(adapterBits[row] as number);
      this.harness.replica(row, { ...facts, adapters, ...(row % 2 === 0 ? { batching } : {}) });
    }
  }

  step(): void {
    const draw = this.#random.below(100);
    if (draw < 40) this.#arrive();
    else if (draw < 70) this.#end();
    else if (draw < 78) this.#cancel();
    else if (draw < 81) this.#firstToken();
    else if (draw < 83) this.#drop();
    else if (draw < 88) this.harness.advance(this.#random.below(60));
    else if (draw < 91) this.#reportEngine();
    else this.#changeReplica();
    this.#settle();
    this.#checkWorkConservation();
  }

  /** Brings every replica back, ends everything, lets every wait pass. */
  finish(): void {
    const back = { active: true, healthy: true, draining: false };
    for (let row = 0; row < rows; row++) this.harness.replica(row, back);
    for (let round = 0; round < 40; round++) {
      for (const slot of [...this.harness.running.keys()]) this.#succeed(slot);
      this.harness.advance(50);
      this.#settle();
    }
  }

  /** Who waits for a batch may do so for its window, whatever room there is. */
  #mayGather(request: number): boolean {
    return this.harness.nowUs < (this.#gatherEndUs[request] as number);
  }

  #arrive(): void {
    const slot = this.#held.indexOf(-1);
    if (slot < 0) return;
    const model = this.#random.below(2);
    this.#held[slot] = this.ends.length;
    this.ends.push(0);
    this.#models.push(model);
    const adapter = Math.max(0, this.#random.below(6) - 3);
    this.#adapters.push(adapter);
    // Every fifth is pinned, to a replica of its model.
    const isPinned = this.#random.below(5) === 0;
    const pin = isPinned ? (model === 0 ? this.#random.below(3) : 3 + this.#random.below(2)) : -1;
    this.#pins.push(pin);
    const batch0 = isPinned ? 0 : Math.max(0, this.#random.below(5) - 2); // two of five are in no batch
    const hedgeMs = [-1, -1, 0, 20][this.#random.below(4)] as number;
    const gathers = batch0 !== 0 && hedgeMs < 0;
    this.#gatherEndUs.push(!gathers ? 0 : this.harness.nowUs + batching.windowUs);
    this.harness.arrive(slot, model, 50 + this.#random.below(2000), {
      promptBytes: this.#random.below(20_000),
      textBytes: this.#random.below(20_000),
      streams: this.#random.below(2) === 0,
      hedgeUs: hedgeMs * 1000,
      ...{ adapter, pin, pinEpoch: 1 },
      ...{ session0: this.#random.below(4), batch0 }, // every fourth belongs to no session
    });
    if (hedgeMs === 0) this.harness.advance(0);
  }

  #end(): void {
    const running = [...this.harness.running.keys()];
    const slot = running[this.#random.below(Math.max(running.length, 1))];
    if (slot === undefined) return;
    const draw = this.#random.below(10);
    if (draw < 6) this.#succeed(slot);
    else if (draw < 9)
      this.harness.fail(slot, rules[this.#random.below(rules.length)] as RetryRule);
    else this.#pause(slot, this.#random.below(3) * 150);
  }

  #firstToken(): void {
    const running = [...this.harness.running.keys()];
    const slot = running[this.#random.below(Math.max(running.length, 1))];
    if (slot === undefined) return;
    expect(this.harness.firstToken(slot, this.#isByHedge(slot))).toBe(true);
  }

  /** Either of two exchanges may answer. */
  #isByHedge(slot: number): boolean {
    return this.harness.hedges.has(slot) && this.#random.below(2) === 0;
  }

  /** One of two exchanges fails. */
  #drop(): void {
    const hedged = [...this.harness.hedges.keys()];
    const slot = hedged[this.#random.below(Math.max(hedged.length, 1))];
    const hedge = this.#random.below(2) === 0;
    if (slot !== undefined) expect(this.harness.drop(slot, hedge)).toBe(true);
  }

  #pause(slot: number, retryAfterMs: number): void {
    const row = this.harness.running.get(slot)?.replica as number;
    const untilUs = this.harness.nowUs + (retryAfterMs || 200) * 1000;
    this.#pausedUntilUs[row] = Math.max(this.#pausedUntilUs[row] as number, untilUs);
    this.harness.busy(slot, retryAfterMs);
  }

  #succeed(slot: number): void {
    expect(this.harness.finish(slot, { hedge: this.#isByHedge(slot) })).toBe(true);
    this.#endRequest(slot);
  }

  #cancel(): void {
    this.harness.cancel(this.#random.below(slots));
  }

  /** Foreign load moves choices; it must not move a limit or a count. */
  #reportEngine(): void {
    const [running, waiting] = [this.#random.below(9), this.#random.below(9)];
    const scrapedUs = this.harness.nowUs - this.#random.below(6_000_000);
    const row = this.#random.below(rows);
    const ownRequests = this.harness.brain.fleet.inFlight(row);
    const kvTokens = this.#random.below(10_000);
    this.harness.report(row, { running, waiting, kvTokens, scrapedUs, ownRequests });
  }

  #changeReplica(): void {
    const row = this.#random.below(rows);
    const draw = this.#random.below(3);
    if (draw === 0) {
      // From there and back: it drains, or leaves.
      this.#active[row] = !this.#active[row];
      this.#draining[row] = this.#active[row] === false && this.#random.below(2) === 0;
      const [active, draining] = [this.#active[row] === true, this.#draining[row] === true];
      this.harness.replica(row, { active, draining });
    } else if (draw === 1) {
      this.#healthy[row] = this.#random.below(3) > 0;
      this.harness.replica(row, { healthy: this.#healthy[row] === true });
    } else {
      this.#limits[row] = 1 + this.#random.below(this.#limit + 2);
      this.harness.replica(row, { maxInFlight: this.#limits[row] as number });
    }
  }

  #endRequest(slot: number): void {
    const request = this.#held[slot] as number;
    expect(request).toBeGreaterThanOrEqual(0);
    this.ends[request] = (this.ends[request] as number) + 1;
    this.#held[slot] = -1;
  }

  /** Reads the decisions since the last step: first attempts leave a lane in order of arrival. */
  #settle(): void {
    const { dispatches, refusals, fallbacks } = this.harness;
    // Who goes on to another model is behind all that came there before.
    for (const { slot } of fallbacks.slice(this.#fallbacksSeen)) {
      this.#tried.add(this.#held[slot] as number);
      this.#moved.add(this.#held[slot] as number);
    }
    this.#fallbacksSeen = fallbacks.length;
    for (const { slot, attempt, heldUs } of dispatches.slice(this.#dispatchesSeen)) {
      const request = this.#held[slot];
      if (request === undefined || request < 0 || attempt > 1) continue;
      this.#tried.add(request);
      // Who moved on has waited until the next look at the timers.
      if (this.#moved.has(request)) continue;
      expect(heldUs).toBeLessThanOrEqual(400_000);
      if (this.#gatherEndUs[request] !== 0) continue; // who waits for a batch may be passed
      const pin = this.#pins[request] as number;
      const reach = `row ${pin} adapter ${this.#adapters[request]}`;
      const lane = `${this.#models[request]} ${reach}`;
      expect(request).toBeGreaterThan(this.#lastFresh.get(lane) ?? -1);
      this.#lastFresh.set(lane, request);
    }
    this.#dispatchesSeen = dispatches.length;
    const fresh: readonly { slot: number; refusal: Refusal }[] = refusals.slice(this.#refusalsSeen);
    for (const { slot } of fresh) this.#endRequest(slot);
    this.#refusalsSeen = refusals.length;
  }

  /** Nobody who was never tried waits while a replica of the model that has its adapter has room. */
  #checkWorkConservation(): void {
    const model = (row: number): number => (row < 3 ? 0 : 1);
    const couldServe = (request: number, row: number): boolean => {
      const pin = this.#pins[request] as number;
      const isAllowed = pin < 0 ? this.#active[row] === true : pin === row;
      const hasAdapter = canServe(row, this.#adapters[request] as number);
      return isAllowed && model(row) === this.#models[request] && hasAdapter;
    };
    const open = Array.from({ length: rows }, (_, row) => row).filter((row) => this.#room(row) > 0);
    const idle = this.#held.filter((request) => {
      const isNew = request >= 0 && !this.#tried.has(request) && !this.#mayGather(request);
      return isNew && open.some((row) => couldServe(request, row));
    });
    expect(idle).toEqual([]);
  }

  #room(row: number): number {
    const isPaused = (this.#pausedUntilUs[row] as number) > this.harness.nowUs;
    const isMember = this.#active[row] === true || this.#draining[row] === true;
    if (isPaused || !isMember || !this.#healthy[row]) return 0;
    // One that is out by its breaker may be asked, where too few are left, and need not be.
    if (this.harness.brain.fleet.breakerState(row) !== BreakerState.closed) return 0;
    return (this.#limits[row] as number) - this.harness.brain.fleet.inFlight(row);
  }
}

function walk(walkSeed: number, steps: number): Walk {
  const run = new Walk(walkSeed);
  for (let i = 0; i < steps; i++) run.step();
  run.finish();
  return run;
}

test('every request ends exactly once and all counts return to zero', () => {
  let batched = 0;
  let hedged = 0;
  let moved = 0;
  const passes = { hedges: 0, members: 0 };
  for (let i = 0; i < 40; i++) {
    const run = walk(seed + i, 1500);
    expect(run.ends.every((count) => count === 1)).toBe(true);
    expect(run.ends.length).toBeGreaterThan(200);
    hedged += run.harness.hedgesBegun.length;
    moved += run.harness.fallbacks.length;
    passes.hedges += run.harness.passes.hedges;
    passes.members += run.harness.passes.members;
    expect(run.harness.hedgeEnds).toHaveLength(run.harness.hedgesBegun.length);
    batched += run.harness.batches.filter(({ length }) => length > 1).length;
    expect(run.harness.brain.attempts.running).toBe(0);
    expect(run.harness.brain.queued(0) + run.harness.brain.queued(1)).toBe(0);
    expect(run.harness.brain.attempts.released).toBe(run.harness.brain.attempts.dispatched);
    expect(run.harness.brain.nextTimerUs).toBe(Number.POSITIVE_INFINITY);
  }
  expect(batched).toBeGreaterThan(5);
  expect(hedged).toBeGreaterThan(100);
  expect(moved).toBeGreaterThan(100);
  // Somebody waited for a replica that they did not go to.
  expect(passes.hedges).toBeGreaterThan(0);
  expect(passes.members).toBeGreaterThan(0);
});

test('the same seed gives the same decisions', () => {
  const first = walk(seed, 3000).harness.log;
  expect(first.length).toBeGreaterThan(1000);
  expect(walk(seed, 3000).harness.log).toEqual(first);
  expect(walk(seed + 1, 3000).harness.log).not.toEqual(first);
});

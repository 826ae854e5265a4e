/**
 * A brain with a clock in hand and a sink that keeps a model of what it was told: which attempts run
 * where, how each request ended. It refuses decisions that break a law on the spot.
 */
import { Brain } from '../../src/dispatch/brain.ts';
import {
  type BrainConfig,
  type DecisionSink,
  Refusal,
  RetryRule,
} from '../../src/dispatch/decisions.ts';
import type { ReplicaFacts } from '../../src/dispatch/fleet.ts';
import { errors } from '../../src/errors/catalogue.ts';
import { assert } from '../../src/lib/assert.ts';

const refusalNames = Object.keys(Refusal);

export interface Running {
  readonly attempt: number;
  readonly replica: number;
}

export class BrainHarness implements DecisionSink {
  readonly brain: Brain;
  nowUs = 1_000_000;
  /** Every decision, in words; two runs of one seed give the same text. */
  readonly log: string[] = [];
  readonly running = new Map<number, Running>();
  readonly dispatches: { slot: number; replica: number; attempt: number; heldUs: number }[] = [];
  readonly refusals: { slot: number; refusal: Refusal; error: number; retryAfterMs: number }[] = [];
  readonly aborts: number[] = [];
  readonly retries: number[] = [];
  /** Requests told to have ended by the brain, by slot and generation. */
  readonly generations: number[];
  readonly #facts = new Map<number, ReplicaFacts>();
  readonly #scratch: Int32Array;

  constructor(config: Partial<BrainConfig> = {}) {
    const full: BrainConfig = {
      slots: 64,
      replicaRows: 8,
      policies: ['least_in_flight'],
      seed: 1,
      queueMax: 1000,
      queueTimeoutMs: 30_000,
      retry: { maxAttempts: 3, budget: 0.2, budgetMin: 3 },
      ...config,
    };
    this.brain = new Brain(full, this);
    this.generations = new Array<number>(full.slots).fill(0);
    this.#scratch = new Int32Array(full.replicaRows);
  }

  replica(row: number, facts: Partial<ReplicaFacts> = {}): void {
    const known = this.#facts.get(row) ?? {
      ...{ epoch: 1, model: 0, active: true, healthy: true, maxInFlight: 256, weight: 1 },
    };
    const next = { ...known, ...facts };
    this.#facts.set(row, next);
    this.brain.updateReplica(row, next, this.nowUs);
    this.check();
  }

  replicas(count: number, facts: Partial<ReplicaFacts> = {}): void {
    for (let row = 0; row < count; row++) this.replica(row, facts);
  }

  arrive(slot: number, model = 0, deadlineMs = 600_000): boolean {
    const generation = (this.generations[slot] ?? 0) + 1;
    this.generations[slot] = generation;
    const deadlineUs = this.nowUs + deadlineMs * 1000;
    const known = this.brain.arrive(slot, generation, model, this.nowUs, deadlineUs, this.nowUs);
    this.check();
    return known;
  }

  /** The running attempt of the slot ends well. */
  finish(slot: number): boolean {
    return this.#release(slot, { settled: true });
  }

  /** It fails before anything was committed. */
  fail(slot: number, retry: RetryRule = RetryRule.elsewhere, error = 65): boolean {
    return this.#release(slot, { retry, error });
  }

  busy(slot: number, retryAfterMs: number, error = 77): boolean {
    return this.#release(slot, { retry: RetryRule.elsewhere, error, busy: true, retryAfterMs });
  }

  /** Its connection is refused: nothing was sent. */
  refuseConnection(slot: number): boolean {
    const error = errors.CONNECT_REFUSED.number;
    return this.#release(slot, { retry: RetryRule.anywhere, error, busy: true });
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
    const last = this.refusals.at(-1);
    return last && refusalNames[last.refusal];
  }

  dispatch(slot: number, attempt: number, replica: number, _epoch: number, heldUs: number): void {
    assert(!this.running.has(slot), 'one attempt of a request at a time');
    const facts = this.#facts.get(replica);
    assert(facts?.active === true && facts.healthy && facts.weight > 0, 'replica is routable');
    let load = 0;
    for (const other of this.running.values()) load += other.replica === replica ? 1 : 0;
    assert(load < facts.maxInFlight, 'never over max_in_flight');
    this.running.set(slot, { attempt, replica });
    this.dispatches.push({ slot, replica, attempt, heldUs });
    this.log.push(`${slot}.${attempt}>${replica}`);
  }

  refuse(slot: number, refusal: Refusal, error: number, retryAfterMs: number): void {
    assert(!this.running.has(slot), 'a running request is not refused');
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

  /** The brain's own recount, and the same counts as the model of this harness. */
  check(): void {
    this.brain.assertExact(this.#scratch);
    assert(this.brain.running === this.running.size, 'running as told');
  }

  #release(slot: number, end: Partial<Parameters<Brain['release']>[0]>): boolean {
    const known = this.brain.release(
      {
        slot,
        generation: this.generations[slot] ?? 0,
        attempt: this.running.get(slot)?.attempt ?? 0,
        ...{ busy: false, retryAfterMs: 0, error: 0, retry: RetryRule.never, settled: false },
        ...end,
      },
      this.nowUs,
    );
    this.check();
    return known;
  }
}

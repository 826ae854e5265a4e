/**
 * Limiter: asks the store of shared limits what the scheduler needs to know, and leases what it gives.
 *
 * An event-loop thread; one question for each row is under way at a time, and the next takes with it
 * whatever was asked meanwhile. Rows it writes are its own (shm/leases.layout.ts). While the store does not
 * answer it says so, answers every question at once with nothing, and looks for the store several times a
 * second: with the question that failed, because of a cluster another part may answer.
 * If the thread dies, what the store has given and nobody has written down is lost until the buckets have
 * filled again, which allows less and never more; its successor asks again what is not answered.
 */
import { nowUs } from '../lib/clock.ts';
import { faultPoint } from '../lib/fault-point.ts';
import { AskRingLayout } from '../shm/leases.layout.ts';
import { LeaseTable } from '../shm/leases.ts';
import { LimitTable } from '../shm/limits.ts';
import { askRingCapacity, type SharedLimits, type SharedMemory } from '../shm/memory.ts';
import { SpscConsumer } from '../shm/spsc-ring.ts';
import type { BucketAnswer, BucketCall } from './script.ts';
import { LateError, type Store } from './store.ts';

/** So much of what was taken in a while is worth holding, up to a share of a full bucket. */
const keepUs = 250_000;
const keepShare = 1 / 16;
/** Weight of the newest while. */
const keepWeight = 0.5;
/** Others give back meanwhile: who was refused may ask again after so long. */
const refusedUsMin = 5_000;
const refusedUsMax = 100_000;
const probeMs = 250;
const questionsMax = 256;
const lateCallsMax = 2;

export interface LimiterOptions {
  readonly memory: SharedMemory & { readonly sharedLimits: SharedLimits };
  readonly store: Store;
  readonly prefix: string;
  /** The scheduler has an answer. */
  wakeScheduler(): void;
  /** The store answers again, or does not any more. */
  onState(isDown: boolean, error: unknown): void;
  /** A question went to the store: whether it was answered. */
  onCall(isAnswered: boolean, us: number): void;
}

/** Names of the buckets in the store, by LimitKind. */
const bucketNames = ['requests', 'input_tokens', 'output_tokens'] as const;

const createAskConsumer = (region: SharedArrayBuffer) =>
  new SpscConsumer(AskRingLayout, region, askRingCapacity);

interface Question {
  readonly kind: number;
  /** What the scheduler had used and asked for. */
  readonly level: number;
  readonly call: BucketCall;
}

export class Limiter {
  readonly #options: LimiterOptions;
  readonly #leases: LeaseTable;
  readonly #limits: LimitTable;
  readonly #asks: ReturnType<typeof createAskConsumer>;
  #names: ReadonlyMap<number, string> = new Map();
  readonly #pending = new Set<number>();
  readonly #asking = new Set<number>();
  /** When each bucket was asked about last, and its demand then. */
  readonly #seen = new Map<number, { atUs: number; demand: number[] }>();
  #failedRow = -1;
  /** In a row. */
  #lateCalls = 0;
  #probe: NodeJS.Timeout | undefined;
  #isStopped = false;

  constructor(options: LimiterOptions) {
    const { memory } = options;
    this.#options = options;
    this.#leases = new LeaseTable(memory.sharedLimits.leases);
    this.#limits = new LimitTable(memory.limits);
    this.#asks = createAskConsumer(memory.sharedLimits.asks);
    const { words, at } = this.#leases;
    for (let row = 0; row < this.#leases.count; row++) {
      const word = this.#leases.word(row);
      if (words[word + at.asked] !== words[word + at.answered]) this.#pending.add(row);
    }
  }

  /** Names of the rows: `{tenant}` or `{tenant}:model`. */
  setNames(names: ReadonlyMap<number, string>): void {
    this.#names = names;
  }

  /** Until the store has answered once it counts as down. */
  async start(): Promise<void> {
    Atomics.store(this.#leases.words, this.#leases.isDown, 1);
    await this.#look((error) => this.#options.onState(true, error));
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#probe);
    this.#options.store.close();
  }

  /** True: more is there already. */
  drain(): boolean {
    const { words, at } = this.#leases;
    for (let cell = this.#asks.peek(); cell >= 0; cell = this.#asks.peek()) {
      const row = this.#asks.words[cell + this.#asks.at.row] as number;
      this.#asks.advance();
      Atomics.store(words, this.#leases.word(row) + at.isInRing, 0);
      this.#pending.add(row);
    }
    for (const row of this.#pending) {
      if (this.#asking.size >= questionsMax) break;
      if (this.#asking.has(row)) continue;
      this.#pending.delete(row);
      void this.#ask(row);
    }
    return false;
  }

  get #isDown(): boolean {
    return Atomics.load(this.#leases.words, this.#leases.isDown) === 1;
  }

  async #ask(row: number): Promise<void> {
    this.#asking.add(row);
    const { words, at } = this.#leases;
    const number = Atomics.load(words, this.#leases.word(row) + at.asked);
    faultPoint('asked');
    const sentUs = nowUs();
    try {
      if (!this.#isDown) await this.#take(row);
    } catch (error) {
      this.#options.onCall(false, nowUs() - sentUs);
      this.#failedRow = row;
      this.#lateCalls++;
      // One that is late may be late here; a second in a row is the store.
      if (!(error instanceof LateError) || this.#lateCalls >= lateCallsMax) this.#fail(error);
    }
    Atomics.store(words, this.#leases.word(row) + at.answered, number);
    Atomics.add(words, this.#leases.answers, 1);
    this.#asking.delete(row);
    this.#options.wakeScheduler();
    if (this.#pending.size > 0) this.drain();
  }

  async #take(row: number): Promise<void> {
    const questions = this.#questions(row);
    if (questions.length === 0) return;
    const owner = this.#owner(row);
    const sentUs = nowUs();
    const answers = await this.#options.store.take(questions.map(({ call }) => call));
    this.#lateCalls = 0;
    this.#options.onCall(true, nowUs() - sentUs);
    // Another tenant has the row meanwhile: what was given is not its own.
    if (this.#owner(row) !== owner) return;
    for (const [i, question] of questions.entries()) {
      this.#apply(row, question, answers[i] as BucketAnswer);
    }
  }

  #questions(row: number): Question[] {
    const name = this.#names.get(row);
    if (name === undefined) return [];
    const { doubles, at } = this.#limits;
    const word = this.#limits.word(row);
    const allowed = [
      [at.requestRate, at.requestBurst],
      [at.inputRate, at.inputBurst],
      [at.outputRate, at.outputBurst],
    ] as const;
    const questions: Question[] = [];
    const keep = this.#keep(row);
    for (const [kind, [rateAt, burstAt]] of allowed.entries()) {
      const rate = (doubles[(word + rateAt) >> 1] as number) / 1e6;
      const burst = doubles[(word + burstAt) >> 1] as number;
      if (rate === 0) continue;
      const field = (offset: number): number => this.#read(row, offset, kind);
      const { used, granted, need, want, returned, refunded, keep: keepAt } = this.#leases.at;
      // Whole units: the fractions of several gateways would be a request that nobody may send.
      const held = Math.floor(Math.min((keep[kind] as number) * keepUs, burst * keepShare));
      this.#write(row, keepAt, kind, held);
      const refund = field(returned) - field(refunded);
      // Before the call: what may have been given back is not given back again.
      this.#write(row, refunded, kind, field(returned));
      const charge = Math.max(0, field(used) - field(granted));
      const base = field(granted) + charge;
      const needed = Math.max(0, field(need) - base);
      const wanted = Math.min(burst, Math.max(field(want), field(used) + held, field(need)) - base);
      const key = `${this.#options.prefix}${name}:${bucketNames[kind]}`;
      questions.push({
        kind,
        level: field(need),
        call: { key, rate, burst, charge, refund, need: needed, want: Math.max(0, wanted) },
      });
    }
    return questions;
  }

  #apply(row: number, { kind, level, call }: Question, { given, fullInUs }: BucketAnswer): void {
    const { granted, tat, refused, retryUs } = this.#leases.at;
    const us = nowUs();
    const now = this.#read(row, granted, kind) + call.charge + given;
    this.#write(row, granted, kind, now);
    this.#write(row, tat, kind, us + fullInUs);
    // All there was is taken, or too little was there for the first who waits.
    const isShort = given < call.want - 1e-6;
    this.#write(row, refused, kind, given > 0 ? now : level);
    const refusedUs = Math.min(refusedUsMax, Math.max(refusedUsMin, 1 / call.rate));
    this.#write(row, retryUs, kind, isShort ? us + refusedUs : 0);
  }

  /** Units a microsecond that were taken of late, by kind. */
  #keep(row: number): number[] {
    const us = nowUs();
    const { demand: demandAt, keep } = this.#leases.at;
    const demand = bucketNames.map((_, kind) => this.#read(row, demandAt, kind));
    const before = this.#seen.get(row);
    this.#seen.set(row, { atUs: us, demand });
    if (before === undefined) return [0, 0, 0];
    const passed = Math.max(keepUs / 10, us - before.atUs);
    return demand.map((value, kind) => {
      const newest = (value - (before.demand[kind] as number)) / passed;
      const old = this.#read(row, keep, kind) / keepUs;
      return newest * keepWeight + old * (1 - keepWeight);
    });
  }

  #fail(error: unknown): void {
    if (this.#isDown) return;
    this.#options.store.close();
    this.#lateCalls = 0;
    Atomics.store(this.#leases.words, this.#leases.isDown, 1);
    this.#options.onState(true, error);
    this.#probe = setTimeout(() => void this.#look(), probeMs);
  }

  /** Looks for the store, now and until it answers. */
  async #look(onFailure?: (error: unknown) => void): Promise<void> {
    const { store, prefix } = this.#options;
    const name = this.#names.get(this.#failedRow) ?? '{probe}';
    const nothing = { rate: 1, burst: 1, charge: 0, refund: 0, need: 0, want: 0 };
    try {
      await store.connect();
      await store.take([{ key: `${prefix}${name}:probe`, ...nothing }]);
    } catch (error) {
      onFailure?.(error);
      if (!this.#isStopped) this.#probe = setTimeout(() => void this.#look(), probeMs);
      return;
    }
    if (this.#isStopped) return;
    Atomics.store(this.#leases.words, this.#leases.isDown, 0);
    this.#options.onState(false, undefined);
  }

  #owner(row: number): number {
    return this.#limits.words[this.#limits.word(row) + this.#limits.at.owner] as number;
  }

  #read(row: number, field: number, kind: number): number {
    return this.#leases.doubles[((this.#leases.word(row) + field) >> 1) + kind] as number;
  }

  #write(row: number, field: number, kind: number, value: number): void {
    this.#leases.doubles[((this.#leases.word(row) + field) >> 1) + kind] = value;
  }
}

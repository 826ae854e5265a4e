/**
 * Limiter: asks the store of shared limits what the scheduler needs to know, and leases what it gives.
 *
 * An event-loop thread; one question for each row is under way at a time, and the next takes with it
 * whatever was asked meanwhile. While the store does not answer it says so, answers every question at once
 * with nothing, and looks for the store several times a second: beside the row that failed, because of a
 * cluster another part may answer.
 * If the thread dies, what the store has given and nobody has written down is lost until the buckets have
 * filled again, which allows less and never more; its successor asks again what is not answered. A row is
 * taken from the ring before it is out of it: whoever dies in between leaves it there.
 */
import { nowUs } from '../lib/clock.ts';
import { faultPoint } from '../lib/fault-point.ts';
import { LateError, RefusedError } from '../redis/errors.ts';
import { AskRingLayout } from '../shm/leases.layout.ts';
import { askRingCapacity, type SharedLimits, type SharedMemory } from '../shm/memory.ts';
import { SpscConsumer } from '../shm/spsc-ring.ts';
import type { LimitNames } from '../shm/threads.ts';
import { LeaseBook } from './lease-book.ts';
import type { Store } from './store.ts';

const probeMsMin = 250;
const probeMsMax = 1000;
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
  /** A question went to the store; undefined: it was answered. */
  onCall(error: unknown, us: number): void;
}

const createAskConsumer = (region: SharedArrayBuffer) =>
  new SpscConsumer(AskRingLayout, region, askRingCapacity);

export class Limiter {
  readonly #options: LimiterOptions;
  readonly #book: LeaseBook;
  readonly #asks: ReturnType<typeof createAskConsumer>;
  /** Rows to ask about, and those that are asked about. */
  readonly #pending = new Set<number>();
  readonly #asking = new Set<number>();
  #failedRow = -1;
  /** In a row. */
  #lateCalls = 0;
  #probe: NodeJS.Timeout | undefined;
  #probeMs = probeMsMin;
  #isStopped = false;

  constructor(options: LimiterOptions) {
    const { memory, prefix } = options;
    this.#options = options;
    this.#book = new LeaseBook(memory, memory.sharedLimits, prefix);
    this.#asks = createAskConsumer(memory.sharedLimits.asks);
    const { leases } = this.#book;
    const { words, at } = leases;
    for (let row = 0; row < leases.count; row++) {
      const word = leases.word(row);
      if (words[word + at.asked] === words[word + at.answered]) continue;
      Atomics.store(words, word + at.isInRing, 0);
      this.#pending.add(row);
    }
  }

  /** Under which names the rows are in the store. */
  setNames(names: LimitNames): void {
    this.#book.setNames(names);
  }

  /** Until the store has answered once it counts as down. */
  async start(): Promise<void> {
    this.#setDown(true);
    await this.#look((error) => this.#options.onState(true, error));
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#probe);
    this.#options.store.close();
  }

  /** True: more is there already. */
  drain(): boolean {
    const { leases } = this.#book;
    for (let cell = this.#asks.peek(); cell >= 0; cell = this.#asks.peek()) {
      const row = this.#asks.words[cell + this.#asks.at.row] as number;
      Atomics.store(leases.words, leases.word(row) + leases.at.isInRing, 0);
      this.#pending.add(row);
      this.#asks.advance();
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
    const { leases } = this.#book;
    return Atomics.load(leases.words, leases.isDown) === 1;
  }

  async #ask(row: number): Promise<void> {
    this.#asking.add(row);
    const { leases } = this.#book;
    const word = leases.word(row);
    const number = Atomics.load(leases.words, word + leases.at.asked);
    faultPoint('asked');
    const sentUs = nowUs();
    try {
      // A turn of its own also while there is nothing to wait for: many rows are no deep stack.
      if (this.#isDown) await null;
      else await this.#take(row);
    } catch (error) {
      this.#options.onCall(error, nowUs() - sentUs);
      this.#onFailure(row, error);
    }
    Atomics.store(leases.words, word + leases.at.answered, number);
    Atomics.add(leases.words, leases.answers, 1);
    this.#asking.delete(row);
    this.#options.wakeScheduler();
    if (this.#pending.size > 0) this.drain();
  }

  async #take(row: number): Promise<void> {
    const questions = this.#book.questions(row);
    if (questions.length === 0) return;
    const owner = this.#book.ownerOf(row);
    const sentUs = nowUs();
    const answers = await this.#options.store.take(questions.map(({ call }) => call));
    this.#lateCalls = 0;
    this.#options.onCall(undefined, nowUs() - sentUs);
    // Another tenant has the row meanwhile: what was given is not its own.
    if (this.#book.ownerOf(row) !== owner) return;
    for (const [i, question] of questions.entries()) {
      const answer = answers[i];
      if (answer !== undefined) this.#book.apply(row, question, answer);
    }
  }

  #onFailure(row: number, error: unknown): void {
    // Of these keys alone: others are served.
    if (this.#isStopped || error instanceof RefusedError) return;
    this.#failedRow = row;
    this.#lateCalls++;
    // One that is late may be late here; a second in a row is the store.
    if (error instanceof LateError && this.#lateCalls < lateCallsMax) return;
    if (this.#isDown) return;
    this.#lateCalls = 0;
    this.#setDown(true);
    this.#options.store.close();
    this.#options.onState(true, error);
    this.#probeMs = probeMsMin;
    this.#lookLater();
  }

  /** Looks for the store, now and until it answers. */
  async #look(onFailure?: (error: unknown) => void): Promise<void> {
    const { store } = this.#options;
    // A write, as calls are: a server may be there and take none.
    const bucket = { rate: 1, burst: 1, charge: 0, refund: 0, need: 0, want: 1 };
    try {
      await store.connect();
      await store.take([{ key: this.#book.probeKey(this.#failedRow), ...bucket }]);
    } catch (error) {
      if (this.#isStopped) return;
      onFailure?.(error);
      store.close();
      this.#lookLater();
      return;
    }
    if (this.#isStopped) {
      store.close();
      return;
    }
    this.#setDown(false);
    this.#options.onState(false, undefined);
  }

  #lookLater(): void {
    this.#probe = setTimeout(() => void this.#look(), this.#probeMs);
    this.#probeMs = Math.min(probeMsMax, 2 * this.#probeMs);
  }

  #setDown(isDown: boolean): void {
    const { leases } = this.#book;
    Atomics.store(leases.words, leases.isDown, isDown ? 1 : 0);
  }
}

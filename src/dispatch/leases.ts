/**
 * Leases: what this gateway may take of limits that it shares with others, without asking. Pure; the rows
 * are shared with the limiter, which asks the store (shm/leases.layout.ts).
 *
 * What the store has given is taken here at once. Who finds too little waits for an answer, or is refused
 * at once for as long as the last one holds. So that few have to wait, a little is held: asked for ahead
 * when it runs low, and given back when much more comes back than is held.
 */
import { waitUs } from '../lib/gcra.ts';

/** The shared rows. Indexes of numbers count doubles, those of counts int32. */
export interface LeaseRows {
  readonly words: Int32Array;
  readonly doubles: Float64Array;
  readonly count: number;
  readonly isDown: number;
  readonly answers: number;
  /** Int32 index of a row. */
  word(row: number): number;
  readonly at: Readonly<
    Record<'isClosed' | 'isInRing' | 'asked' | 'answered', number> &
      Record<'used' | 'demand' | 'returned' | 'need' | 'want', number> &
      Record<'granted' | 'keep' | 'tat' | 'refused' | 'retryUs', number>
  >;
}

/** Limits that are shared with other gateways. */
export interface SharedLimits {
  readonly rows: LeaseRows;
  /** Puts a row into the ring of questions. False: it is full, and nobody hears of it. */
  readonly ask: (row: number) => boolean;
  /** How long a request may wait for an answer. */
  readonly budgetUs: number;
  /** What this gateway may use of each rate while the store is down; 0 to 1. */
  readonly share: number;
}

/** A bucket as it is allowed: units a microsecond, and what a full one holds. */
export interface Allowed {
  rate: number;
  burst: number;
}

/** Nobody knows when: the store is to be asked. */
export const ASK = Number.POSITIVE_INFINITY;

/** Of a full bucket: as much more than is worth holding may lie here before it goes back. */
const idleShare = 1 / 32;
const kinds = 3;
/** Sums of fractions differ by as much; far less than a unit. */
const fraction = 1e-6;
const ulps = 4 * Number.EPSILON;

export class Leases {
  readonly #rows: LeaseRows;
  readonly #publish: (row: number) => boolean;
  #answers = 0;

  /** `publish` puts a row into the ring of questions. What a predecessor had in there it may ask again. */
  constructor(rows: LeaseRows, publish: (row: number) => boolean) {
    this.#rows = rows;
    this.#publish = publish;
    for (let row = 0; row < rows.count; row++) {
      const at = rows.word(row) + rows.at.isInRing;
      if (rows.words[at] !== 0) Atomics.store(rows.words, at, 0);
      this.wantNothing(row);
    }
  }

  /** The store does not answer. */
  get isDown(): boolean {
    return Atomics.load(this.#rows.words, this.#rows.isDown) === 1;
  }

  /** The store has answered since it was last said so. */
  get hasAnswer(): boolean {
    return Atomics.load(this.#rows.words, this.#rows.answers) !== this.#answers;
  }

  seeAnswers(): void {
    this.#answers = Atomics.load(this.#rows.words, this.#rows.answers);
  }

  /** While the store is down nobody of this row is let in. */
  isClosed(row: number): boolean {
    return this.#rows.words[this.#rows.word(row) + this.#rows.at.isClosed] === 1;
  }

  /** Microseconds until `cost` may be taken: 0 now, ASK nobody knows. */
  waitUs(row: number, kind: number, cost: number, allowed: Allowed, nowUs: number): number {
    const { doubles, at } = this.#rows;
    const level = this.#level(row, kind, cost, allowed);
    const missing = level - this.#read(row, at.granted, kind);
    if (missing <= fraction + ulps * level) return 0;
    const isRefused = level >= this.#read(row, at.refused, kind);
    if (!isRefused || nowUs >= this.#read(row, at.retryUs, kind)) return ASK;
    const tat = doubles[this.#index(row, at.tat, kind)] as number;
    return Math.max(1, waitUs(tat, nowUs, missing, allowed.rate, allowed.burst));
  }

  /** Takes it, or gives it back where it is below 0. What that leaves is for the two below. */
  take(row: number, kind: number, cost: number): void {
    const { at } = this.#rows;
    if (cost > 0) this.#add(row, at.demand, kind, cost);
    this.#add(row, at.used, kind, cost);
  }

  /**
   * Asks ahead when what is held runs low, and for what was taken without being there. False: an answer is
   * under way, and nothing is known before it.
   */
  askAhead(row: number, kind: number, nowUs: number): boolean {
    const { at } = this.#rows;
    if (this.#isWaiting(row)) return false;
    const held = this.#held(row, kind);
    if (held >= 0 && held >= this.#read(row, at.keep, kind) / 2) return true;
    if (nowUs >= this.#read(row, at.retryUs, kind)) this.ask(row);
    return true;
  }

  /** Also gives back what is more than is worth holding. False: as askAhead(). */
  balance(row: number, kind: number, { burst }: Allowed, nowUs: number): boolean {
    const { at } = this.#rows;
    if (this.#isWaiting(row)) return false;
    const surplus = this.#held(row, kind) - this.#read(row, at.keep, kind);
    if (surplus <= burst * idleShare) return this.askAhead(row, kind, nowUs);
    this.#add(row, at.used, kind, surplus);
    this.#add(row, at.returned, kind, surplus);
    this.ask(row);
    return true;
  }

  /** Somebody waits for `cost`; the question is still to be asked. */
  want(row: number, kind: number, cost: number, allowed: Allowed): void {
    const { at } = this.#rows;
    const level = this.#level(row, kind, cost, allowed);
    const need = this.#read(row, at.need, kind);
    const isMet = need <= this.#read(row, at.granted, kind);
    if (isMet || level < need) this.#write(row, at.need, kind, level);
    const others = Math.max(this.#read(row, at.want, kind), this.#read(row, at.used, kind));
    this.#write(row, at.want, kind, others + (level - this.#read(row, at.used, kind)));
  }

  /** Nobody waits any more. */
  wantNothing(row: number): void {
    for (let kind = 0; kind < kinds; kind++) {
      this.#write(row, this.#rows.at.need, kind, 0);
      this.#write(row, this.#rows.at.want, kind, 0);
    }
  }

  /** Asks the store; returns the number of the question. */
  ask(row: number): number {
    const { words, at } = this.#rows;
    const word = this.#rows.word(row);
    const number = ((words[word + at.asked] as number) + 1) | 0;
    Atomics.store(words, word + at.asked, number);
    if (Atomics.exchange(words, word + at.isInRing, 1) === 0 && !this.#publish(row)) {
      Atomics.store(words, word + at.isInRing, 0);
    }
    return number;
  }

  isAnswered(row: number, number: number): boolean {
    const { words, at } = this.#rows;
    return ((Atomics.load(words, this.#rows.word(row) + at.answered) - number) | 0) >= 0;
  }

  /** The row has another owner, who holds nothing yet, save what the limiter is writing (lease-book.ts). */
  claim(row: number): void {
    const { at } = this.#rows;
    for (let kind = 0; kind < kinds; kind++) {
      this.#write(row, at.used, kind, this.#read(row, at.granted, kind));
    }
    this.wantNothing(row);
  }

  #isWaiting(row: number): boolean {
    const { words, at } = this.#rows;
    const word = this.#rows.word(row);
    return words[word + at.asked] !== Atomics.load(words, word + at.answered);
  }

  #held(row: number, kind: number): number {
    const { at } = this.#rows;
    return this.#read(row, at.granted, kind) - this.#read(row, at.used, kind);
  }

  /** What has to be granted for it; who needs more than there can be passes a full bucket. */
  #level(row: number, kind: number, cost: number, { burst }: Allowed): number {
    return this.#read(row, this.#rows.at.used, kind) + Math.min(cost, burst);
  }

  #index(row: number, field: number, kind: number): number {
    return ((this.#rows.word(row) + field) >> 1) + kind;
  }

  #read(row: number, field: number, kind: number): number {
    return this.#rows.doubles[this.#index(row, field, kind)] as number;
  }

  #write(row: number, field: number, kind: number, value: number): void {
    this.#rows.doubles[this.#index(row, field, kind)] = value;
  }

  #add(row: number, field: number, kind: number, value: number): void {
    const { doubles } = this.#rows;
    const at = this.#index(row, field, kind);
    doubles[at] = (doubles[at] as number) + value;
  }
}

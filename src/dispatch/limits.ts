/**
 * The limits of tenants: what a request takes of them when it arrives, and what comes back when it is
 * over. Pure; the rows are shared with whoever sets and shows the limits (shm/limits.layout.ts).
 *
 * A request takes one request, its prompt tokens as estimated and the output it may have, of its tenant's
 * row and of that of its tenant and model; all of it or, where one of them lacks something, nothing. When
 * it is over it has taken what was used: the rest comes back, or what was not foreseen is taken as well.
 */
import { assert } from '../lib/assert.ts';
import { taken, waitUs } from '../lib/gcra.ts';
import type { Arrival } from './arrival.ts';
import { NONE } from './candidates.ts';

/** What a request was refused for. */
export const LimitKind = { requests: 0, input: 1, output: 2, concurrency: 3 } as const;
export type LimitKind = (typeof LimitKind)[keyof typeof LimitKind];

/** The shared rows. Indexes of numbers count doubles, those of counts int32. */
export interface LimitRows {
  readonly words: Int32Array;
  readonly doubles: Float64Array;
  readonly count: number;
  /** Int32 index of a row. */
  word(row: number): number;
  readonly at: {
    readonly requestRate: number;
    readonly requestBurst: number;
    readonly inputRate: number;
    readonly inputBurst: number;
    readonly outputRate: number;
    readonly outputBurst: number;
    readonly requestTat: number;
    readonly inputTat: number;
    readonly outputTat: number;
    readonly concurrency: number;
    readonly running: number;
    readonly owner: number;
    readonly usedBy: number;
  };
}

/** Of a brain that knows no tenants. */
export const unlimitedRows: LimitRows = {
  words: new Int32Array(0),
  doubles: new Float64Array(0),
  count: 0,
  word: () => 0,
  at: {
    ...{ requestRate: 0, requestBurst: 0, requestTat: 0, inputRate: 0, inputBurst: 0, inputTat: 0 },
    ...{ outputRate: 0, outputBurst: 0, outputTat: 0, concurrency: 0, running: 0 },
    ...{ owner: 0, usedBy: 0 },
  },
};

/** What an arrival says that counts in no limit. */
export const unlimited = {
  ...{ limitRow: NONE, limitModelRow: NONE, takenInput: -1, takenOutput: -1 },
  ...{ generates: true, choices: 1 },
} as const;

export type Limited = Pick<Arrival, 'slot' | 'limitRow' | 'limitModelRow'>;

/** Rows that a request counts in: of its tenant, and of its tenant and model; NONE for none. */
const rowsOfRequest = 2;
const usPerSecond = 1e6;

interface Bucket {
  readonly kind: LimitKind;
  readonly rate: number;
  readonly burst: number;
  readonly tat: number;
}

export class Limits {
  /** What the last request that was refused will lack for longest, and for how long. */
  kind: LimitKind = LimitKind.requests;
  waitUs = 0;
  readonly #rows: LimitRows;
  readonly #buckets: readonly Bucket[];
  readonly #rowOf: Int32Array;
  /** The owner of the row when the request took of it. */
  readonly #ownerOf: Int32Array;
  /** What it took; of output by place, because a bucket bounds it. */
  readonly #input: Float64Array;
  readonly #output: Float64Array;
  /** What replicas have counted of it; below 0: an answer of which nobody knows. */
  readonly #usedInput: Float64Array;
  readonly #usedOutput: Float64Array;
  /** 1: content of its answer has begun. */
  readonly #hasBegun: Uint8Array;
  /** What `#cost` is asked for, by kind. */
  readonly #costs = new Float64Array(3);

  /** Nobody holds anything of the rows yet; what is in the buckets stays. */
  constructor(rows: LimitRows, slots: number) {
    const { at, words } = rows;
    for (let row = 0; row < rows.count; row++) {
      const running = rows.word(row) + at.running;
      if (words[running] !== 0) words[running] = 0;
    }
    this.#rows = rows;
    this.#buckets = [
      {
        kind: LimitKind.requests,
        rate: at.requestRate,
        burst: at.requestBurst,
        tat: at.requestTat,
      },
      { kind: LimitKind.input, rate: at.inputRate, burst: at.inputBurst, tat: at.inputTat },
      { kind: LimitKind.output, rate: at.outputRate, burst: at.outputBurst, tat: at.outputTat },
    ];
    this.#rowOf = new Int32Array(rowsOfRequest * slots).fill(NONE);
    this.#ownerOf = new Int32Array(rowsOfRequest * slots);
    this.#input = new Float64Array(slots);
    this.#output = new Float64Array(rowsOfRequest * slots);
    this.#usedInput = new Float64Array(slots);
    this.#usedOutput = new Float64Array(slots);
    this.#hasBegun = new Uint8Array(slots);
  }

  /** Takes what the request needs. False: `kind` and `waitUs` say what it lacks, and nothing is taken. */
  admit(arrival: Limited, inputTokens: number, outputTokens: number, nowUs: number): boolean {
    const { slot, limitRow, limitModelRow } = arrival;
    assert(this.#rowOf[rowsOfRequest * slot] === NONE, 'what it had taken was given back');
    if (limitRow === NONE && limitModelRow === NONE) return true;
    this.#costs[LimitKind.requests] = 1;
    this.#costs[LimitKind.input] = inputTokens;
    this.#costs[LimitKind.output] = outputTokens;
    this.waitUs = 0;
    const fits = this.#fits(limitRow, nowUs);
    if (!this.#fits(limitModelRow, nowUs) || !fits) return false;
    for (const row of [limitRow, limitModelRow]) {
      if (row === NONE) continue;
      for (const { kind } of this.#buckets) {
        this.#correct(row, kind, this.#costOf(row, kind, this.#costs[kind] as number), nowUs);
      }
    }
    this.hold(arrival, inputTokens, outputTokens);
    return true;
  }

  /** The request has taken so much, now or under an earlier brain. */
  hold({ slot, limitRow, limitModelRow }: Limited, input: number, output: number): void {
    this.#hold(slot, 0, limitRow, output);
    this.#hold(slot, 1, limitModelRow, output);
    this.#input[slot] = input;
    this.#usedInput[slot] = this.#usedOutput[slot] = 0;
    this.#hasBegun[slot] = 0;
  }

  /** Content of an answer is on its way to the client. */
  began(slot: number): void {
    this.#hasBegun[slot] = 1;
  }

  /**
   * A part of the answer has come, of so many tokens; below 0: nobody has counted them. Of an answer that
   * has not begun, as an error of the replica is, nothing is counted.
   */
  used(slot: number, promptTokens: number, completionTokens: number): void {
    const [input = 0, output = 0] = [this.#usedInput[slot], this.#usedOutput[slot]];
    if (completionTokens < 0 && this.#hasBegun[slot] === 0) return;
    const isKnown = completionTokens >= 0 && output >= 0;
    this.#usedOutput[slot] = isKnown ? output + completionTokens : -1;
    // Of several parts one tells of the prompt.
    if (input <= 0) this.#usedInput[slot] = promptTokens >= 0 ? promptTokens : -1;
  }

  /** What became of the request will not be known: what it took stays taken. */
  lose(slot: number): void {
    this.#usedInput[slot] = this.#usedOutput[slot] = -1;
  }

  /**
   * The request is over. What nobody has counted stays taken; `isAsked`: a replica was asked for
   * it. False: it had taken nothing.
   */
  close(slot: number, isAsked: boolean, nowUs: number): boolean {
    let had = false;
    for (let nth = 0; nth < rowsOfRequest; nth++) {
      const place = rowsOfRequest * slot + nth;
      const row = this.#rowOf[place] as number;
      if (row === NONE) continue;
      had = true;
      this.#rowOf[place] = NONE;
      const { words, at } = this.#rows;
      const word = this.#rows.word(row);
      // Another owner has it meanwhile: what this request took is gone.
      if (words[word + at.usedBy] !== this.#ownerOf[place]) continue;
      words[word + at.running] = (words[word + at.running] as number) - 1;
      if (!isAsked) this.#correct(row, LimitKind.requests, -1, nowUs);
      this.#settle(row, LimitKind.input, this.#usedInput[slot], this.#input[slot], nowUs);
      this.#settle(row, LimitKind.output, this.#usedOutput[slot], this.#output[place], nowUs);
    }
    return had;
  }

  #settle(
    row: number,
    kind: LimitKind,
    used: number | undefined,
    took: number | undefined,
    nowUs: number,
  ): void {
    if (used !== undefined && took !== undefined && used >= 0) {
      this.#correct(row, kind, used - took, nowUs);
    }
  }

  /** Output is set aside, and no more than there can be: what it comes to is settled at the end. */
  #costOf(row: number, kind: LimitKind, cost: number): number {
    if (kind !== LimitKind.output) return cost;
    const { doubles, at } = this.#rows;
    return Math.min(cost, doubles[(this.#rows.word(row) + at.outputBurst) >> 1] as number);
  }

  #hold(slot: number, nth: number, row: number, output: number): void {
    const place = rowsOfRequest * slot + nth;
    this.#rowOf[place] = row;
    if (row === NONE) return;
    const { words, at } = this.#rows;
    const word = this.#rows.word(row);
    this.#claim(word);
    this.#output[place] = this.#costOf(row, LimitKind.output, output);
    this.#ownerOf[place] = words[word + at.usedBy] as number;
    words[word + at.running] = (words[word + at.running] as number) + 1;
  }

  #fits(row: number, nowUs: number): boolean {
    if (row === NONE) return true;
    const { words, doubles, at } = this.#rows;
    const word = this.#rows.word(row);
    this.#claim(word);
    const most = words[word + at.concurrency] as number;
    let fits = most === 0 || (words[word + at.running] as number) < most;
    if (!fits && this.waitUs === 0) this.kind = LimitKind.concurrency;
    for (const { kind, rate, burst, tat } of this.#buckets) {
      const perSecond = doubles[(word + rate) >> 1] as number;
      if (perSecond === 0) continue;
      const wait = waitUs(
        doubles[(word + tat) >> 1] as number,
        nowUs,
        this.#costOf(row, kind, this.#costs[kind] as number),
        perSecond / usPerSecond,
        doubles[(word + burst) >> 1] as number,
      );
      if (wait <= 0) continue;
      fits = false;
      if (wait <= this.waitUs) continue;
      this.kind = kind;
      this.waitUs = wait;
    }
    return fits;
  }

  #correct(row: number, kind: LimitKind, cost: number, nowUs: number): void {
    const { doubles } = this.#rows;
    const { rate, tat } = this.#buckets[kind] as Bucket;
    const word = this.#rows.word(row);
    const perSecond = doubles[(word + rate) >> 1] as number;
    if (perSecond === 0 || cost === 0) return;
    const at = (word + tat) >> 1;
    doubles[at] = taken(doubles[at] as number, nowUs, cost, perSecond / usPerSecond);
  }

  /** Empties a row that has another owner. */
  #claim(word: number): void {
    const { words, doubles, at } = this.#rows;
    const owner = words[word + at.owner] as number;
    if (words[word + at.usedBy] === owner) return;
    words[word + at.usedBy] = owner;
    words[word + at.running] = 0;
    for (const { tat } of this.#buckets) doubles[(word + tat) >> 1] = 0;
  }
}

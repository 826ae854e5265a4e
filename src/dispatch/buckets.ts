/**
 * The token buckets of the rows of limits: requests, prompt tokens, output tokens (lib/gcra.ts). Pure; what
 * is in them outlives the brain, for it is in the rows.
 *
 * A bucket is a time, and what that is in units is said by a rate. The rate it is by is kept beside it, so
 * that a change of limits leaves as many units taken as were taken.
 */
import { carried, taken, waitUs } from '../lib/gcra.ts';
import type { Allowed } from './leases.ts';
import { LimitKind, type LimitRows } from './limit-rows.ts';

const usPerSecond = 1e6;

interface Bucket {
  readonly rate: number;
  readonly burst: number;
  readonly tat: number;
  readonly tatRate: number;
}

/** By place in the list. */
export const bucketKinds = [LimitKind.requests, LimitKind.input, LimitKind.output] as const;

export class Buckets {
  readonly #rows: LimitRows;
  readonly #fields: readonly Bucket[];
  readonly #allowed: Allowed = { rate: 0, burst: 0 };

  constructor(rows: LimitRows) {
    const { at } = rows;
    this.#rows = rows;
    this.#fields = [
      {
        rate: at.requestRate,
        burst: at.requestBurst,
        tat: at.requestTat,
        tatRate: at.requestTatRate,
      },
      { rate: at.inputRate, burst: at.inputBurst, tat: at.inputTat, tatRate: at.inputTatRate },
      { rate: at.outputRate, burst: at.outputBurst, tat: at.outputTat, tatRate: at.outputTatRate },
    ];
  }

  /** What the row allows, `share` of it; rate 0: there is no such limit. The next call reuses the record. */
  allowed(row: number, kind: number, share = 1): Allowed {
    const { rate, burst } = this.#fields[kind] as Bucket;
    this.#allowed.rate = (this.#read(row, rate) * share) / usPerSecond;
    this.#allowed.burst = this.#read(row, burst) * share;
    return this.#allowed;
  }

  /** Microseconds until `cost` may be taken; not above 0: now. */
  waitUs(row: number, kind: number, cost: number, { rate, burst }: Allowed, nowUs: number): number {
    return waitUs(this.#tat(row, kind, rate, nowUs), nowUs, cost, rate, burst);
  }

  /** Takes it, whatever is left, or gives it back where it is below 0. */
  take(row: number, kind: number, cost: number, { rate }: Allowed, nowUs: number): void {
    const { tat, tatRate } = this.#fields[kind] as Bucket;
    this.#write(row, tat, taken(this.#tat(row, kind, rate, nowUs), nowUs, cost, rate));
    this.#write(row, tatRate, rate);
  }

  /** The row is another's: its buckets are full. */
  fill(row: number): void {
    for (const { tat } of this.#fields) this.#write(row, tat, 0);
  }

  #tat(row: number, kind: number, rate: number, nowUs: number): number {
    const { tat, tatRate } = this.#fields[kind] as Bucket;
    return carried(this.#read(row, tat), nowUs, this.#read(row, tatRate), rate);
  }

  #read(row: number, field: number): number {
    return this.#rows.doubles[(this.#rows.word(row) + field) >> 1] as number;
  }

  #write(row: number, field: number, value: number): void {
    this.#rows.doubles[(this.#rows.word(row) + field) >> 1] = value;
  }
}

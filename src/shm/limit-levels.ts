/**
 * What is left of a limit, for people and for `x-ratelimit-*`. Reads only; of this moment, and requests go
 * on taking.
 *
 * Where limits are shared by way of a store it is what the store had left when it answered last, and what is
 * leased here; while the store is down, what this gateway itself would allow.
 */
import { carried, fullInUs, remaining } from '../lib/gcra.ts';
import { LeaseTable } from './leases.ts';
import { LimitTable } from './limits.ts';
import type { SharedMemory } from './memory.ts';

const usPerSecond = 1e6;
const minuteS = 60;

export interface Level {
  readonly perMinute: number;
  /** Units of a full bucket. */
  readonly burst: number;
  /** Units left, fractions included. */
  readonly units: number;
  /** Milliseconds until it is full. */
  readonly resetMs: number;
}

type Fields = readonly [rate: number, burst: number, tat: number, tatRate: number];

/** Requests, prompt tokens and output tokens: the places of what belongs to each. */
export type BucketKind = 0 | 1 | 2;

export class LimitLevels {
  readonly table: LimitTable;
  readonly #leases: LeaseTable | undefined;
  readonly #fields: readonly Fields[];

  constructor({ limits, sharedLimits }: Pick<SharedMemory, 'limits' | 'sharedLimits'>) {
    this.table = new LimitTable(limits);
    this.#leases = sharedLimits === null ? undefined : new LeaseTable(sharedLimits.leases);
    const { at } = this.table;
    this.#fields = [
      [at.requestRate, at.requestBurst, at.requestTat, at.requestTatRate],
      [at.inputRate, at.inputBurst, at.inputTat, at.inputTatRate],
      [at.outputRate, at.outputBurst, at.outputTat, at.outputTatRate],
    ];
  }

  /** Undefined: the row has no such limit. `us` is the time of lib/clock.ts. */
  read(row: number, kind: BucketKind, us: number): Level | undefined {
    const { doubles } = this.table;
    const word = this.table.word(row);
    const field = (offset: number): number => doubles[(word + offset) >> 1] as number;
    const [rateAt, burstAt, tatAt, tatRateAt] = this.#fields[kind] as Fields;
    const perSecond = field(rateAt);
    if (perSecond === 0) return undefined;
    const burst = field(burstAt);
    const leases = this.#leases;
    const isLeased = leases !== undefined && Atomics.load(leases.words, leases.isDown) === 0;
    const rate = perSecond / usPerSecond;
    const tat = isLeased
      ? leased(leases, row, leases.at.tat, kind)
      : carried(field(tatAt), us, field(tatRateAt), rate);
    const held = isLeased
      ? leased(leases, row, leases.at.granted, kind) - leased(leases, row, leases.at.used, kind)
      : 0;
    const left = remaining(tat, us, rate, burst);
    return {
      perMinute: perSecond * minuteS,
      burst,
      units: Math.min(burst, Math.max(0, left + held)),
      resetMs: fullInUs(tat, us) / 1000,
    };
  }
}

const leased = (leases: LeaseTable, row: number, field: number, kind: number): number =>
  leases.doubles[((leases.word(row) + field) >> 1) + kind] as number;

/**
 * The limiter's side of the leases: what to ask the store about a row, and what comes of the answer. Limiter
 * thread; it writes its own words only (shm/leases.layout.ts).
 *
 * What is charged and what is given back is written down before it is sent, once: an answer that never comes
 * may have changed the store or not, and neither is repeated. What the store gives is written down after.
 * A row that changes hands is asked about again once names, limits and what was taken are of one owner: what the
 * last one owed or gave back is neither charged to the next nor given to it. One answer may be: the owner is looked
 * at before `granted` is written, and a thread held up in between writes it behind the claim of the next one, who
 * then holds that much more, once.
 */
import { nowUs } from '../lib/clock.ts';
import { LeaseTable } from '../shm/leases.ts';
import { LimitTable } from '../shm/limits.ts';
import type { SharedLimits, SharedMemory } from '../shm/memory.ts';
import type { LimitNames } from '../shm/threads.ts';
import type { BucketAnswer, BucketCall } from './script.ts';

/** So much of what was taken in a while is worth holding, up to a share of a full bucket. */
const keepUs = 250_000;
const keepShare = 1 / 16;
/** Weight of the newest while. */
const keepWeight = 0.5;
/** Others give back meanwhile: who was refused may ask again after so long. */
const refusedUsMin = 5_000;
const refusedUsMax = 100_000;
/** Of a unit, and less than any that is taken: sums of fractions differ by as much. */
const fraction = 1e-6;

/** Names of the buckets in the store, by LimitKind. */
const bucketNames = ['requests', 'input_tokens', 'output_tokens'] as const;
const usPerSecond = 1e6;

export interface Question {
  readonly kind: number;
  /** Level that the first of those who wait needs. */
  readonly level: number;
  readonly call: BucketCall;
}

interface Seen {
  readonly owner: number;
  readonly atUs: number;
  readonly demand: readonly number[];
}

export class LeaseBook {
  readonly leases: LeaseTable;
  readonly #limits: LimitTable;
  readonly #prefix: string;
  #names: LimitNames = new Map();
  /** When each row was asked about last, and its demand then. */
  readonly #seen = new Map<number, Seen>();

  constructor(memory: SharedMemory, { leases }: SharedLimits, prefix: string) {
    this.leases = new LeaseTable(leases);
    this.#limits = new LimitTable(memory.limits);
    this.#prefix = prefix;
  }

  setNames(names: LimitNames): void {
    this.#names = names;
    for (const [row, { owner }] of this.#seen) {
      if (names.get(row)?.owner === owner) continue;
      this.#seen.delete(row);
      this.#begin(row);
    }
  }

  /** Name of a key beside the buckets of that row; in a cluster in the same place. */
  probeKey(row: number): string {
    return `${this.#prefix}${this.#names.get(row)?.name ?? '{probe}'}:probe`;
  }

  /** Whose row it is, by a number; another one's is not to get what was asked for it. */
  ownerOf(row: number): number {
    const owner = this.#names.get(row)?.owner;
    const { words, at } = this.#limits;
    const word = this.#limits.word(row);
    // Pairs with the store in the scheduler: behind the load what is leased is of that owner.
    const isUsed = Atomics.load(words, word + at.usedBy) === owner;
    return owner !== undefined && isUsed && words[word + at.owner] === owner ? owner : -1;
  }

  /** What there is to ask about the row: nothing while it changes hands. */
  questions(row: number): Question[] {
    const named = this.#names.get(row);
    if (named === undefined || this.ownerOf(row) !== named.owner) return [];
    const { doubles, at } = this.#limits;
    const word = this.#limits.word(row);
    const allowed = [
      [at.requestRate, at.requestBurst],
      [at.inputRate, at.inputBurst],
      [at.outputRate, at.outputBurst],
    ] as const;
    const keep = this.#keep(row, named.owner);
    const questions: Question[] = [];
    for (const [kind, [rateAt, burstAt]] of allowed.entries()) {
      const rate = (doubles[(word + rateAt) >> 1] as number) / usPerSecond;
      const burst = doubles[(word + burstAt) >> 1] as number;
      if (rate === 0) continue;
      const key = `${this.#prefix}${named.name}:${bucketNames[kind]}`;
      questions.push(this.#question(row, kind, { key, rate, burst }, keep[kind] as number));
    }
    return questions;
  }

  apply(row: number, { kind, level, call }: Question, { given, fullInUs }: BucketAnswer): void {
    const { granted, tat, refused, retryUs } = this.leases.at;
    const us = nowUs();
    const now = this.#read(row, granted, kind) + given;
    this.#write(row, granted, kind, now);
    this.#write(row, tat, kind, us + fullInUs);
    const isShort = given < call.want - fraction || (given === 0 && call.need > 0);
    // All there was is taken, or too little was there for the first who waits.
    this.#write(row, refused, kind, given > 0 ? now : level);
    const refusedUs = Math.min(refusedUsMax, Math.max(refusedUsMin, 1 / call.rate));
    this.#write(row, retryUs, kind, isShort ? us + refusedUs : 0);
  }

  #question(
    row: number,
    kind: number,
    bucket: Pick<BucketCall, 'key' | 'rate' | 'burst'>,
    ofLate: number,
  ): Question {
    const { used, granted, need, want, returned, refunded, keep } = this.leases.at;
    const field = (offset: number): number => this.#read(row, offset, kind);
    const { burst } = bucket;
    // Whole units: the fractions of several gateways would be a request that nobody may send.
    const held = Math.floor(Math.min(ofLate * keepUs, burst * keepShare));
    this.#write(row, keep, kind, held);
    const comesBack = field(returned);
    const refund = comesBack - field(refunded);
    this.#write(row, refunded, kind, comesBack);
    const [usedNow, level] = [field(used), field(need)];
    const charge = Math.max(0, usedNow - field(granted));
    const base = field(granted) + charge;
    if (charge > 0) this.#write(row, granted, kind, base);
    const wanted = Math.max(field(want), usedNow + held, level) - base;
    const call = {
      ...{ ...bucket, charge, refund },
      need: Math.max(0, level - base),
      want: Math.max(0, Math.min(burst, wanted)),
    };
    return { kind, level, call };
  }

  /** Units a microsecond that were taken of late, by kind. */
  #keep(row: number, owner: number): readonly number[] {
    const us = nowUs();
    const { demand: demandAt, keep } = this.leases.at;
    const demand = bucketNames.map((_, kind) => this.#read(row, demandAt, kind));
    const before = this.#seen.get(row);
    this.#seen.set(row, { owner, atUs: us, demand });
    if (before === undefined || before.owner !== owner) return this.#begin(row);
    const passed = Math.max(keepUs / 10, us - before.atUs);
    return demand.map((value, kind) => {
      const newest = (value - (before.demand[kind] as number)) / passed;
      const old = this.#read(row, keep, kind) / keepUs;
      return newest * keepWeight + old * (1 - keepWeight);
    });
  }

  /** What is known of the row is of another owner, or of nobody. */
  #begin(row: number): readonly number[] {
    const { returned, refunded, retryUs } = this.leases.at;
    for (const kind of bucketNames.keys()) {
      this.#write(row, refunded, kind, this.#read(row, returned, kind));
      this.#write(row, retryUs, kind, 0);
    }
    return [0, 0, 0];
  }

  #read(row: number, field: number, kind: number): number {
    return this.leases.doubles[((this.leases.word(row) + field) >> 1) + kind] as number;
  }

  #write(row: number, field: number, kind: number, value: number): void {
    this.leases.doubles[((this.leases.word(row) + field) >> 1) + kind] = value;
  }
}

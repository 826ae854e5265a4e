/**
 * Fleet: what the brain knows of each replica, by row of the replica table, and who may be picked.
 *
 * Membership (the row exists under this epoch), admin, health and pause are separate facts; routable
 * is derived: active, healthy, weight above 0. A candidate is routable, not paused and below its
 * limit. Every change of one of these goes through #refresh, so `candidates` never has to be
 * filtered at a pick. Pure. A pause is what a replica asks for that answers "busy": it never ends
 * earlier than promised, a shorter one does not cut a longer one.
 */
import { assert } from '../lib/assert.ts';
import { Candidates } from './candidates.ts';

export interface ReplicaFacts {
  /** Another epoch is another replica: nothing that was counted before belongs to it. */
  readonly epoch: number;
  readonly model: number;
  readonly active: boolean;
  readonly healthy: boolean;
  readonly maxInFlight: number;
  readonly weight: number;
}

interface Replica {
  readonly row: number;
  facts: ReplicaFacts;
  routable: boolean;
  inFlight: number;
  /** Not picked before this time. */
  pausedUntilUs: number;
  /** Error it paused itself with. */
  pauseError: number;
}

/** Whether a request that no candidate can take may hope for one. */
export const Outlook = { none: 0, paused: 1, full: 2 } as const;
export type Outlook = (typeof Outlook)[keyof typeof Outlook];

const unused: ReplicaFacts = {
  epoch: 0,
  model: -1,
  active: false,
  healthy: false,
  maxInFlight: 0,
  weight: 0,
};

export class Fleet {
  /** Of the last outlook() that said `paused`: when the first of them resumes, and why it paused. */
  pauseEndUs = 0;
  pauseError = 0;
  /** When the next pause ends; Infinity when nobody is paused. */
  nextResumeUs = Number.POSITIVE_INFINITY;
  readonly #replicas: readonly Replica[];
  readonly #byModel: Replica[][];
  readonly #candidates: readonly Candidates[];
  readonly #scratch: Candidates;

  constructor(rows: number, models: number) {
    this.#replicas = Array.from({ length: rows }, (_, row) => ({
      ...{ row, facts: unused, routable: false, inFlight: 0, pausedUntilUs: 0, pauseError: 0 },
    }));
    this.#byModel = Array.from({ length: models }, () => []);
    this.#candidates = Array.from({ length: models }, () => new Candidates(rows));
    this.#scratch = new Candidates(rows);
  }

  candidates(model: number): Candidates {
    return this.#candidates[model] as Candidates;
  }

  /** The candidates without those whose row is in `excluded`; valid until the next call. */
  candidatesWithout(model: number, excluded: (row: number) => boolean): Candidates {
    const all = this.candidates(model);
    this.#scratch.clear();
    for (let i = 0; i < all.length; i++) {
      const row = all.row[i] as number;
      if (excluded(row)) continue;
      this.#scratch.set(row, all.inFlight[i] as number, all.weight[i] as number);
    }
    return this.#scratch;
  }

  epoch(row: number): number {
    return this.#at(row).facts.epoch;
  }

  inFlight(row: number): number {
    return this.#at(row).inFlight;
  }

  get rows(): number {
    return this.#replicas.length;
  }

  update(row: number, facts: ReplicaFacts): void {
    const replica = this.#at(row);
    const before = replica.facts;
    assert(!facts.active || this.#byModel[facts.model] !== undefined, 'the model is known');
    if (before.model !== facts.model) {
      const old = this.#byModel[before.model];
      if (old !== undefined) {
        old.splice(old.indexOf(replica), 1);
        this.candidates(before.model).delete(row);
      }
      this.#byModel[facts.model]?.push(replica);
    }
    if (before.epoch !== facts.epoch) {
      replica.inFlight = 0;
      replica.pausedUntilUs = 0;
    }
    replica.facts = facts;
    replica.routable = facts.active && facts.healthy && facts.weight > 0;
    this.#refresh(replica);
  }

  /** Counts an attempt that starts now. */
  take(row: number): void {
    const replica = this.#at(row);
    assert(replica.routable, 'only a routable replica is picked');
    assert(replica.inFlight < replica.facts.maxInFlight, 'a full replica is no candidate');
    replica.inFlight++;
    this.#refresh(replica);
  }

  /** Counts an attempt that a predecessor of this brain had started. */
  restore(row: number, epoch: number): void {
    const replica = this.#at(row);
    if (replica.facts.epoch !== epoch) return;
    replica.inFlight++;
    this.#refresh(replica);
  }

  /** The end of an attempt that was counted under `epoch`. */
  release(row: number, epoch: number): void {
    const replica = this.#at(row);
    if (replica.facts.epoch !== epoch) return;
    assert(replica.inFlight > 0, 'what is released was taken');
    replica.inFlight--;
    this.#refresh(replica);
  }

  pause(row: number, epoch: number, untilUs: number, error: number): void {
    const replica = this.#at(row);
    if (replica.facts.epoch !== epoch || untilUs <= replica.pausedUntilUs) return;
    replica.pausedUntilUs = untilUs;
    replica.pauseError = error;
    this.nextResumeUs = Math.min(this.nextResumeUs, untilUs);
    this.#refresh(replica);
  }

  /** Ends the pauses that are over; calls `resumed` with the model of each such replica. */
  resume(nowUs: number, resumed: (model: number) => void): void {
    if (nowUs < this.nextResumeUs) return;
    this.nextResumeUs = Number.POSITIVE_INFINITY;
    for (const replica of this.#replicas) {
      if (replica.pausedUntilUs === 0) continue;
      if (replica.pausedUntilUs > nowUs) {
        this.nextResumeUs = Math.min(this.nextResumeUs, replica.pausedUntilUs);
        continue;
      }
      replica.pausedUntilUs = 0;
      this.#refresh(replica);
      if (replica.facts.model >= 0) resumed(replica.facts.model);
    }
  }

  /**
   * Off the hot path. none: no routable replica but excluded ones. paused: all others are paused.
   * full: one of them will have room when it finishes something.
   */
  outlook(model: number, excluded: (row: number) => boolean): Outlook {
    let outlook: Outlook = Outlook.none;
    this.pauseEndUs = Number.POSITIVE_INFINITY;
    for (const replica of this.#byModel[model] as Replica[]) {
      if (!replica.routable || excluded(replica.row)) continue;
      if (replica.pausedUntilUs === 0) return Outlook.full;
      outlook = Outlook.paused;
      if (replica.pausedUntilUs < this.pauseEndUs) {
        this.pauseEndUs = replica.pausedUntilUs;
        this.pauseError = replica.pauseError;
      }
    }
    return outlook;
  }

  #at(row: number): Replica {
    const replica = this.#replicas[row];
    assert(replica !== undefined, 'the row is in the table');
    return replica;
  }

  #refresh(replica: Replica): void {
    const { facts, row, inFlight } = replica;
    const candidates = this.#candidates[facts.model];
    if (candidates === undefined) return;
    if (replica.routable && replica.pausedUntilUs === 0 && inFlight < facts.maxInFlight) {
      candidates.set(row, inFlight, facts.weight);
    } else {
      candidates.delete(row);
    }
  }
}

/**
 * The explain ring in use: the scheduler writes records, the main thread and the acceptors read them.
 *
 * Nobody waits: who finds a record taken goes on without it, the scheduler to the next one. A thread
 * that dies while it has a record takes that record with it and nothing else. A successor of the
 * scheduler goes on behind the newest record.
 */
import { assert } from '../lib/assert.ts';
import {
  ExplainLayout,
  explainCandidatesMax,
  explainCounts,
  explainFilters,
} from './explain.layout.ts';

/** Records in a row that readers can have taken: the main thread, a few acceptors. */
const takenMax = 8;

const stampOf = (position: number): number => (2 * position + 2) | 0;

export function createExplain(records: number): SharedArrayBuffer {
  assert(Number.isInteger(Math.log2(records)), 'the number of records is a power of two');
  return ExplainLayout.create(explainCounts(records));
}

type Places = ReturnType<typeof ExplainLayout.place>['at'];

export class ExplainWriter {
  readonly words: Int32Array;
  readonly at: Places['record']['at'];
  readonly candidateAt: Places['candidate']['at'];
  /** Words of a candidate. */
  readonly candidateWords: number;
  /** Word of the first candidate of the record that was begun. */
  firstCandidate = 0;
  readonly #records: Places['record'];
  readonly #candidates: Places['candidate'];
  readonly #mask: number;
  /** Of the next record; wraps. */
  #position = 0;
  #record = 0;

  constructor(region: SharedArrayBuffer, records: number) {
    const { at } = ExplainLayout.attach(region, explainCounts(records));
    this.words = new Int32Array(region);
    this.at = at.record.at;
    this.candidateAt = at.candidate.at;
    this.candidateWords = at.candidate.stride;
    this.#records = at.record;
    this.#candidates = at.candidate;
    this.#mask = records - 1;
    let newest = 0;
    for (let index = 0; index < records; index++) {
      const stamp = Atomics.load(this.words, at.record.base + index * at.record.stride);
      const isNewer = newest === 0 || ((stamp - newest) | 0) > 0;
      if (stamp !== 0 && isNewer) newest = stamp;
    }
    this.#position = (newest + 1) >> 1;
  }

  /** Takes the next record that nobody reads; fill its words, then commit(). -1: there is none. */
  begin(): number {
    for (let taken = 0; taken < takenMax; taken++) {
      const index = this.#position & this.#mask;
      const record = this.#records.base + index * this.#records.stride;
      const stamp = Atomics.load(this.words, record);
      const mine = stampOf(this.#position) - 1;
      this.#position = (this.#position + 1) | 0;
      const isTaken = (stamp & 1) !== 0;
      // Pairs with the store of #giveBack(): the reader is through with the words.
      if (isTaken || Atomics.compareExchange(this.words, record, stamp, mine) !== stamp) continue;
      this.#record = record;
      this.firstCandidate =
        this.#candidates.base + index * explainCandidatesMax * this.candidateWords;
      return record;
    }
    return -1;
  }

  /** Publishes the record. Returns its stamp, by which it is found. */
  commit(): number {
    const stamp = stampOf((this.#position - 1) | 0);
    // Pairs with the compare-exchange of #take(): who has the record sees its words.
    Atomics.store(this.words, this.#record, stamp);
    return stamp;
  }
}

export interface ExplainedCandidate {
  readonly row: number;
  readonly inFlight: number;
  readonly pendingTokens: number;
  readonly contextTokens: number;
  readonly matchedTokens: number;
}

/** A record, copied; the fields are those of the layout. */
export interface Explained {
  readonly stamp: number;
  readonly model: number;
  readonly attempt: number;
  readonly hedge: boolean;
  readonly replica: number;
  readonly tableVersion: number;
  readonly heldUs: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  /** A Chooser. */
  readonly chosenBy: number;
  readonly members: number;
  readonly candidates: number;
  readonly filtered: readonly number[];
  /** At most explainCandidatesMax; the chosen one is among them. */
  readonly listed: readonly ExplainedCandidate[];
}

export class ExplainReader {
  readonly #words: Int32Array;
  readonly #at: Places;
  readonly #count: number;

  constructor(region: SharedArrayBuffer, records: number) {
    this.#at = ExplainLayout.attach(region, explainCounts(records)).at;
    this.#words = new Int32Array(region);
    this.#count = records;
  }

  /** The record of that stamp; undefined when it has been replaced, or when another has taken it. */
  read(stamp: number): Explained | undefined {
    if (!this.#take(stamp)) return undefined;
    const explained = this.#copy(stamp);
    this.#giveBack(stamp);
    return explained;
  }

  /** The records of the request with that hash, newest first. */
  find(hash0: number, hash1: number): Explained[] {
    const words = this.#words;
    const { base, stride, at } = this.#at.record;
    const found: Explained[] = [];
    for (let index = 0; index < this.#count; index++) {
      const record = base + index * stride;
      const stamp = Atomics.load(words, record);
      if (!this.#take(stamp)) continue;
      const isIt = words[record + at.idHash] === hash0 && words[record + at.idHash + 1] === hash1;
      if (isIt) found.push(this.#copy(stamp));
      this.#giveBack(stamp);
    }
    return found.sort((a, b) => (b.stamp - a.stamp) | 0);
  }

  #take(stamp: number): boolean {
    if (stamp === 0 || (stamp & 1) !== 0) return false;
    const record = this.#recordOf(stamp);
    // Pairs with the stores of commit() and #giveBack().
    return Atomics.compareExchange(this.#words, record, stamp, stamp - 1) === stamp;
  }

  #giveBack(stamp: number): void {
    Atomics.store(this.#words, this.#recordOf(stamp), stamp);
  }

  #indexOf(stamp: number): number {
    return ((stamp >> 1) - 1) & (this.#count - 1);
  }

  #recordOf(stamp: number): number {
    return this.#at.record.base + this.#indexOf(stamp) * this.#at.record.stride;
  }

  #copy(stamp: number): Explained {
    const record = this.#recordOf(stamp);
    const { at } = this.#at.record;
    const read = (field: number): number => this.#words[record + field] as number;
    const candidates = read(at.candidates);
    const length = Math.min(candidates, explainCandidatesMax);
    return {
      stamp,
      model: read(at.model),
      attempt: read(at.attempt),
      hedge: read(at.hedge) === 1,
      replica: read(at.replica),
      tableVersion: read(at.tableVersion),
      heldUs: read(at.heldUs),
      promptTokens: read(at.promptTokens),
      outputTokens: read(at.outputTokens),
      chosenBy: read(at.chosenBy),
      members: read(at.members),
      candidates,
      filtered: Array.from({ length: explainFilters }, (_, reason) => read(at.filtered + reason)),
      listed: Array.from({ length }, (_, i) => this.#copyCandidate(stamp, i)),
    };
  }

  #copyCandidate(stamp: number, i: number): ExplainedCandidate {
    const { base, stride, at } = this.#at.candidate;
    const candidate = base + (this.#indexOf(stamp) * explainCandidatesMax + i) * stride;
    const read = (field: number): number => this.#words[candidate + field] as number;
    return {
      row: read(at.row),
      inFlight: read(at.inFlight),
      pendingTokens: read(at.pendingTokens),
      contextTokens: read(at.contextTokens),
      matchedTokens: read(at.matchedTokens),
    };
  }
}

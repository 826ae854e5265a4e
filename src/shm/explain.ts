/**
 * The explain ring in use: the scheduler writes records, the main thread and the acceptors read them.
 *
 * Nobody waits: who finds a record taken goes on without it, the scheduler to the next one. A thread
 * that dies while it has a record takes that record with it and nothing else. A successor of the
 * scheduler goes on behind the newest record.
 */
import { assert } from '../lib/assert.ts';
import { ExplainLayout, explainCandidatesMax, explainFilters } from './explain.layout.ts';

/** Records in a row that readers can have taken: the main thread, a few acceptors. */
const takenMax = 8;

const stampOf = (position: number): number => (2 * position + 2) | 0;

export function createExplain(records: number): SharedArrayBuffer {
  assert(Number.isInteger(Math.log2(records)), 'the number of records is a power of two');
  return ExplainLayout.create({ record: records });
}

export class ExplainWriter {
  readonly words: Int32Array;
  readonly at: ReturnType<typeof ExplainLayout.place>['at']['record']['at'];
  readonly #base: number;
  readonly #stride: number;
  readonly #mask: number;
  /** Of the next record; wraps. */
  #position = 0;
  #record = 0;

  constructor(region: SharedArrayBuffer, records: number) {
    const { record } = ExplainLayout.attach(region, { record: records }).at;
    this.words = new Int32Array(region);
    this.at = record.at;
    this.#base = record.base;
    this.#stride = record.stride;
    this.#mask = records - 1;
    let newest = 0;
    for (let index = 0; index < records; index++) {
      const stamp = Atomics.load(this.words, this.#base + index * this.#stride);
      if (((stamp - newest) | 0) > 0) newest = stamp;
    }
    this.#position = (newest + 1) >> 1;
  }

  /** Takes the next record that nobody reads; fill its words, then commit(). -1: there is none. */
  begin(): number {
    for (let taken = 0; taken < takenMax; taken++) {
      const record = this.#base + (this.#position & this.#mask) * this.#stride;
      const stamp = Atomics.load(this.words, record);
      const mine = stampOf(this.#position) - 1;
      this.#position = (this.#position + 1) | 0;
      if ((stamp & 1) !== 0) continue;
      // Pairs with the store of giveBack(): the reader is through with the words.
      if (Atomics.compareExchange(this.words, record, stamp, mine) !== stamp) continue;
      this.#record = record;
      return record;
    }
    return -1;
  }

  /** Publishes the record. Returns its stamp, by which it is found. */
  commit(): number {
    const stamp = stampOf((this.#position - 1) | 0);
    // Pairs with the compare-exchange of take(): who has the record sees its words.
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
  readonly replica: number;
  readonly tableVersion: number;
  readonly heldUs: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  readonly bySession: boolean;
  readonly members: number;
  readonly candidates: number;
  readonly filtered: readonly number[];
  /** At most explainCandidatesMax; the chosen one is among them. */
  readonly listed: readonly ExplainedCandidate[];
}

export class ExplainReader {
  readonly #words: Int32Array;
  readonly #at: ReturnType<typeof ExplainLayout.place>['at']['record']['at'];
  readonly #base: number;
  readonly #stride: number;
  readonly #records: number;

  constructor(region: SharedArrayBuffer, records: number) {
    const { record } = ExplainLayout.attach(region, { record: records }).at;
    this.#words = new Int32Array(region);
    this.#at = record.at;
    this.#base = record.base;
    this.#stride = record.stride;
    this.#records = records;
  }

  /** The record of that stamp; undefined when it has been replaced, or when another has taken it. */
  read(stamp: number): Explained | undefined {
    const record = this.#take(stamp);
    if (record < 0) return undefined;
    const explained = this.#copy(record, stamp);
    this.#giveBack(record, stamp);
    return explained;
  }

  /** The records of the request with that hash, newest first. */
  find(hash0: number, hash1: number): Explained[] {
    const words = this.#words;
    const found: Explained[] = [];
    for (let index = 0; index < this.#records; index++) {
      const stamp = Atomics.load(words, this.#base + index * this.#stride);
      const record = this.#take(stamp);
      if (record < 0) continue;
      const hash = record + this.#at.idHash;
      if (words[hash] === hash0 && words[hash + 1] === hash1) {
        found.push(this.#copy(record, stamp));
      }
      this.#giveBack(record, stamp);
    }
    return found.sort((a, b) => (b.stamp - a.stamp) | 0);
  }

  #take(stamp: number): number {
    if (stamp === 0 || (stamp & 1) !== 0) return -1;
    const index = ((stamp >> 1) - 1) & (this.#records - 1);
    const record = this.#base + index * this.#stride;
    // Pairs with the stores of commit() and giveBack().
    return Atomics.compareExchange(this.#words, record, stamp, stamp - 1) === stamp ? record : -1;
  }

  #giveBack(record: number, stamp: number): void {
    Atomics.store(this.#words, record, stamp);
  }

  #copy(record: number, stamp: number): Explained {
    const at = this.#at;
    const read = (field: number): number => this.#words[record + field] as number;
    const candidates = read(at.candidates);
    const length = Math.min(candidates, explainCandidatesMax);
    return {
      stamp,
      model: read(at.model),
      attempt: read(at.attempt),
      replica: read(at.replica),
      tableVersion: read(at.tableVersion),
      heldUs: read(at.heldUs),
      promptTokens: read(at.promptTokens),
      outputTokens: read(at.outputTokens),
      bySession: read(at.bySession) === 1,
      members: read(at.members),
      candidates,
      filtered: Array.from({ length: explainFilters }, (_, reason) => read(at.filtered + reason)),
      listed: Array.from({ length }, (_, i) => ({
        row: read(at.row + i),
        inFlight: read(at.inFlight + i),
        pendingTokens: read(at.pendingTokens + i),
        contextTokens: read(at.contextTokens + i),
        matchedTokens: read(at.matchedTokens + i),
      })),
    };
  }
}

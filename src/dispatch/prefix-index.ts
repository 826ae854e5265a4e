/**
 * Prefix index: which replica was given which beginning of a prompt, so that it still holds its KV
 * blocks. Pure; everything is allocated at construction.
 *
 * A record is a chained 64-bit block hash (its beginning included) and a bitmap of replica rows. The
 * table is set-associative, 8 ways: a lookup reads one line of tags, an insertion evicts within its
 * set, nothing is ever moved. Each replica has a limit of blocks, about twice what its KV cache holds
 * (less costs hits, more gains none: ALGORITHMS 3); over it a clock hand takes its oldest bits away.
 * A collision or a stale bit costs a replica one prefill, never a wrong answer.
 *
 * Depths are geometric, so a record stands for the blocks since the depth before: its cover.
 */
import { assert } from '../lib/assert.ts';
import type { PrefixSource } from './arrival.ts';
import type { Candidates } from './candidates.ts';

const ways = 8;
/** Records a clock hand looks at for one insertion; what is over the limit then waits for the next. */
const sweepMax = 512;

export class PrefixIndex {
  /** Blocks that each replica is taken to hold. */
  readonly held: Float64Array;
  readonly #limit: Float64Array;
  readonly #hand: Int32Array;
  readonly #records: number;
  readonly #tag0: Int32Array;
  readonly #tag1: Int32Array;
  readonly #cover: Uint8Array;
  /** 1 since the last pass of a clock hand. */
  readonly #used: Uint8Array;
  readonly #bits: Int32Array;
  readonly #bitWords: number;
  /** Way of each set to be tried first for eviction. */
  readonly #victim: Uint8Array;
  /** Indexes of the candidates that matched so far. */
  readonly #matching: Int32Array;

  /** `records`: a power of two; about the blocks of all replicas together. */
  constructor(rows: number, records: number) {
    assert(Number.isInteger(Math.log2(records)) && records >= ways, 'records is a power of two');
    this.held = new Float64Array(rows);
    this.#limit = new Float64Array(rows);
    this.#hand = new Int32Array(rows);
    this.#records = records;
    this.#tag0 = new Int32Array(records);
    this.#tag1 = new Int32Array(records);
    this.#cover = new Uint8Array(records);
    this.#used = new Uint8Array(records);
    this.#bitWords = Math.ceil(rows / 32);
    this.#bits = new Int32Array(records * this.#bitWords);
    this.#victim = new Uint8Array(records / ways);
    this.#matching = new Int32Array(rows);
  }

  /** Blocks the replica's cache is taken to remember. */
  setLimit(row: number, blocks: number): void {
    this.#limit[row] = blocks;
  }

  /** The replica has lost its cache, or is another one. */
  forget(row: number): void {
    const word = row >>> 5;
    const mask = ~(1 << (row & 31));
    for (let at = word; at < this.#bits.length; at += this.#bitWords) {
      this.#bits[at] = (this.#bits[at] as number) & mask;
    }
    this.held[row] = 0;
  }

  /**
   * Writes for each candidate how many blocks of the prompt it holds. A replica counts as long as it
   * has every depth before: what follows a gap could not be used.
   */
  match(prefixes: PrefixSource, slot: number, candidates: Candidates, blocks: Int32Array): void {
    const { length, row: rows } = candidates;
    const matching = this.#matching;
    for (let i = 0; i < length; i++) {
      blocks[i] = 0;
      matching[i] = i;
    }
    const { words, depths } = prefixes;
    const start = prefixes.startOf(slot);
    const count = prefixes.countOf(slot);
    let left = length;
    for (let depth = 0; depth < count && left > 0; depth++) {
      const record = this.#find(
        words[start + 2 * depth] as number,
        words[start + 2 * depth + 1] as number,
      );
      if (record < 0) return;
      this.#used[record] = 1;
      const base = record * this.#bitWords;
      const reached = depths[depth] as number;
      let kept = 0;
      for (let k = 0; k < left; k++) {
        const i = matching[k] as number;
        const row = rows[i] as number;
        if (((this.#bits[base + (row >>> 5)] as number) & (1 << (row & 31))) === 0) continue;
        blocks[i] = reached;
        matching[kept++] = i;
      }
      left = kept;
    }
  }

  /** The prompt was sent to the replica, which from now on holds it. */
  insert(prefixes: PrefixSource, slot: number, row: number): void {
    const { words, depths } = prefixes;
    const start = prefixes.startOf(slot);
    const count = prefixes.countOf(slot);
    const bit = 1 << (row & 31);
    let before = 0;
    for (let depth = 0; depth < count; depth++) {
      const cover = (depths[depth] as number) - before;
      before = depths[depth] as number;
      const tag0 = words[start + 2 * depth] as number;
      const tag1 = words[start + 2 * depth + 1] as number;
      let record = this.#find(tag0, tag1);
      if (record < 0) record = this.#take(tag0, tag1, cover);
      this.#used[record] = 1;
      const at = record * this.#bitWords + (row >>> 5);
      if (((this.#bits[at] as number) & bit) !== 0) continue;
      this.#bits[at] = (this.#bits[at] as number) | bit;
      this.held[row] = (this.held[row] as number) + cover;
    }
    if ((this.held[row] as number) > (this.#limit[row] as number)) this.#sweep(row);
  }

  #find(tag0: number, tag1: number): number {
    const first = this.#setOf(tag0);
    for (let record = first; record < first + ways; record++) {
      if (this.#tag0[record] === tag0 && this.#tag1[record] === tag1) return record;
    }
    return -1;
  }

  #setOf(tag0: number): number {
    return (tag0 & (this.#records / ways - 1)) * ways;
  }

  /** A record of the set for these tags: the first unused one behind the last victim. */
  #take(tag0: number, tag1: number, cover: number): number {
    const first = this.#setOf(tag0);
    const set = first / ways;
    let way = this.#victim[set] as number;
    for (let tries = 0; tries < ways && this.#used[first + way] === 1; tries++) {
      this.#used[first + way] = 0;
      way = (way + 1) % ways;
    }
    const record = first + way;
    this.#victim[set] = (way + 1) % ways;
    this.#release(record);
    this.#tag0[record] = tag0;
    this.#tag1[record] = tag1;
    this.#cover[record] = cover;
    return record;
  }

  /** Takes the record from every replica that has it. */
  #release(record: number): void {
    const cover = this.#cover[record] as number;
    const base = record * this.#bitWords;
    for (let word = 0; word < this.#bitWords; word++) {
      let bits = this.#bits[base + word] as number;
      this.#bits[base + word] = 0;
      while (bits !== 0) {
        const row = word * 32 + 31 - Math.clz32(bits & -bits);
        bits &= bits - 1;
        this.held[row] = (this.held[row] as number) - cover;
      }
    }
  }

  /** Moves the replica's clock hand until it is within its limit, or has looked at enough. */
  #sweep(row: number): void {
    const word = row >>> 5;
    const bit = 1 << (row & 31);
    const limit = this.#limit[row] as number;
    let hand = this.#hand[row] as number;
    for (let steps = 0; steps < sweepMax && (this.held[row] as number) > limit; steps++) {
      const at = hand * this.#bitWords + word;
      if (((this.#bits[at] as number) & bit) !== 0) {
        if (this.#used[hand] === 1) this.#used[hand] = 0;
        else {
          this.#bits[at] = (this.#bits[at] as number) & ~bit;
          this.held[row] = (this.held[row] as number) - (this.#cover[hand] as number);
        }
      }
      hand = (hand + 1) & (this.#records - 1);
    }
    this.#hand[row] = hand;
  }
}

/**
 * Shared blocks: prompt blocks that several requests in flight on one replica have in common, which an
 * engine keeps once. Pure; nothing is allocated per request.
 *
 *   entry      a chained block hash at one of the depths of the index, on one replica
 *   users      requests in flight there whose prompt has it
 *   shared     of a replica: sum over its entries of (users - 1) * the blocks the entry covers
 *
 * The prompts of all requests in flight there less `shared` is what the engine keeps for them, to the
 * grain of the depths. A place (requests.ts) remembers its entries: the hashes of its slot may be
 * another request's by its end.
 */
import { assert } from '../lib/assert.ts';
import type { PrefixSource } from './arrival.ts';
import { NONE } from './candidates.ts';

export class SharedBlocks {
  /** Blocks of each row that are counted more than once. */
  readonly shared: Int32Array;
  readonly #depths: readonly number[];
  readonly #prefixes: PrefixSource;
  /** First entry of each hash chain, and the free entries from #free on, linked by #next. */
  readonly #heads: Int32Array;
  readonly #next: Int32Array;
  #free = 0;
  readonly #tag0: Int32Array;
  readonly #tag1: Int32Array;
  /** NONE once its replica is gone: it is found no more and waits for its users to end. */
  readonly #row: Int32Array;
  readonly #cover: Int32Array;
  readonly #users: Int32Array;
  /** Entries of each place. */
  readonly #entries: Int32Array;
  readonly #count: Uint8Array;

  constructor(prefixes: PrefixSource, slots: number, rows: number) {
    const { depths } = prefixes;
    // One for each depth of each place: there is always a free one.
    const capacity = 2 * slots * depths.length;
    this.#prefixes = prefixes;
    this.#depths = depths;
    this.shared = new Int32Array(rows);
    this.#heads = new Int32Array(1 << (32 - Math.clz32(capacity))).fill(NONE);
    this.#next = Int32Array.from({ length: capacity }, (_, entry) => entry + 1);
    this.#tag0 = new Int32Array(capacity);
    this.#tag1 = new Int32Array(capacity);
    this.#row = new Int32Array(capacity).fill(NONE);
    this.#cover = new Int32Array(capacity);
    this.#users = new Int32Array(capacity);
    this.#entries = new Int32Array(capacity);
    this.#count = new Uint8Array(2 * slots);
  }

  /** The request of the slot runs on the row, as the exchange of the place. */
  add(slot: number, row: number, place = slot): void {
    assert(this.#count[place] === 0, 'an exchange is with one replica');
    const { words } = this.#prefixes;
    const start = this.#prefixes.startOf(slot);
    const count = this.#prefixes.countOf(slot);
    let before = 0;
    for (let i = 0; i < count; i++) {
      const depth = this.#depths[i] as number;
      const tag0 = words[start + 2 * i] as number;
      const tag1 = words[start + 2 * i + 1] as number;
      let entry = this.#find(tag0, tag1, row);
      if (entry === NONE) entry = this.#create(tag0, tag1, row, depth - before);
      else this.shared[row] = (this.shared[row] as number) + (depth - before);
      this.#users[entry] = (this.#users[entry] as number) + 1;
      this.#entries[place * this.#depths.length + i] = entry;
      before = depth;
    }
    this.#count[place] = count;
  }

  /** What one place holds is another's from here on. */
  move(from: number, to: number): void {
    assert(this.#count[to] === 0, 'nothing is lost');
    const depths = this.#depths.length;
    this.#entries.copyWithin(to * depths, from * depths, (from + 1) * depths);
    this.#count[to] = this.#count[from] as number;
    this.#count[from] = 0;
  }

  /** Its exchange has ended; nothing happens when it was never added. */
  remove(place: number): void {
    const first = place * this.#depths.length;
    for (let i = 0; i < (this.#count[place] as number); i++) {
      const entry = this.#entries[first + i] as number;
      const users = (this.#users[entry] as number) - 1;
      const row = this.#row[entry] as number;
      assert(users >= 0, 'what ends was counted');
      this.#users[entry] = users;
      if (users === 0) this.#release(entry);
      else if (row !== NONE) {
        this.shared[row] = (this.shared[row] as number) - (this.#cover[entry] as number);
      }
    }
    this.#count[place] = 0;
  }

  /** Blocks of the slot's prompt that others in flight on the row have too. */
  common(slot: number, row: number): number {
    const { words } = this.#prefixes;
    const start = this.#prefixes.startOf(slot);
    const count = this.#prefixes.countOf(slot);
    let blocks = 0;
    for (let i = 0; i < count; i++) {
      const at = start + 2 * i;
      if (this.#find(words[at] as number, words[at + 1] as number, row) === NONE) break;
      blocks = this.#depths[i] as number;
    }
    return blocks;
  }

  /** The row stands for another replica from here on. */
  forget(row: number): void {
    this.shared[row] = 0;
    for (let entry = 0; entry < this.#row.length; entry++) {
      if (this.#row[entry] !== row) continue;
      this.#unlink(entry);
      this.#row[entry] = NONE;
    }
  }

  #find(tag0: number, tag1: number, row: number): number {
    let entry = this.#heads[this.#chainOf(tag0, row)] as number;
    while (entry !== NONE) {
      const isIt = this.#tag0[entry] === tag0 && this.#tag1[entry] === tag1;
      if (isIt && this.#row[entry] === row) return entry;
      entry = this.#next[entry] as number;
    }
    return NONE;
  }

  #create(tag0: number, tag1: number, row: number, cover: number): number {
    const entry = this.#free;
    assert(entry < this.#next.length, 'there is an entry for each depth of each slot');
    this.#free = this.#next[entry] as number;
    const chain = this.#chainOf(tag0, row);
    this.#tag0[entry] = tag0;
    this.#tag1[entry] = tag1;
    this.#row[entry] = row;
    this.#cover[entry] = cover;
    this.#users[entry] = 0;
    this.#next[entry] = this.#heads[chain] as number;
    this.#heads[chain] = entry;
    return entry;
  }

  #release(entry: number): void {
    if (this.#row[entry] !== NONE) this.#unlink(entry);
    this.#row[entry] = NONE;
    this.#next[entry] = this.#free;
    this.#free = entry;
  }

  #unlink(entry: number): void {
    const chain = this.#chainOf(this.#tag0[entry] as number, this.#row[entry] as number);
    const next = this.#next[entry] as number;
    let before = this.#heads[chain] as number;
    if (before === entry) {
      this.#heads[chain] = next;
      return;
    }
    while (this.#next[before] !== entry) before = this.#next[before] as number;
    this.#next[before] = next;
  }

  #chainOf(tag0: number, row: number): number {
    return (tag0 ^ Math.imul(row + 1, 0x9e3779b1)) & (this.#heads.length - 1);
  }
}

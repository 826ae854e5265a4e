/**
 * Prefix mirror: which replica is thought to hold which prompt blocks, to every depth. Pure.
 *
 * The rules of peers keep trees or tables of their own; what matters of them is how much they
 * remember. `limitBlocks` is that, per replica; beyond it the clock hand takes the oldest block that
 * was not used since it last passed. One bit per block and replica: a match walks the prompt once for
 * all replicas.
 */
import { assert } from '../lib/assert.ts';

export class PrefixMirror {
  /** Blocks each replica is thought to hold. */
  readonly held: Int32Array;
  readonly #words: number;
  readonly #limitBlocks: number;
  readonly #holders: Int32Array;
  readonly #used: Int32Array;
  /** Per replica: its blocks in the order the clock hand meets them. Only kept under a limit. */
  readonly #clocks: Clock[];
  readonly #alive: Int32Array;

  /** Blocks are below `blockCount`; `limitBlocks` may be Infinity. */
  constructor(blockCount: number, replicas: number, limitBlocks: number) {
    assert(limitBlocks > 0);
    this.#words = (replicas + 31) >>> 5;
    this.#limitBlocks = limitBlocks;
    this.held = new Int32Array(replicas);
    this.#holders = new Int32Array(blockCount * this.#words);
    this.#used = new Int32Array(limitBlocks === Infinity ? 0 : blockCount * this.#words);
    this.#clocks =
      limitBlocks === Infinity ? [] : Array.from({ length: replicas }, () => new Clock());
    this.#alive = new Int32Array(this.#words);
  }

  /** matchedBlocks[row]: leading blocks of the prompt that the replica holds. */
  match(blocks: Int32Array, start: number, end: number, matchedBlocks: Int32Array): void {
    matchedBlocks.fill(0);
    const words = this.#words;
    this.#alive.fill(-1);
    for (let at = start; at < end; at++) {
      const base = (blocks[at] as number) * words;
      let any = 0;
      for (let word = 0; word < words; word++) {
        const alive = (this.#alive[word] as number) & (this.#holders[base + word] as number);
        this.#alive[word] = alive;
        any |= alive;
        for (let bits = alive; bits !== 0; bits &= bits - 1) {
          const row = word * 32 + 31 - Math.clz32(bits & -bits);
          matchedBlocks[row] = at - start + 1;
        }
      }
      if (any === 0) return;
    }
  }

  /** The replica is given a prompt. */
  insert(blocks: Int32Array, start: number, end: number, row: number): void {
    const word = row >>> 5;
    const bit = 1 << (row & 31);
    const clock = this.#clocks[row];
    for (let i = start; i < end; i++) {
      const block = blocks[i] as number;
      const at = block * this.#words + word;
      if (clock !== undefined) this.#used[at] = (this.#used[at] as number) | bit;
      if (((this.#holders[at] as number) & bit) !== 0) continue;
      this.#holders[at] = (this.#holders[at] as number) | bit;
      this.held[row] = (this.held[row] as number) + 1;
      if (clock === undefined) continue;
      clock.push(block);
      while ((this.held[row] as number) > this.#limitBlocks) this.#evict(row, clock);
    }
  }

  /** The replica is another one from here on. */
  forget(row: number): void {
    const word = row >>> 5;
    const bit = 1 << (row & 31);
    for (let at = word; at < this.#holders.length; at += this.#words) {
      this.#holders[at] = (this.#holders[at] as number) & ~bit;
    }
    this.#clocks[row]?.clear();
    this.held[row] = 0;
  }

  #evict(row: number, clock: Clock): void {
    const block = clock.shift();
    const at = block * this.#words + (row >>> 5);
    const bit = 1 << (row & 31);
    if (((this.#used[at] as number) & bit) !== 0) {
      this.#used[at] = (this.#used[at] as number) & ~bit;
      clock.push(block);
      return;
    }
    this.#holders[at] = (this.#holders[at] as number) & ~bit;
    this.held[row] = (this.held[row] as number) - 1;
  }
}

/** First in, first out; grows by doubling. */
class Clock {
  #ring = new Int32Array(1024);
  #head = 0;
  #length = 0;

  push(block: number): void {
    if (this.#length === this.#ring.length) this.#grow();
    this.#ring[(this.#head + this.#length++) & (this.#ring.length - 1)] = block;
  }

  shift(): number {
    assert(this.#length > 0, 'something is held');
    const block = this.#ring[this.#head] as number;
    this.#head = (this.#head + 1) & (this.#ring.length - 1);
    this.#length--;
    return block;
  }

  clear(): void {
    this.#head = this.#length = 0;
  }

  #grow(): void {
    const larger = new Int32Array(this.#ring.length * 2);
    larger.set(this.#ring.subarray(this.#head));
    larger.set(this.#ring.subarray(0, this.#head), this.#ring.length - this.#head);
    this.#ring = larger;
    this.#head = 0;
  }
}

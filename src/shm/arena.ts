/**
 * A buddy allocator over one acceptor's partition: power-of-two blocks of at least 4 KiB.
 *
 * Contiguous blocks let a replica's request be written from one view. Runs on its acceptor's thread
 * and keeps its state there: when that thread is gone, so is every request it owned. Full is -1.
 */
import { assert } from '../lib/assert.ts';
import { blockOrder, blockOrderMin } from '../lib/block-size.ts';
import { ArenaLayout } from './arena.layout.ts';

const none = -1;

export function createArena(bytesTotal: number): SharedArrayBuffer {
  return ArenaLayout.create({ data: bytesTotal });
}

/** The arena's bytes, for any thread. Offsets are those of the slot table. */
export function arenaBytes(region: SharedArrayBuffer, bytesTotal: number): Uint8Array {
  const { at } = ArenaLayout.attach(region, { data: bytesTotal });
  return new Uint8Array(region, at.data, bytesTotal);
}

export class ArenaPartition {
  readonly #start: number;
  readonly #orderMax: number;
  /** Order of the block that starts at each 4 KiB page while it is allocated, else 0. */
  readonly #orderAt: Uint8Array;
  readonly #free: FreeBlocks;
  #used = 0;

  /** `start` and `size` in bytes; `size` is rounded down to whole pages. */
  constructor(start: number, size: number) {
    const pages = size >>> blockOrderMin;
    assert(pages > 0, 'a partition has at least one page');
    assert(start + size < 2 ** 31, 'offsets of the slot table are int32');
    this.#start = start;
    this.#orderAt = new Uint8Array(pages);
    this.#orderMax = blockOrderMin + Math.floor(Math.log2(pages));
    this.#free = new FreeBlocks(pages, this.#orderMax);
    // Cover the partition with the largest aligned blocks that fit.
    let page = 0;
    while (page < pages) {
      let order = this.#orderMax;
      while (
        (page & ((1 << (order - blockOrderMin)) - 1)) !== 0 ||
        page + (1 << (order - blockOrderMin)) > pages
      )
        order--;
      this.#free.add(page, order);
      page += 1 << (order - blockOrderMin);
    }
  }

  /** Bytes in allocated blocks. */
  get used(): number {
    return this.#used;
  }

  /** Byte offset of a block of at least `length` bytes, or -1. */
  allocate(length: number): number {
    if (length > 1 << this.#orderMax) return -1;
    const order = blockOrder(length);
    let from = order;
    while (from <= this.#orderMax && this.#free.newest(from) === none) from++;
    if (from > this.#orderMax) return -1;
    const page = this.#free.newest(from);
    this.#free.remove(page, from);
    while (from > order) {
      from--;
      this.#free.add(page + (1 << (from - blockOrderMin)), from);
    }
    this.#orderAt[page] = order;
    this.#used += 1 << order;
    return this.#start + page * (1 << blockOrderMin);
  }

  /** Lets the block hold `length` bytes where it lies. False: what is behind it is in use. */
  grow(offset: number, length: number): boolean {
    const page = this.#pageAt(offset);
    const order = this.#orderAt[page]!;
    const wanted = blockOrder(length);
    const isAligned = (page & ((1 << (wanted - blockOrderMin)) - 1)) === 0;
    if (wanted > this.#orderMax || !isAligned) return false;
    // The upper half of every order on the way, each of which must be one free block.
    const upperOf = (at: number): number => page + (1 << (at - blockOrderMin));
    for (let at = order; at < wanted; at++) if (!this.#free.has(upperOf(at), at)) return false;
    for (let at = order; at < wanted; at++) this.#free.remove(upperOf(at), at);
    if (wanted <= order) return true;
    this.#orderAt[page] = wanted;
    this.#used += (1 << wanted) - (1 << order);
    return true;
  }

  /** Bytes the block at `offset` can hold. */
  capacityAt(offset: number): number {
    return 1 << this.#orderAt[this.#pageAt(offset)]!;
  }

  release(offset: number): void {
    let page = this.#pageAt(offset);
    let order = this.#orderAt[page]!;
    assert(order >= blockOrderMin, 'only an allocated block is released');
    this.#orderAt[page] = 0;
    this.#used -= 1 << order;
    while (order < this.#orderMax) {
      const buddy = page ^ (1 << (order - blockOrderMin));
      if (!this.#free.has(buddy, order)) break;
      this.#free.remove(buddy, order);
      page = Math.min(page, buddy);
      order++;
    }
    this.#free.add(page, order);
  }

  #pageAt(offset: number): number {
    const page = (offset - this.#start) / (1 << blockOrderMin);
    assert(Number.isInteger(page) && page >= 0 && page < this.#orderAt.length, 'offset of a block');
    return page;
  }
}

/**
 * The free blocks as page numbers, one list for each order. Newest first: memory used last is used
 * next, so a partition touches no more pages than it needs. Typed arrays, because a Set that changes
 * with every request leaves tables behind that outlive the young generation.
 */
class FreeBlocks {
  /** Order of the free block that starts at each page, else 0. */
  readonly #orderAt: Uint8Array;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #heads: Int32Array;

  constructor(pages: number, orderMax: number) {
    this.#orderAt = new Uint8Array(pages);
    this.#next = new Int32Array(pages);
    this.#previous = new Int32Array(pages);
    this.#heads = new Int32Array(orderMax + 1).fill(none);
  }

  /** A block of that order, or none. */
  newest(order: number): number {
    return this.#heads[order]!;
  }

  has(page: number, order: number): boolean {
    return this.#orderAt[page] === order;
  }

  add(page: number, order: number): void {
    const head = this.#heads[order]!;
    this.#orderAt[page] = order;
    this.#previous[page] = none;
    this.#next[page] = head;
    if (head !== none) this.#previous[head] = page;
    this.#heads[order] = page;
  }

  remove(page: number, order: number): void {
    assert(this.has(page, order), 'a free block is where it is listed');
    const before = this.#previous[page]!;
    const after = this.#next[page]!;
    this.#orderAt[page] = 0;
    if (before === none) this.#heads[order] = after;
    else this.#next[before] = after;
    if (after !== none) this.#previous[after] = before;
  }
}

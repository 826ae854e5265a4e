/**
 * A buddy allocator over one acceptor's partition: power-of-two blocks of at least 4 KiB.
 *
 * Contiguous blocks let a replica's request be written from one view. Runs on its acceptor's thread
 * and keeps its state there: when that thread is gone, so is every request it owned. Full is -1.
 */
import { assert } from '../lib/assert.ts';
import { ArenaLayout } from './arena.layout.ts';

const orderMin = 12; // 4 KiB: below it bookkeeping would outweigh the payload

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
  /** Free blocks by order, as page numbers; membership makes a merge O(1). */
  readonly #free: Set<number>[] = [];
  #used = 0;

  /** `start` and `size` in bytes; `size` is rounded down to whole pages. */
  constructor(start: number, size: number) {
    const pages = size >>> orderMin;
    assert(pages > 0, 'a partition has at least one page');
    assert(start + size < 2 ** 31, 'offsets of the slot table are int32');
    this.#start = start;
    this.#orderAt = new Uint8Array(pages);
    this.#orderMax = orderMin + Math.floor(Math.log2(pages));
    for (let order = 0; order <= this.#orderMax; order++) this.#free.push(new Set());
    // Cover the partition with the largest aligned blocks that fit.
    let page = 0;
    while (page < pages) {
      let order = this.#orderMax;
      while (
        (page & ((1 << (order - orderMin)) - 1)) !== 0 ||
        page + (1 << (order - orderMin)) > pages
      )
        order--;
      this.#free[order]?.add(page);
      page += 1 << (order - orderMin);
    }
  }

  /** Bytes in allocated blocks. */
  get used(): number {
    return this.#used;
  }

  /** Byte offset of a block of at least `length` bytes, or -1. */
  allocate(length: number): number {
    if (length > 1 << this.#orderMax) return -1;
    const order = orderFor(length);
    let from = order;
    while (from <= this.#orderMax && this.#free[from]!.size === 0) from++;
    if (from > this.#orderMax) return -1;
    const page = this.#free[from]!.values().next().value as number;
    this.#free[from]!.delete(page);
    while (from > order) {
      from--;
      this.#free[from]!.add(page + (1 << (from - orderMin)));
    }
    this.#orderAt[page] = order;
    this.#used += 1 << order;
    return this.#start + page * (1 << orderMin);
  }

  /** Bytes the block at `offset` can hold. */
  capacityAt(offset: number): number {
    return 1 << this.#orderAt[this.#pageAt(offset)]!;
  }

  release(offset: number): void {
    let page = this.#pageAt(offset);
    let order = this.#orderAt[page]!;
    assert(order >= orderMin, 'only an allocated block is released');
    this.#orderAt[page] = 0;
    this.#used -= 1 << order;
    while (order < this.#orderMax) {
      const buddy = page ^ (1 << (order - orderMin));
      if (!this.#free[order]!.delete(buddy)) break;
      page = Math.min(page, buddy);
      order++;
    }
    this.#free[order]!.add(page);
  }

  #pageAt(offset: number): number {
    const page = (offset - this.#start) / (1 << orderMin);
    assert(Number.isInteger(page) && page >= 0 && page < this.#orderAt.length, 'offset of a block');
    return page;
  }
}

function orderFor(length: number): number {
  return length <= 1 << orderMin ? orderMin : 32 - Math.clz32(length - 1);
}

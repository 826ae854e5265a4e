/**
 * The KV memory of one engine, and the prompt blocks in it that may be used again. Pure.
 *
 * Memory is counted in pages. A prompt block is `pagesPerBlock` pages under an id, shared by all
 * requests that hold it; when the last one leaves, it stays at the recent end of the LRU list until
 * its pages are needed. Everything else (the rest of a prompt, the answer) is private pages.
 * Invariant: held + unheld blocks + free = all pages, and only blocks that nobody holds are evicted.
 */
import { assert } from '../../lib/assert.ts';
import { ABSENT, BlockTable } from './block-table.ts';

export class KvCache {
  readonly #pages: number;
  readonly #pagesPerBlock: number;
  readonly #table: BlockTable;
  /** Running requests that hold an entry. */
  readonly #holders: Int32Array;
  /** LRU list of the entries that nobody holds; `#newer` also chains the unused entries. */
  readonly #newer: Int32Array;
  readonly #older: Int32Array;
  #oldest = ABSENT;
  #newest = ABSENT;
  #unused = ABSENT;
  #freePages = 0;
  #heldPages = 0;

  constructor(pages: number, pagesPerBlock: number) {
    const entries = Math.floor(pages / pagesPerBlock);
    assert(entries >= 1, 'the KV memory holds a block');
    this.#pages = pages;
    this.#pagesPerBlock = pagesPerBlock;
    this.#table = new BlockTable(entries);
    this.#holders = new Int32Array(entries);
    this.#newer = new Int32Array(entries);
    this.#older = new Int32Array(entries);
    this.clear();
  }

  /** Pages that running requests hold; the rest is free or can be made so. */
  get heldPages(): number {
    return this.#heldPages;
  }

  get usage(): number {
    return this.#heldPages / this.#pages;
  }

  /** Whether a request fits: only blocks that no running request holds take more memory. */
  fits(blocks: Int32Array, privatePages: number): boolean {
    let pages = this.#heldPages + privatePages;
    for (let i = 0; i < blocks.length && pages <= this.#pages; i++) {
      const entry = this.#table.find(blocks[i] as number);
      if (entry === ABSENT || this.#holders[entry] === 0) pages += this.#pagesPerBlock;
    }
    return pages <= this.#pages;
  }

  canGrow(pages: number): boolean {
    return this.#heldPages + pages <= this.#pages;
  }

  /** Holds a request's blocks and private pages; returns how many leading blocks were there. */
  hold(blocks: Int32Array, privatePages: number): number {
    let hits = 0;
    for (; hits < blocks.length; hits++) {
      const entry = this.#table.find(blocks[hits] as number);
      if (entry === ABSENT) break;
      this.#holdEntry(entry);
    }
    // A block behind the first missing one may be there still; it is computed again in its place.
    for (let i = hits; i < blocks.length; i++) {
      const id = blocks[i] as number;
      const entry = this.#table.find(id);
      if (entry === ABSENT) this.#create(id);
      else this.#holdEntry(entry);
    }
    this.grow(privatePages);
    return hits;
  }

  /** Takes private pages. */
  grow(pages: number): void {
    this.#makeFree(pages);
    this.#freePages -= pages;
    this.#heldPages += pages;
  }

  /** Gives up what hold() and grow() took. Only the first `computed` blocks have content to keep. */
  release(blocks: Int32Array, computed: number, privatePages: number): void {
    this.#freePages += privatePages;
    this.#heldPages -= privatePages;
    // From the end, as vLLM does: of one prompt the tail is evicted before what it depends on.
    for (let i = blocks.length - 1; i >= 0; i--) {
      const entry = this.#table.find(blocks[i] as number);
      assert(entry !== ABSENT, 'a held block is not evicted');
      const holders = (this.#holders[entry] as number) - 1;
      assert(holders >= 0, 'a block is released once by each holder');
      this.#holders[entry] = holders;
      if (holders > 0) continue;
      this.#heldPages -= this.#pagesPerBlock;
      if (i < computed) this.#append(entry);
      else this.#drop(entry);
    }
  }

  /** Forgets everything. */
  clear(): void {
    this.#table.clear();
    this.#holders.fill(0);
    const last = this.#newer.length - 1;
    for (let entry = 0; entry <= last; entry++) {
      this.#newer[entry] = entry === last ? ABSENT : entry + 1;
    }
    this.#unused = 0;
    this.#oldest = ABSENT;
    this.#newest = ABSENT;
    this.#freePages = this.#pages;
    this.#heldPages = 0;
  }

  #holdEntry(entry: number): void {
    const holders = this.#holders[entry] as number;
    this.#holders[entry] = holders + 1;
    if (holders > 0) return;
    this.#unlink(entry);
    this.#heldPages += this.#pagesPerBlock;
  }

  #create(id: number): void {
    this.#makeFree(this.#pagesPerBlock);
    const entry = this.#unused;
    assert(entry !== ABSENT, 'as many entries as blocks fit into the memory');
    this.#unused = this.#newer[entry] as number;
    this.#table.add(id, entry);
    this.#holders[entry] = 1;
    this.#freePages -= this.#pagesPerBlock;
    this.#heldPages += this.#pagesPerBlock;
  }

  #makeFree(pages: number): void {
    while (this.#freePages < pages) {
      const entry = this.#oldest;
      assert(entry !== ABSENT, 'what is held fits into the memory');
      this.#unlink(entry);
      this.#drop(entry);
    }
  }

  #drop(entry: number): void {
    this.#table.remove(this.#table.idOf(entry));
    this.#newer[entry] = this.#unused;
    this.#unused = entry;
    this.#freePages += this.#pagesPerBlock;
  }

  #append(entry: number): void {
    this.#older[entry] = this.#newest;
    this.#newer[entry] = ABSENT;
    if (this.#newest === ABSENT) this.#oldest = entry;
    else this.#newer[this.#newest] = entry;
    this.#newest = entry;
  }

  #unlink(entry: number): void {
    const older = this.#older[entry] as number;
    const newer = this.#newer[entry] as number;
    if (older === ABSENT) this.#oldest = newer;
    else this.#newer[older] = newer;
    if (newer === ABSENT) this.#newest = older;
    else this.#older[newer] = older;
  }
}

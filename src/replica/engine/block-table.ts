/**
 * A hash table from block id to cache entry, of a fixed size. Pure.
 *
 * Open addressing with linear probing in two typed arrays; a removal closes its gap by moving later
 * cells back, so there are no tombstones, no growth and no garbage however long a run is.
 * Invariant: at most half of the cells are taken, so every probe ends at an empty one.
 */
import { assert } from '../../lib/assert.ts';

export const ABSENT = -1;

export class BlockTable {
  /** Entry in a cell, or ABSENT. */
  readonly #cells: Int32Array;
  /** Block id of an entry. */
  readonly #ids: Int32Array;
  readonly #mask: number;
  readonly #shift: number;

  constructor(entries: number) {
    const bits = Math.max(1, 32 - Math.clz32(2 * entries - 1));
    this.#cells = new Int32Array(2 ** bits).fill(ABSENT);
    this.#ids = new Int32Array(entries);
    this.#mask = this.#cells.length - 1;
    this.#shift = 32 - bits;
  }

  /** The entry of a block, or ABSENT. */
  find(id: number): number {
    return this.#cells[this.#cellOf(id)] as number;
  }

  idOf(entry: number): number {
    return this.#ids[entry] as number;
  }

  add(id: number, entry: number): void {
    const cell = this.#cellOf(id);
    assert(this.#cells[cell] === ABSENT, 'a block has one entry');
    this.#cells[cell] = entry;
    this.#ids[entry] = id;
  }

  remove(id: number): void {
    let gap = this.#cellOf(id);
    assert(this.#cells[gap] !== ABSENT, 'the block is in the table');
    for (let at = this.#after(gap); ; at = this.#after(at)) {
      const entry = this.#cells[at] as number;
      if (entry === ABSENT) break;
      // An entry may move back to the gap only if that is not before the cell it hashes to.
      const probed = (at - this.#home(this.idOf(entry))) & this.#mask;
      if (probed < ((at - gap) & this.#mask)) continue;
      this.#cells[gap] = entry;
      gap = at;
    }
    this.#cells[gap] = ABSENT;
  }

  clear(): void {
    this.#cells.fill(ABSENT);
  }

  /** The cell that holds `id`, or the empty one where it would go. */
  #cellOf(id: number): number {
    let at = this.#home(id);
    for (;;) {
      const entry = this.#cells[at] as number;
      if (entry === ABSENT || this.#ids[entry] === id) return at;
      at = this.#after(at);
    }
  }

  #home(id: number): number {
    // The golden ratio in 32 bits (Knuth): ids that follow each other land far apart.
    return Math.imul(id, 0x9e3779b1) >>> this.#shift;
  }

  #after(cell: number): number {
    return (cell + 1) & this.#mask;
  }
}

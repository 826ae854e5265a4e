/**
 * Which rows of a table are whose. Main thread.
 *
 * A name keeps its row for as long as it is wanted. A row that is free is given to another name only when
 * no other is: threads may still take it for that of its last owner for a moment.
 */
import { assert } from '../lib/assert.ts';

export class NamedRows {
  readonly #max: number;
  readonly #rows = new Map<string, number>();
  readonly #free: number[] = [];
  #next = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /** Names and their rows. */
  [Symbol.iterator](): IterableIterator<[name: string, row: number]> {
    return this.#rows.entries();
  }

  /** -1: the name has none. */
  rowOf(name: string): number {
    return this.#rows.get(name) ?? -1;
  }

  /** Gives a row to each of the names and to no other; `onTaken` hears of each that has another owner. */
  assign(wanted: ReadonlySet<string>, onTaken: (row: number) => void): void {
    for (const [name, row] of this.#rows) {
      if (wanted.has(name)) continue;
      this.#rows.delete(name);
      this.#free.push(row);
    }
    for (const name of wanted) {
      if (this.#rows.has(name)) continue;
      const row = this.#next < this.#max ? this.#next++ : this.#free.shift();
      assert(row !== undefined, 'the config fits the table');
      this.#rows.set(name, row);
      onTaken(row);
    }
  }
}

/**
 * Objects that come and go by the request, in no order. Each knows its own place, so adding and
 * removing are a few stores. Pure.
 *
 * A Set would do the same, but it builds a new table every few dozen changes, and each old table
 * points to the next: once one of them is promoted, V8 promotes all later ones with every object
 * they held, until a full collection. At 9,000 requests/s that was 30 MB a second of dead requests.
 */
import { assert } from './assert.ts';

export interface Bagged {
  /** Index in the bag, or -1 outside. */
  place: number;
}

export class Bag<T extends Bagged> {
  readonly #items: T[] = [];

  /** Does nothing when `item` is in already. */
  add(item: T): void {
    if (item.place >= 0) return;
    item.place = this.#items.length;
    this.#items.push(item);
  }

  /** Does nothing when `item` is not in. */
  remove(item: T): void {
    const { place } = item;
    if (place < 0) return;
    assert(this.#items[place] === item, 'the item is in this bag');
    const last = this.#items.pop() as T;
    item.place = -1;
    if (last === item) return;
    last.place = place;
    this.#items[place] = last;
  }

  /** Calls `visit` for every item; `visit` may remove any. What it adds may be left out. */
  visitAll(visit: (item: T) => void): void {
    // From the end: what takes the place of a removed item has been visited.
    for (let i = this.#items.length - 1; i >= 0; i--) {
      const item = this.#items[i];
      if (item !== undefined) visit(item);
    }
  }
}

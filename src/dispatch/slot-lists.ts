/**
 * Intrusive FIFO lists of slots: a slot is in at most one list at a time. Pure.
 *
 * The links of all lists live in two arrays indexed by slot, so entering, leaving from anywhere (a
 * cancelled or expired waiter) and taking the head cost a few stores and no allocation.
 */
import { assert } from '../lib/assert.ts';
import { NONE } from './candidates.ts';

export class SlotLinks {
  readonly next: Int32Array;
  readonly previous: Int32Array;
  /** Id of the list the slot is in, or NONE. */
  readonly list: Int32Array;
  #lists = 0;

  constructor(slots: number) {
    this.next = new Int32Array(slots).fill(NONE);
    this.previous = new Int32Array(slots).fill(NONE);
    this.list = new Int32Array(slots).fill(NONE);
  }

  createList(): SlotList {
    return new SlotList(this, this.#lists++);
  }
}

export class SlotList {
  head = NONE;
  tail = NONE;
  length = 0;
  readonly #links: SlotLinks;
  readonly #id: number;

  constructor(links: SlotLinks, id: number) {
    this.#links = links;
    this.#id = id;
  }

  push(slot: number): void {
    const { next, previous, list } = this.#links;
    assert(list[slot] === NONE, 'a slot waits in one place');
    list[slot] = this.#id;
    next[slot] = NONE;
    previous[slot] = this.tail;
    if (this.tail === NONE) this.head = slot;
    else next[this.tail] = slot;
    this.tail = slot;
    this.length++;
  }

  remove(slot: number): void {
    const { next, previous, list } = this.#links;
    assert(list[slot] === this.#id, 'the slot is in this list');
    const before = previous[slot] as number;
    const after = next[slot] as number;
    if (before === NONE) this.head = after;
    else next[before] = after;
    if (after === NONE) this.tail = before;
    else previous[after] = before;
    list[slot] = NONE;
    this.length--;
  }

  has(slot: number): boolean {
    return this.#links.list[slot] === this.#id;
  }

  /** The slot behind `slot`, or NONE. */
  after(slot: number): number {
    return this.#links.next[slot] as number;
  }
}

/**
 * Items that fall due in the order in which they were added, each in at most one list. Pure.
 *
 * Every item waits equally long, so the list is sorted as it is: adding, removing and finding the next
 * one are a few stores, and nothing is allocated. The links are fields of the items.
 */
import { assert } from './assert.ts';

export interface Due<T> {
  /** When it is due; 0 outside of a list. */
  dueUs: number;
  sooner: T | undefined;
  later: T | undefined;
}

export class DueList<T extends Due<T>> {
  #first: T | undefined;
  #last: T | undefined;

  /** The item that is due before all others. */
  get first(): T | undefined {
    return this.#first;
  }

  /** Adds an item that is due last: at `dueUs`, or with the last one if that is later. */
  add(item: T, dueUs: number): void {
    assert(item.dueUs === 0, 'an item is in one list once');
    assert(dueUs > 0);
    const last = this.#last;
    item.dueUs = last === undefined ? dueUs : Math.max(dueUs, last.dueUs);
    item.sooner = last;
    if (last === undefined) this.#first = item;
    else last.later = item;
    this.#last = item;
  }

  /** Does nothing when `item` is not in. */
  remove(item: T): void {
    if (item.dueUs === 0) return;
    const { sooner, later } = item;
    if (sooner === undefined) this.#first = later;
    else sooner.later = later;
    if (later === undefined) this.#last = sooner;
    else later.sooner = sooner;
    item.dueUs = 0;
    item.sooner = undefined;
    item.later = undefined;
  }
}

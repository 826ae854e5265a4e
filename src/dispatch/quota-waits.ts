/**
 * Quota waits: requests that wait for the store to say whether their limits let them in. Pure.
 *
 * They wait in the order in which they came, each for the answer to its own question and never longer than
 * the budget of the store: then it counts as down.
 */
import { assert } from '../lib/assert.ts';
import { NONE } from './candidates.ts';
import { type Limited, type Questions, rowsOfRequest } from './limit-rows.ts';
import { Phase, type Requests } from './requests.ts';
import { SlotLinks, type SlotList } from './slot-lists.ts';

export class QuotaWaits {
  readonly #requests: Requests;
  readonly #budgetUs: number;
  readonly #list: SlotList;
  readonly #links: SlotLinks;
  readonly #sinceUs: Float64Array;
  readonly #input: Float64Array;
  readonly #output: Float64Array;
  readonly #limitRows: Int32Array;
  /** By row of the request; see Limits.ask. */
  readonly asked: Questions;

  constructor(slots: number, requests: Requests, budgetUs: number) {
    this.#requests = requests;
    this.#budgetUs = budgetUs;
    this.#links = new SlotLinks(slots);
    this.#list = this.#links.createList();
    this.#sinceUs = new Float64Array(slots);
    this.#input = new Float64Array(slots);
    this.#output = new Float64Array(slots);
    this.#limitRows = new Int32Array(rowsOfRequest * slots);
    this.asked = {
      rows: new Int32Array(rowsOfRequest * slots).fill(NONE),
      numbers: new Int32Array(rowsOfRequest * slots),
    };
  }

  get length(): number {
    return this.#list.length;
  }

  /** Who has waited longest; NONE: nobody waits. */
  get first(): number {
    return this.#list.head;
  }

  /** When the first has waited for the whole budget; Infinity when nobody waits. */
  get nextUs(): number {
    const { head } = this.#list;
    return head === NONE ? Number.POSITIVE_INFINITY : this.endUs(head);
  }

  endUs(slot: number): number {
    return (this.#sinceUs[slot] as number) + this.#budgetUs;
  }

  after(slot: number): number {
    return this.#links.next[slot] as number;
  }

  /** Of the request that waits under this slot. */
  limited(slot: number): Limited {
    return {
      slot,
      limitRow: this.#limitRows[rowsOfRequest * slot] as number,
      limitModelRow: this.#limitRows[rowsOfRequest * slot + 1] as number,
    };
  }

  inputTokens(slot: number): number {
    return this.#input[slot] as number;
  }

  outputTokens(slot: number): number {
    return this.#output[slot] as number;
  }

  enter(limited: Limited, input: number, output: number, nowUs: number): void {
    const { slot, limitRow, limitModelRow } = limited;
    assert(this.#requests.phase[slot] === Phase.idle, 'it waits in one place');
    this.#requests.phase[slot] = Phase.asking;
    this.#list.push(slot);
    this.#sinceUs[slot] = nowUs;
    this.#input[slot] = input;
    this.#output[slot] = output;
    this.#limitRows[rowsOfRequest * slot] = limitRow;
    this.#limitRows[rowsOfRequest * slot + 1] = limitModelRow;
  }

  /** Returns how long it has waited. */
  leave(slot: number, nowUs: number): number {
    assert(this.#requests.phase[slot] === Phase.asking, 'it waits for the store');
    this.#requests.phase[slot] = Phase.idle;
    this.#list.remove(slot);
    this.asked.rows.fill(NONE, rowsOfRequest * slot, rowsOfRequest * (slot + 1));
    return Math.max(0, nowUs - (this.#sinceUs[slot] as number));
  }
}

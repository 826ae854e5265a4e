/**
 * Reaches: how many wait for which replicas of one model. Pure; allocates the first time somebody of a
 * reach waits.
 *
 * A reach says which replicas a request can use, as a number: 0 for any, above 0 those with an adapter,
 * below 0 the one it is pinned to, with an adapter or without. A waiter that any of them could serve is
 * counted as such; of all others the reaches are listed, each once, for as long as somebody of it waits.
 */
import { assert } from '../lib/assert.ts';

/** Numbers of adapters stay below it. */
const adaptersLimit = 1024;

export const reachOfPin = (row: number, adapter: number): number =>
  -1 - (row * adaptersLimit + adapter);
/** Of a reach below 0. */
export const rowOfReach = (reach: number): number => Math.trunc((-1 - reach) / adaptersLimit);
export const adapterOfReach = (reach: number): number =>
  reach < 0 ? (-1 - reach) % adaptersLimit : reach;

/** Requests that lack nothing that only some replicas have. */
const anyReplica = 0;

interface Reach {
  readonly reach: number;
  waiters: number;
  recount: number;
}

export class Reaches {
  /** Waiters that any replica could serve. */
  anywhere = 0;
  /** Reaches of the other waiters, dense. */
  readonly bound: Reach[] = [];
  /** Every reach that ever had a waiter. */
  readonly #known = new Map<number, Reach>();
  #recount = 0;

  add(reach: number): void {
    if (reach === anyReplica) {
      this.anywhere++;
      return;
    }
    const known = this.#of(reach);
    if (known.waiters++ === 0) this.bound.push(known);
  }

  remove(reach: number): void {
    if (reach === anyReplica) {
      this.anywhere--;
      return;
    }
    const known = this.#of(reach);
    assert(known.waiters > 0, 'who leaves has waited');
    if (--known.waiters > 0) return;
    const last = this.bound.pop() as Reach;
    if (last !== known) this.bound[this.bound.indexOf(known)] = last;
  }

  /** A recount begins; recount() is told of each waiter. */
  beginRecount(): void {
    this.#recount = 0;
    for (const known of this.#known.values()) known.recount = 0;
  }

  recount(reach: number): void {
    if (reach === anyReplica) this.#recount++;
    else this.#of(reach).recount++;
  }

  /** What was recounted is what is kept. Returns how many wait in all. */
  assertRecounted(): number {
    assert(this.anywhere === this.#recount, 'who waits for any replica is counted so');
    let [waiters, reaches] = [this.anywhere, 0];
    for (const known of this.#known.values()) {
      assert(known.waiters === known.recount, 'who waits for some replicas is counted for those');
      waiters += known.waiters;
      if (known.waiters > 0) reaches++;
    }
    assert(this.bound.length === reaches, 'a reach is listed once, while somebody of it waits');
    for (const { waiters: listed } of this.bound) assert(listed > 0, 'somebody of it waits');
    return waiters;
  }

  #of(reach: number): Reach {
    const known = this.#known.get(reach);
    if (known !== undefined) return known;
    const first = { reach, waiters: 0, recount: 0 };
    this.#known.set(reach, first);
    return first;
  }
}

/**
 * Batches: requests that wait a moment for others that differ in their prompt alone. Pure; nothing is
 * allocated per request.
 *
 * A batch is open from its first member until its window is over or it is full. Its terms are fixed
 * when it opens. A member leaves from anywhere (sent, cancelled, stopped); a batch that everybody has
 * left is free again.
 */
import { assert } from '../lib/assert.ts';
import type { Arrival } from './arrival.ts';
import { NONE } from './candidates.ts';
import { Phase, type Requests } from './requests.ts';
import { SlotLinks, type SlotList } from './slot-lists.ts';

/** What a replica takes in one call, and how long requests may wait for each other. */
export interface BatchTerms {
  readonly windowUs: number;
  readonly itemsMax: number;
  /** Bytes of all prompts together. */
  readonly bytesMax: number;
}

/** Open at one time; who would open one more does not wait. The search for a key is linear. */
const batchesMax = 64;

export class Batches {
  /** Requests that wait in them. */
  waiters = 0;
  readonly #requests: Requests;
  /** Those in use lie below this. */
  #end = 0;
  readonly #members: readonly SlotList[];
  readonly #keys = new Int32Array(2 * batchesMax);
  readonly #model = new Int32Array(batchesMax);
  readonly #endUs = new Float64Array(batchesMax);
  readonly #itemsMax = new Int32Array(batchesMax);
  readonly #bytesMax = new Float64Array(batchesMax);
  readonly #bytes = new Float64Array(batchesMax);
  readonly #batchOf: Uint8Array;

  constructor(slots: number, requests: Requests) {
    const links = new SlotLinks(slots);
    this.#requests = requests;
    this.#members = Array.from({ length: batchesMax }, () => links.createList());
    this.#batchOf = new Uint8Array(slots);
  }

  /** When the first window is over; Infinity when nobody waits. */
  get nextUs(): number {
    let nextUs = Number.POSITIVE_INFINITY;
    for (let batch = 0; batch < this.#end; batch++) {
      if (this.members(batch).length > 0) nextUs = Math.min(nextUs, this.endUs(batch));
    }
    return nextUs;
  }

  /** Some member; NONE when nobody waits. */
  get first(): number {
    for (let batch = 0; batch < this.#end; batch++) {
      if (this.members(batch).length > 0) return this.members(batch).head;
    }
    return NONE;
  }

  members(batch: number): SlotList {
    return this.#members[batch] as SlotList;
  }

  endUs(batch: number): number {
    return this.#endUs[batch] as number;
  }

  /** A batch whose window is over; NONE for none. */
  due(nowUs: number): number {
    for (let batch = 0; batch < this.#end; batch++) {
      if (this.members(batch).length > 0 && this.endUs(batch) <= nowUs) return batch;
    }
    return NONE;
  }

  /** The open batch of requests like this one; NONE for none. */
  find({ model, batch0, batch1 }: Arrival): number {
    for (let batch = 0; batch < this.#end; batch++) {
      const isOne = this.#keys[2 * batch] === batch0 && this.#keys[2 * batch + 1] === batch1;
      if (isOne && this.#model[batch] === model && this.members(batch).length > 0) return batch;
    }
    return NONE;
  }

  /** A batch for requests like this one, which has still to join; NONE when too many are open. */
  open({ model, batch0, batch1 }: Arrival, terms: BatchTerms, nowUs: number): number {
    let batch = 0;
    while (batch < this.#end && this.members(batch).length > 0) batch++;
    if (batch === batchesMax) return NONE;
    this.#end = Math.max(this.#end, batch + 1);
    this.#keys[2 * batch] = batch0;
    this.#keys[2 * batch + 1] = batch1;
    this.#model[batch] = model;
    this.#endUs[batch] = nowUs + terms.windowUs;
    this.#itemsMax[batch] = terms.itemsMax;
    this.#bytesMax[batch] = terms.bytesMax;
    this.#bytes[batch] = 0;
    return batch;
  }

  /** Whether so many more bytes of prompt fit. */
  fits(batch: number, bytes: number): boolean {
    return (this.#bytes[batch] as number) + bytes <= (this.#bytesMax[batch] as number);
  }

  isFull(batch: number): boolean {
    return this.members(batch).length >= (this.#itemsMax[batch] as number);
  }

  join(batch: number, slot: number): void {
    const { phase, promptBytes } = this.#requests;
    assert(phase[slot] === Phase.idle, 'it waits nowhere else');
    assert(!this.isFull(batch), 'a full batch is sent');
    phase[slot] = Phase.gathering;
    this.members(batch).push(slot);
    this.#batchOf[slot] = batch;
    this.#bytes[batch] = (this.#bytes[batch] as number) + (promptBytes[slot] as number);
    this.waiters++;
  }

  /** The wait ends, however. Returns how long ago the request was published. */
  leave(slot: number, nowUs: number): number {
    const { phase, promptBytes, waitingSinceUs } = this.#requests;
    const batch = this.#batchOf[slot] as number;
    this.members(batch).remove(slot);
    this.#bytes[batch] = (this.#bytes[batch] as number) - (promptBytes[slot] as number);
    this.waiters--;
    phase[slot] = Phase.idle;
    while (this.#end > 0 && this.members(this.#end - 1).length === 0) this.#end--;
    return Math.max(0, nowUs - (waitingSinceUs[slot] as number));
  }

  /** Recounts them from the requests. */
  assertExact(): void {
    const { phase } = this.#requests;
    let waiters = 0;
    for (const one of phase) if (one === Phase.gathering) waiters++;
    assert(this.waiters === waiters, 'who gathers is in a batch');
    const members = this.#members.reduce((sum, list) => sum + list.length, 0);
    assert(members === waiters, 'who is in a batch gathers');
  }
}

/**
 * The waiters of one model: strict priority bands with ageing, fairness between tenants inside a band,
 * FIFO inside a tenant. Pure; allocates a list the first time a tenant waits in a band.
 *
 *   band      of the priority, five of them; a waiter rises by one for every promoteUs it has waited
 *   tenant    in a band: the one with the smallest service counter (VTC, arXiv 2401.00588)
 *   service   += prompt tokens to be prefilled + 2 * expected output, when a request is dispatched
 *
 * A tenant that begins to wait is lifted to the smallest counter of those who wait: idle time is no
 * credit. Difference of service between two tenants that both wait: at most twice the largest
 * request. With one tenant and one priority this is a plain FIFO.
 */
import { assert } from '../lib/assert.ts';
import { NONE } from './candidates.ts';
import type { Requests } from './requests.ts';
import type { SlotLinks, SlotList } from './slot-lists.ts';

const bands = 5;
/** At this wait the lowest band stands where the default one stood. */
const promoteUs = 5_000_000;
/** A token of output costs about twice one of input: it is decoded alone (VTC's w_q). */
export const outputWeight = 2;

/** Band of a priority from -100 to 100; higher bands go first. */
function bandOf(priority: number): number {
  if (priority === 0) return 2;
  if (priority > 0) return priority < 50 ? 3 : 4;
  return priority > -50 ? 1 : 0;
}

export class FairQueue {
  length = 0;
  readonly #requests: Requests;
  readonly #links: SlotLinks;
  readonly #tenants: number;
  /** List of each tenant in each band, once it has waited there. */
  readonly #lists: (SlotList | undefined)[] = [];
  /** Tenants that wait in each band, dense. */
  readonly #active: readonly Int32Array[];
  readonly #activeCount = new Int32Array(bands);
  /** Weighted tokens given to each tenant. */
  readonly #service: Float64Array;
  /** Counter of the tenant that was served last: where one that begins to wait alone starts. */
  #level = 0;

  constructor(requests: Requests, links: SlotLinks, tenants: number) {
    this.#requests = requests;
    this.#links = links;
    this.#tenants = tenants;
    this.#active = Array.from({ length: bands }, () => new Int32Array(tenants));
    this.#service = new Float64Array(tenants);
  }

  push(slot: number): void {
    const band = bandOf(this.#requests.priority[slot] as number);
    const tenant = this.#requests.tenant[slot] as number;
    assert(tenant >= 0 && tenant < this.#tenants, 'the tenant has a lane');
    const list = this.#listOf(band, tenant);
    if (list.length === 0) this.#activate(band, tenant);
    list.push(slot);
    this.length++;
  }

  /** The slot leaves from wherever it is. */
  remove(slot: number): void {
    const band = bandOf(this.#requests.priority[slot] as number);
    const tenant = this.#requests.tenant[slot] as number;
    const list = this.#listOf(band, tenant);
    list.remove(slot);
    this.length--;
    if (list.length === 0) this.#deactivate(band, tenant);
  }

  /** The waiter whose turn it is; NONE when nobody waits. */
  next(nowUs: number): number {
    if (this.length === 0) return NONE;
    let chosen = NONE;
    let highest = NONE;
    for (let band = bands - 1; band >= 0; band--) {
      if (this.#activeCount[band] === 0) continue;
      const waitedUs = nowUs - this.#oldestUs(band);
      const level = Math.min(bands - 1, band + Math.floor(waitedUs / promoteUs));
      if (level <= highest) continue;
      highest = level;
      chosen = band;
    }
    const list = this.#lists[this.#slotOfList(chosen, this.#leastServed(chosen))];
    assert(list !== undefined && list.head !== NONE, 'an active tenant waits');
    return list.head;
  }

  /** The waiter that `priority` may push out: the newest of the lowest band, if that is a lower one. */
  lastBelow(priority: number): number {
    for (let band = 0; band < bandOf(priority); band++) {
      let newest: number = NONE;
      let newestUs = Number.NEGATIVE_INFINITY;
      const active = this.#active[band] as Int32Array;
      for (let i = 0; i < (this.#activeCount[band] as number); i++) {
        const list = this.#lists[this.#slotOfList(band, active[i] as number)] as SlotList;
        const sinceUs = this.#requests.waitingSinceUs[list.tail] as number;
        if (sinceUs <= newestUs) continue;
        newestUs = sinceUs;
        newest = list.tail;
      }
      if (newest !== NONE) return newest;
    }
    return NONE;
  }

  /** The tenant was given `tokens`; less than 0 takes back what was charged too much. */
  charge(tenant: number, tokens: number): void {
    const service = Math.max(0, (this.#service[tenant] as number) + tokens);
    this.#service[tenant] = service;
    if (tokens > 0) this.#level = service - tokens;
  }

  #oldestUs(band: number): number {
    const { waitingSinceUs } = this.#requests;
    const active = this.#active[band] as Int32Array;
    let oldest = Number.POSITIVE_INFINITY;
    for (let i = 0; i < (this.#activeCount[band] as number); i++) {
      const list = this.#lists[this.#slotOfList(band, active[i] as number)] as SlotList;
      oldest = Math.min(oldest, waitingSinceUs[list.head] as number);
    }
    return oldest;
  }

  #leastServed(band: number): number {
    const active = this.#active[band] as Int32Array;
    let least = Number.POSITIVE_INFINITY;
    let tenant: number = NONE;
    for (let i = 0; i < (this.#activeCount[band] as number); i++) {
      const service = this.#service[active[i] as number] as number;
      if (service >= least) continue;
      least = service;
      tenant = active[i] as number;
    }
    return tenant;
  }

  #activate(band: number, tenant: number): void {
    let floor = Number.POSITIVE_INFINITY;
    for (let other = 0; other < bands; other++) {
      const active = this.#active[other] as Int32Array;
      for (let i = 0; i < (this.#activeCount[other] as number); i++) {
        floor = Math.min(floor, this.#service[active[i] as number] as number);
      }
    }
    if (floor === Number.POSITIVE_INFINITY) floor = this.#level;
    this.#service[tenant] = Math.max(this.#service[tenant] as number, floor);
    (this.#active[band] as Int32Array)[this.#activeCount[band] as number] = tenant;
    this.#activeCount[band] = (this.#activeCount[band] as number) + 1;
  }

  #deactivate(band: number, tenant: number): void {
    const active = this.#active[band] as Int32Array;
    const last = (this.#activeCount[band] as number) - 1;
    const at = active.indexOf(tenant);
    assert(at >= 0 && at <= last, 'who leaves was active');
    active[at] = active[last] as number;
    this.#activeCount[band] = last;
  }

  #slotOfList(band: number, tenant: number): number {
    return band * this.#tenants + tenant;
  }

  #listOf(band: number, tenant: number): SlotList {
    const at = this.#slotOfList(band, tenant);
    const list = this.#lists[at] ?? this.#links.createList();
    this.#lists[at] = list;
    return list;
  }
}

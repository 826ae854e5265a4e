/**
 * The waiters of one model: strict priority bands with ageing, fairness between tenants inside a band,
 * FIFO inside a tenant. Pure; allocates a flow the first time a tenant waits in a band.
 *
 *   band      of the priority, five of them; a waiter rises by one for every promoteUs it has waited
 *   tenant    in a band: the one with the smallest service counter (VTC, arXiv 2401.00588)
 *   flow      a tenant's waiters of one reach (replicas they can use) in a band, by arrival of the heads
 *   service   += prompt tokens to be prefilled + 2 * expected output, when a request is dispatched
 *   quantum   where replicas have caches to lose: of the tenants that were given at most this much more
 *             than the least, the one whose head has most of its prompt cached (DLPM, arXiv 2501.14312)
 *
 * A tenant that begins to wait is lifted to the smallest counter of those who wait, and one that is
 * served while nobody does to where service stands: idle time is no credit, and no debt. Difference of service between two tenants that both wait: at most twice the largest
 * request, and the quantum. With one tenant and one priority this is a plain FIFO. Room is shared as
 * turns are: in a full queue who has most waiters gives up its newest (longest queue drop, RFC 7806).
 */
import { assert } from '../lib/assert.ts';
import { NONE } from './candidates.ts';
import type { Requests } from './requests.ts';
import type { SlotLinks, SlotList } from './slot-lists.ts';

interface Flow {
  readonly tenant: number;
  /** Which replicas its waiters can use (Requests.reachOf). */
  readonly reach: number;
  readonly list: SlotList;
  /** Prompt tokens of those in the list. */
  tokens: number;
}

const bands = 5;
/** At this wait the lowest band stands where the default one stood. */
const promoteUs = 5_000_000;
/** A token of output costs about twice one of input: it is decoded alone (VTC's w_q). */
export const outputWeight = 2;

/** Some requests of a few thousand tokens: a tenant waits so long for its cache (ALGORITHMS 2c). */
const quantumTokens = 16_384;
/** Heads looked at for their caches, so that a choice costs some microseconds whoever waits. */
const lookMax = 32;

/** Tokens of the waiter's prompt that a replica with room has cached. */
export type CachedTokens = (slot: number) => number;

/** Band of a priority from -100 to 100; higher bands go first. */
function bandOf(priority: number): number {
  if (priority === 0) return 2;
  if (priority > 0) return priority < 50 ? 3 : 4;
  return priority > -50 ? 1 : 0;
}

const nobody: ReadonlySet<number> = new Set();

export class FairQueue {
  length = 0;
  readonly #requests: Requests;
  readonly #links: SlotLinks;
  readonly #tenants: number;
  /** Every flow that ever had a waiter, by its number. */
  readonly #flows = new Map<number, Flow>();
  /** Flows that have waiters, by band, dense. */
  readonly #active: readonly Flow[][];
  /** Weighted tokens given to each tenant. */
  readonly #service: Float64Array;
  /** Waiters of each tenant in each band. */
  readonly #waiters: Int32Array;
  /** Highest counter at which somebody was served: where one that begins alone starts. */
  #level = 0;
  readonly #cached: CachedTokens | undefined;
  /** Where the next look at the heads begins. */
  #look = 0;

  /** Without `cached` the tenant that was given least is always the next. */
  constructor(requests: Requests, links: SlotLinks, tenants: number, cached?: CachedTokens) {
    this.#requests = requests;
    this.#links = links;
    this.#tenants = tenants;
    this.#cached = cached;
    this.#active = Array.from({ length: bands }, () => []);
    this.#service = new Float64Array(tenants);
    this.#waiters = new Int32Array(tenants * bands);
  }

  push(slot: number): void {
    const band = bandOf(this.#requests.priority[slot] as number);
    const flow = this.#flowOf(slot, band);
    if (flow.list.length === 0) this.#activate(flow, band);
    flow.list.push(slot);
    flow.tokens += this.#requests.promptTokens[slot] as number;
    this.#count(flow.tenant, band, 1);
    this.length++;
  }

  /** The slot leaves from wherever it is. */
  remove(slot: number): void {
    const band = bandOf(this.#requests.priority[slot] as number);
    const flow = this.#flowOf(slot, band);
    flow.list.remove(slot);
    flow.tokens -= this.#requests.promptTokens[slot] as number;
    this.#count(flow.tenant, band, -1);
    this.length--;
    if (flow.list.length === 0) this.#deactivate(flow, band);
  }

  /** Prompt tokens of those who go before a newcomer in any case: of its tenant and band. */
  tokensBefore(slot: number): number {
    return this.#flowOf(slot, bandOf(this.#requests.priority[slot] as number)).tokens;
  }

  /** The waiter whose turn it is, those of a reach in `passed` left out; NONE when nobody waits. */
  next(nowUs: number, passed: ReadonlySet<number> = nobody): number {
    let chosen: Flow | undefined;
    let chosenBand = 0;
    let highest: number = NONE;
    for (let band = bands - 1; band >= 0; band--) {
      const flow = this.#leastServed(band, passed);
      if (flow === undefined) continue;
      const waitedUs = nowUs - this.#oldestUs(band, passed);
      const level = Math.min(bands - 1, band + Math.floor(waitedUs / promoteUs));
      if (level <= highest) continue;
      highest = level;
      chosen = flow;
      chosenBand = band;
    }
    if (chosen === undefined) return NONE;
    return this.#warmest(chosenBand, chosen, passed).list.head;
  }

  /**
   * The waiter that gives its place in a full queue to `slot`, a newcomer. Of the lowest band, up to its
   * own, the newest waiter of the tenant with the most; in its own band only of a tenant that stays
   * ahead of the newcomer's. NONE: there is none.
   */
  placeFor(slot: number): number {
    const own = bandOf(this.#requests.priority[slot] as number);
    for (let band = 0; band <= own; band++) {
      const tenant = this.#longest(band);
      if (tenant === NONE) continue;
      const isAhead = this.#waiting(tenant, band) > this.#waiting(this.#tenantOf(slot), band) + 1;
      return band < own || isAhead ? this.#newestOf(tenant, band) : NONE;
    }
    return NONE;
  }

  /** A request of the tenant is dispatched, which costs it `tokens`. */
  charge(tenant: number, tokens: number): void {
    // Where nobody waits nobody is passed over: what is used then is no debt.
    if (this.length === 0) this.#lift(tenant, this.#level);
    const service = this.#service[tenant] as number;
    this.#level = Math.max(this.#level, service);
    this.#service[tenant] = service + tokens;
  }

  /** It cost so much more than it was charged for, or less. */
  correct(tenant: number, tokens: number): void {
    this.#service[tenant] = Math.max(0, (this.#service[tenant] as number) + tokens);
  }

  #lift(tenant: number, floor: number): void {
    this.#service[tenant] = Math.max(this.#service[tenant] as number, floor);
  }

  #newestOf(tenant: number, band: number): number {
    let newest: number = NONE;
    let newestUs = Number.NEGATIVE_INFINITY;
    for (const flow of this.#active[band] as Flow[]) {
      if (flow.tenant !== tenant) continue;
      const sinceUs = this.#requests.waitingSinceUs[flow.list.tail] as number;
      if (sinceUs <= newestUs) continue;
      newestUs = sinceUs;
      newest = flow.list.tail;
    }
    return newest;
  }

  /** The tenant with the most waiters in the band; NONE when nobody waits there. */
  #longest(band: number): number {
    let longest: number = NONE;
    for (const { tenant } of this.#active[band] as Flow[]) {
      if (longest === NONE || this.#waiting(tenant, band) > this.#waiting(longest, band)) {
        longest = tenant;
      }
    }
    return longest;
  }

  #tenantOf(slot: number): number {
    return this.#requests.tenant[slot] as number;
  }

  #waiting(tenant: number, band: number): number {
    return this.#waiters[tenant * bands + band] as number;
  }

  #count(tenant: number, band: number, change: 1 | -1): void {
    this.#waiters[tenant * bands + band] = this.#waiting(tenant, band) + change;
  }

  #oldestUs(band: number, passed: ReadonlySet<number>): number {
    const { waitingSinceUs } = this.#requests;
    let oldest = Number.POSITIVE_INFINITY;
    for (const { reach, list } of this.#active[band] as Flow[]) {
      if (passed.has(reach)) continue;
      oldest = Math.min(oldest, waitingSinceUs[list.head] as number);
    }
    return oldest;
  }

  /** The flow of the tenant that was given least. */
  #leastServed(band: number, passed: ReadonlySet<number>): Flow | undefined {
    const { waitingSinceUs } = this.#requests;
    let least = Number.POSITIVE_INFINITY;
    let chosen: Flow | undefined;
    for (const flow of this.#active[band] as Flow[]) {
      const service = this.#service[flow.tenant] as number;
      if (service > least || passed.has(flow.reach)) continue;
      if (chosen !== undefined && service === least) {
        const isEarlier =
          (waitingSinceUs[flow.list.head] as number) < (waitingSinceUs[chosen.list.head] as number);
        if (flow.tenant !== chosen.tenant || !isEarlier) continue;
      }
      least = service;
      chosen = flow;
    }
    return chosen;
  }

  /** Of the flows within the quantum of `least`, the one whose head has most in the caches. */
  #warmest(band: number, least: Flow, passed: ReadonlySet<number>): Flow {
    const active = this.#active[band] as Flow[];
    if (this.#cached === undefined || active.length === 1) return least;
    const limit = (this.#service[least.tenant] as number) + quantumTokens;
    const count = Math.min(active.length, lookMax);
    let warmest = least;
    let most = this.#cached(least.list.head);
    for (let i = 0; i < count; i++) {
      this.#look = (this.#look + 1) % active.length;
      const flow = active[this.#look] as Flow;
      if (flow.tenant === least.tenant || passed.has(flow.reach)) continue;
      if ((this.#service[flow.tenant] as number) > limit) continue;
      const tokens = this.#cached(flow.list.head);
      if (tokens <= most) continue;
      most = tokens;
      warmest = flow;
    }
    return warmest;
  }

  #activate(flow: Flow, band: number): void {
    let floor = Number.POSITIVE_INFINITY;
    for (const active of this.#active) {
      for (const { tenant } of active) floor = Math.min(floor, this.#service[tenant] as number);
    }
    if (floor === Number.POSITIVE_INFINITY) floor = this.#level;
    this.#lift(flow.tenant, floor);
    (this.#active[band] as Flow[]).push(flow);
  }

  #deactivate(flow: Flow, band: number): void {
    const active = this.#active[band] as Flow[];
    const at = active.indexOf(flow);
    assert(at >= 0, 'who leaves was active');
    const last = active.pop() as Flow;
    if (last !== flow) active[at] = last;
  }

  #flowOf(slot: number, band: number): Flow {
    const tenant = this.#tenantOf(slot);
    const reach = this.#requests.reachOf(slot);
    assert(tenant >= 0 && tenant < this.#tenants, 'the tenant has a lane');
    const number = (reach * this.#tenants + tenant) * bands + band;
    const known = this.#flows.get(number);
    if (known !== undefined) return known;
    const flow: Flow = { tenant, reach, list: this.#links.createList(), tokens: 0 };
    this.#flows.set(number, flow);
    return flow;
  }
}

/**
 * Lanes: where requests wait for a replica, one lane per model. Pure.
 *
 * A lane is a fair queue of new requests (fair-queue.ts), and before it the requests that are being
 * tried again: they have waited longest, the retry budget bounds them, and they never block the others
 * when the only free replica is one that failed them. A waiter whose adapter finds no room keeps its
 * place and is passed by those who do not need the replicas it waits for (passing.ts). A waiter may
 * leave from anywhere (cancelled, expired). Depth says how many wait; whom a waiter keeps from a replica
 * is asked of `reaches`, which enter() and leave() keep along with it: one that a single replica can
 * serve says nothing of the others.
 * Limits: `queueTimeout` bounds all the time a request spends waiting, a retry does not start it
 * afresh. The deadline of the request bounds everything, and half of what is left of it the wait.
 */
import { assert } from '../lib/assert.ts';
import { NONE } from './candidates.ts';
import { type BrainConfig, Refusal } from './decisions.ts';
import { type CachedTokens, FairQueue, outputWeight } from './fair-queue.ts';
import { Reaches } from './reaches.ts';
import { Phase, type Requests } from './requests.ts';
import { SlotLinks, type SlotList } from './slot-lists.ts';
import { SlotTimers } from './slot-timers.ts';

/**
 * Share of the time to the deadline that may be waited: the rest is for the answer. Without it a queue
 * that is longer than deadlines hands out requests that are about to be cut, and all work is wasted.
 */
const waitShare = 0.5;

interface Lane {
  readonly waiting: FairQueue;
  readonly retrying: SlotList;
  /** Of both those that one replica alone can serve (pins.ts). */
  readonly pinned: SlotList;
  /** Which replicas those of both wait for. */
  readonly reaches: Reaches;
}

export class Lanes {
  /** Requests that wait, and those of them that wait to be tried again, over all models. */
  waiters = 0;
  retryWaiters = 0;
  readonly #requests: Requests;
  readonly #lanes: readonly Lane[];
  readonly #timers: SlotTimers;
  readonly #queueTimeoutUs: number;

  /** `cached` is asked about the waiters of models that hold requests. */
  constructor(requests: Requests, config: BrainConfig, cached: CachedTokens) {
    const { slots, models, tenants, queueTimeoutMs } = config;
    this.#requests = requests;
    this.#timers = new SlotTimers(slots);
    this.#queueTimeoutUs = queueTimeoutMs * 1000;
    const links = new SlotLinks(slots);
    const pinnedLinks = new SlotLinks(slots);
    this.#lanes = models.map(({ holdTokens }) => ({
      waiting: new FairQueue(
        requests,
        links,
        tenants,
        Number.isFinite(holdTokens) ? cached : undefined,
      ),
      retrying: links.createList(),
      pinned: pinnedLinks.createList(),
      reaches: new Reaches(),
    }));
  }

  lane(model: number): Lane {
    const lane = this.#lanes[model];
    assert(lane !== undefined, 'the model is known');
    return lane;
  }

  /** Requests of the model that wait. */
  depth(model: number): number {
    const lane = this.lane(model);
    return lane.waiting.length + lane.retrying.length;
  }

  /** Prompt tokens of the waiters that go before a request that does not wait yet, whatever happens. */
  tokensBefore(slot: number): number {
    return this.lane(this.#requests.model[slot] as number).waiting.tokensBefore(slot);
  }

  /** Until when the request may wait for the sake of its deadline. */
  waitLimitUs(slot: number): number {
    const { waitingSinceUs, deadlineUs } = this.#requests;
    const sinceUs = waitingSinceUs[slot] as number;
    return sinceUs + waitShare * ((deadlineUs[slot] as number) - sinceUs);
  }

  /** The tenant of a request that was dispatched pays for it. */
  charge(slot: number): void {
    const { model, tenant, pendingTokens, outputTokens } = this.#requests;
    const tokens = (pendingTokens[slot] as number) + outputWeight * (outputTokens[slot] as number);
    this.lane(model[slot] as number).waiting.charge(tenant[slot] as number, tokens);
  }

  /** Its output was other than expected; below 0: nobody knows. */
  settleAccount(slot: number, completionTokens: number): void {
    if (completionTokens < 0) return;
    const { model, tenant, outputTokens } = this.#requests;
    const tokens = outputWeight * (completionTokens - (outputTokens[slot] as number));
    this.lane(model[slot] as number).waiting.correct(tenant[slot] as number, tokens);
  }

  /** When the first waiter's time is over; Infinity when nobody waits. */
  get nextUs(): number {
    return this.#timers.nextUs;
  }

  /** The waiter whose time is over first. */
  get first(): number {
    return this.#timers.first;
  }

  /** Some of its time to wait is left. */
  mayWait(slot: number): boolean {
    return (this.#requests.waitedUs[slot] as number) < this.#queueTimeoutUs;
  }

  /** The request waits since `waitingSinceUs`. */
  enter(slot: number, phase: typeof Phase.waiting | typeof Phase.retrying): void {
    const requests = this.#requests;
    const model = requests.model[slot] as number;
    const lane = this.lane(model);
    this.waiters++;
    requests.phase[slot] = phase;
    if (requests.pin[slot] !== NONE) lane.pinned.push(slot);
    lane.reaches.add(requests.reachOf(slot));
    if (phase === Phase.waiting) lane.waiting.push(slot);
    else {
      lane.retrying.push(slot);
      this.retryWaiters++;
    }
    const left = this.#queueTimeoutUs - (requests.waitedUs[slot] as number);
    const sinceUs = requests.waitingSinceUs[slot] as number;
    this.#timers.set(slot, Math.min(sinceUs + left, this.waitLimitUs(slot)));
  }

  /** The wait is over without a replica. Returns why the request is refused. */
  expire(slot: number, nowUs: number): Refusal {
    const { phase, deadlineUs } = this.#requests;
    const isRetry = phase[slot] === Phase.retrying;
    this.leave(slot, nowUs);
    if (nowUs >= (deadlineUs[slot] as number)) return Refusal.deadline;
    return isRetry ? Refusal.failed : Refusal.queueWaitOver;
  }

  /** The wait ends, however. Returns its length. */
  leave(slot: number, nowUs: number): number {
    const requests = this.#requests;
    const model = requests.model[slot] as number;
    const lane = this.lane(model);
    this.waiters--;
    if (requests.phase[slot] === Phase.waiting) lane.waiting.remove(slot);
    else {
      lane.retrying.remove(slot);
      this.retryWaiters--;
    }
    if (requests.pin[slot] !== NONE) lane.pinned.remove(slot);
    lane.reaches.remove(requests.reachOf(slot));
    requests.phase[slot] = Phase.idle;
    this.#timers.clear(slot);
    const waitedUs = Math.max(0, nowUs - (requests.waitingSinceUs[slot] as number));
    requests.waitedUs[slot] = (requests.waitedUs[slot] as number) + waitedUs;
    return waitedUs;
  }

  /** Recounts the waiters, and which replicas they wait for, from the requests. */
  assertExact(): void {
    const { phase, model } = this.#requests;
    for (const { reaches } of this.#lanes) reaches.beginRecount();
    let [waiters, retryWaiters] = [0, 0];
    for (let slot = 0; slot < phase.length; slot++) {
      if (phase[slot] !== Phase.waiting && phase[slot] !== Phase.retrying) continue;
      waiters++;
      if (phase[slot] === Phase.retrying) retryWaiters++;
      this.lane(model[slot] as number).reaches.recount(this.#requests.reachOf(slot));
    }
    assert(this.waiters === waiters, 'who waits is counted');
    assert(this.retryWaiters === retryWaiters, 'who waits to be tried again is counted');
    for (const [row, { reaches }] of this.#lanes.entries()) {
      assert(this.depth(row) === reaches.assertRecounted(), 'who is in a lane waits there');
    }
  }
}

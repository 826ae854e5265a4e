/**
 * The door of the queue: which request that found no room may wait for some. Pure.
 *
 * No routable replica, a fleet that asked to be left alone, low priority under pressure, a full queue,
 * a first token that would come after the deadline: the answer is a refusal at once. A full queue
 * gives up a waiter of a lower priority, or of the tenant that has most, for one that may have its place.
 */
import type { Prng } from '../lib/prng.ts';
import { shedProbability } from './admission.ts';
import { NONE } from './candidates.ts';
import { Outlook } from './cluster.ts';
import { Refusal } from './decisions.ts';
import type { Fleet } from './fleet.ts';
import type { Lanes } from './lanes.ts';
import type { Pins } from './pins.ts';
import type { Requests } from './requests.ts';
import type { Retries } from './retries.ts';

export interface DoorParts {
  readonly requests: Requests;
  readonly fleet: Fleet;
  readonly lanes: Lanes;
  readonly retries: Retries;
  readonly pins: Pins;
  readonly random: Prng;
}

export class Door {
  /** Of the last request let in: the waiter that leaves for it; NONE when there is room for both. */
  victim = NONE;
  readonly #parts: DoorParts;
  readonly #queueMax: number;

  constructor(parts: DoorParts, queueMax: number) {
    this.#parts = parts;
    this.#queueMax = queueMax;
  }

  /** Why the request may not wait, its deadline aside; NONE when it may. */
  whyNot(slot: number, model: number, nowUs: number): Refusal | typeof NONE {
    const { lanes, retries, pins } = this.#parts;
    this.victim = NONE;
    const outlook = pins.outlook(slot, retries.excludedOf(slot));
    if (outlook === Outlook.none) return Refusal.noReplica;
    if (outlook === Outlook.paused && retries.isPauseLong(model, nowUs)) return Refusal.busy;
    if (this.#isShed(slot, model)) return Refusal.shed;
    if (lanes.depth(model) < this.#queueMax) return NONE;
    this.victim = lanes.lane(model).waiting.placeFor(slot);
    return this.victim === NONE ? Refusal.queueFull : NONE;
  }

  /**
   * How much too late the first token would come, or the wait would end, by the work that goes before the
   * request in any case; microseconds, not above 0 when both are in time.
   */
  lateUs(slot: number, model: number, nowUs: number): number {
    const { requests, fleet, lanes } = this.#parts;
    const cluster = fleet.cluster(model);
    const before = lanes.tokensBefore(slot);
    const firstUs = nowUs + cluster.waitUs(before + (requests.promptTokens[slot] as number));
    const endUs = nowUs + cluster.waitUs(before);
    const deadlineUs = requests.deadlineUs[slot] as number;
    return Math.max(firstUs - deadlineUs, endUs - lanes.waitLimitUs(slot));
  }

  /** Why the victim of a request of `slot` leaves. */
  whyOut(victim: number, slot: number): Refusal {
    const { priority } = this.#parts.requests;
    return priority[victim] === priority[slot] ? Refusal.queueFull : Refusal.shed;
  }

  #isShed(slot: number, model: number): boolean {
    const { requests, fleet, lanes, random } = this.#parts;
    if ((requests.priority[slot] as number) >= 0) return false;
    const share = shedProbability(fleet.cluster(model).pressure(lanes.depth(model)));
    return random.next() < share * 2 ** 32;
  }
}

/**
 * Pump: gives out all the room that the replicas of a model have. Pure.
 *
 * First to those that are tried again, then in the order of the fair queue; who finds no room is passed
 * by those that do not need what it waits for (passing.ts).
 */
import { type Candidates, NONE } from './candidates.ts';
import type { Fleet } from './fleet.ts';
import type { Lanes } from './lanes.ts';
import type { Passing } from './passing.ts';
import type { Pins } from './pins.ts';
import type { Requests } from './requests.ts';
import type { Retries } from './retries.ts';

interface PumpParts {
  readonly requests: Requests;
  readonly fleet: Fleet;
  readonly lanes: Lanes;
  readonly passing: Passing;
  readonly pins: Pins;
  readonly retries: Retries;
}

/** Gives the request to one of the candidates. False: none of them has room for it. */
export type Dispatch = (slot: number, candidates: Candidates) => boolean;

export class Pump {
  readonly #parts: PumpParts;
  readonly #dispatch: Dispatch;

  constructor(parts: PumpParts, dispatch: Dispatch) {
    this.#parts = parts;
    this.#dispatch = dispatch;
  }

  hasRoom(model: number): boolean {
    const { candidates, reserved } = this.#parts.fleet.cluster(model);
    return candidates.length + reserved.length > 0;
  }

  run(model: number, nowUs: number): void {
    const { requests, fleet, lanes, passing, pins, retries } = this.#parts;
    const cluster = fleet.cluster(model);
    const { retrying, waiting } = lanes.lane(model);
    let slot = retrying.head;
    while (slot !== NONE && this.hasRoom(model)) {
      const next = retrying.after(slot);
      const allowed = pins.has(slot)
        ? cluster.candidates
        : fleet.candidatesWithout(model, retries.failersOf(slot));
      if (pins.has(slot) || allowed.length > 0) this.#dispatch(slot, allowed);
      slot = next;
    }
    while (waiting.length > 0 && this.hasRoom(model)) {
      slot = waiting.next(nowUs, passing.reaches);
      if (slot === NONE) break;
      if (this.#dispatch(slot, cluster.candidates)) continue;
      if (!passing.hold(requests.reachOf(slot), cluster)) break;
    }
    passing.end();
  }
}

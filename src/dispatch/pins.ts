/**
 * Pins: requests that one replica alone can serve, because it keeps what they are about. Pure.
 *
 * A pin is a row and its epoch: what stands in the row under another epoch is another replica. The
 * one of a pin is asked although it drains or has weight 0, and never anybody in its place: there is no
 * hedge, no other model, no policy. Unhealthy, paused or full it is waited for as any other is. Where a
 * reload has given it another row the pin follows; once it has left, whoever waits for it is refused.
 */
import { type Candidates, NONE } from './candidates.ts';
import { Outlook } from './cluster.ts';
import type { Fleet } from './fleet.ts';
import { Phase, type Requests } from './requests.ts';

/** Of an arrival that any replica of its model may serve. */
export const unpinned = { pin: NONE, pinEpoch: 0 } as const;

export class Pins {
  readonly #requests: Requests;
  readonly #fleet: Fleet;

  constructor(requests: Requests, fleet: Fleet) {
    this.#requests = requests;
    this.#fleet = fleet;
  }

  has(slot: number): boolean {
    return this.#requests.pin[slot] !== NONE;
  }

  /** Of `candidates` those that can serve the request, and its own though it is none of them. */
  among(slot: number, candidates: Candidates): Candidates {
    const { pin, pinEpoch } = this.#requests;
    const row = pin[slot] as number;
    return row === NONE ? candidates : this.#fleet.only(row, pinEpoch[slot] as number);
  }

  /** Its replica has left. */
  isGone(slot: number): boolean {
    const { pin, pinEpoch } = this.#requests;
    const row = pin[slot] as number;
    return row !== NONE && !this.#fleet.isMember(row, pinEpoch[slot] as number);
  }

  /** Pins the request to the row that its replica, which has left its own, has now. False: it has none. */
  follow(slot: number): boolean {
    const { pin, pinEpoch } = this.#requests;
    const row = this.#fleet.successor(pin[slot] as number, pinEpoch[slot] as number);
    if (row === NONE) return false;
    pin[slot] = row;
    pinEpoch[slot] = this.#fleet.epoch(row);
    return true;
  }

  /** Its replica has left, and there is none to follow it to. */
  isLost(slot: number): boolean {
    return this.isGone(slot) && !this.follow(slot);
  }

  /** What the request may hope for (Cluster.outlook). */
  outlook(slot: number, excluded: (row: number) => boolean): Outlook {
    if (this.isGone(slot)) return Outlook.none;
    const { model, pin } = this.#requests;
    return this.#fleet.cluster(model[slot] as number).outlook(excluded, pin[slot] as number);
  }

  /** Some request that waits for a replica which has left; NONE when there is none. Off the hot path. */
  firstGone(): number {
    const { phase } = this.#requests;
    return phase.findIndex(
      (of, slot) => (of === Phase.waiting || of === Phase.retrying) && this.isGone(slot),
    );
  }
}

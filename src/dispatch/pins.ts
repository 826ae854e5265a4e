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
import type { DecisionSink } from './decisions.ts';
import type { Fleet } from './fleet.ts';
import type { Lanes } from './lanes.ts';
import { Phase, type Requests } from './requests.ts';

/** Of an arrival that any replica of its model may serve. */
export const unpinned = { pin: NONE, pinEpoch: 0 } as const;

interface PinsParts {
  readonly requests: Requests;
  readonly fleet: Fleet;
  readonly lanes: Lanes;
}

export class Pins {
  readonly #requests: Requests;
  readonly #fleet: Fleet;
  readonly #lanes: Lanes;
  readonly #sink: Pick<DecisionSink, 'followed'>;

  constructor({ requests, fleet, lanes }: PinsParts, sink: Pick<DecisionSink, 'followed'>) {
    this.#requests = requests;
    this.#fleet = fleet;
    this.#lanes = lanes;
    this.#sink = sink;
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
  #isGone(slot: number): boolean {
    const { pin, pinEpoch } = this.#requests;
    const row = pin[slot] as number;
    return row !== NONE && !this.#fleet.isMember(row, pinEpoch[slot] as number);
  }

  /**
   * Pins the request to the row that its replica, which has left its own, has now; it does not wait. What
   * failed there has failed here. False: it has none.
   */
  #follow(slot: number): boolean {
    const { pin, pinEpoch } = this.#requests;
    const from = pin[slot] as number;
    const row = this.#fleet.successor(from, pinEpoch[slot] as number);
    if (row === NONE) return false;
    pin[slot] = row;
    pinEpoch[slot] = this.#fleet.epoch(row);
    if (this.#requests.hasFailed(slot, from)) this.#requests.addFailed(slot, row);
    this.#sink.followed(slot, row, this.#fleet.epoch(row));
    return true;
  }

  /** The replica of a request that does not wait has left, and there is none to follow it to. */
  isLost(slot: number): boolean {
    return this.#isGone(slot) && !this.#follow(slot);
  }

  /** What a request that does not wait may hope for (Cluster.outlook). */
  outlook(slot: number, excluded: (row: number) => boolean): Outlook {
    if (this.isLost(slot)) return Outlook.none;
    const { model, pin } = this.#requests;
    return this.#fleet.cluster(model[slot] as number).outlook(excluded, pin[slot] as number);
  }

  /** Whoever waits for a replica of the model that has left follows it and waits on; else `lost` has it. */
  settleGone(model: number, nowUs: number, lost: (slot: number) => void): void {
    const { phase, waitedUs } = this.#requests;
    const { pinned } = this.#lanes.lane(model);
    for (let slot = pinned.head; slot !== NONE; ) {
      // Nobody else comes or leaves meanwhile. Who follows is looked at once more, at the end of the list.
      const next = pinned.after(slot);
      if (this.#isGone(slot)) {
        const isRetry = phase[slot] === Phase.retrying;
        const beforeUs = waitedUs[slot] as number;
        this.#lanes.leave(slot, nowUs);
        if (this.#follow(slot)) {
          waitedUs[slot] = beforeUs; // its wait is not over
          this.#lanes.enter(slot, isRetry ? Phase.retrying : Phase.waiting);
        } else lost(slot);
      }
      slot = next;
    }
  }
}

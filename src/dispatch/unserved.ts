/**
 * Unserved: whoever waits for an adapter that no replica has or could load any more. Pure.
 *
 * A replica that is down may come back, and its waiters stay (brain.ts). One that has left, or could not
 * load the adapter, will not serve them: with nobody else in sight they are refused at once.
 */
import { NONE } from './candidates.ts';
import { Refusal } from './decisions.ts';
import type { Fleet } from './fleet.ts';
import type { Lanes } from './lanes.ts';
import { Phase, type Requests } from './requests.ts';
import type { Retries } from './retries.ts';

interface UnservedParts {
  readonly retries: Retries;
  readonly requests: Requests;
  readonly fleet: Fleet;
  readonly lanes: Lanes;
}

export class Unserved {
  readonly #parts: UnservedParts;

  constructor(parts: UnservedParts) {
    this.#parts = parts;
  }

  /** Ends the waits that are in vain and tells `refuse` why. Off the hot path: looks at every slot. */
  settle(model: number, nowUs: number, refuse: (slot: number, refusal: Refusal) => void): void {
    const { requests, lanes } = this.#parts;
    const { phase, model: models, adapter: adapters } = requests;
    for (let slot = 0; slot < phase.length; slot++) {
      if (adapters[slot] === 0 || models[slot] !== model) continue;
      const isRetry = phase[slot] === Phase.retrying;
      if (!isRetry && phase[slot] !== Phase.waiting) continue;
      if (this.#isHopeful(slot)) continue;
      lanes.leave(slot, nowUs);
      refuse(slot, isRetry ? Refusal.failed : Refusal.noReplica);
    }
  }
  /** Some replica that may be given requests has not failed this one, and has its adapter or could load it. */
  #isHopeful(slot: number): boolean {
    const { requests, fleet, retries } = this.#parts;
    const { model, pin } = requests;
    const row = pin[slot] as number;
    const excluded = retries.excludedOf(slot);
    return row === NONE ? fleet.isServed(model[slot] as number, excluded) : !excluded(row);
  }
}

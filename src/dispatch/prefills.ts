/**
 * Prefills: when the prompt tokens that a replica was given stop being work ahead. Pure.
 *
 * A stream tells with its first token. An answer that comes whole does not, so its prefill is taken to
 * be over after the time the model says: what was pending at its replica, itself included, at the
 * replica's cost of a token. Without that, whole answers would count as prefill until their end.
 */
import type { Fleet } from './fleet.ts';
import type { Requests } from './requests.ts';
import { SlotTimers } from './slot-timers.ts';

export class Prefills {
  readonly #requests: Requests;
  readonly #fleet: Fleet;
  readonly #timers: SlotTimers;

  constructor(slots: number, requests: Requests, fleet: Fleet) {
    this.#requests = requests;
    this.#fleet = fleet;
    this.#timers = new SlotTimers(2 * slots);
  }

  /** When the next modelled prefill is over; Infinity for none. */
  get nextUs(): number {
    return this.#timers.nextUs;
  }

  /** The exchange of the place has begun and is counted. */
  begin(place: number, nowUs: number): void {
    const { streams, replica } = this.#requests;
    if (streams[this.#requests.slotOf(place)] === 1) return;
    const { pendingTokens, prefillUs } = this.#fleet.load(replica[place] as number);
    this.#timers.set(place, nowUs + pendingTokens * prefillUs);
  }

  /** The hedge takes the place of the slot. */
  moveHedge(slot: number): void {
    this.#timers.move(this.#requests.hedgeOf(slot), slot);
  }

  /** The prefill is over. True when its replica has less to do than before. */
  end(place: number): boolean {
    const { replica, epoch, pendingTokens } = this.#requests;
    if (this.#timers.has(place)) this.#timers.clear(place);
    const tokens = pendingTokens[place] as number;
    if (tokens === 0) return false;
    pendingTokens[place] = 0;
    this.#fleet.prefilled(replica[place] as number, epoch[place] as number, tokens);
    return true;
  }

  /** Ends the modelled prefills that are over; calls `resumed` with the model of each. */
  expire(nowUs: number, resumed: (model: number) => void): void {
    while (this.#timers.nextUs <= nowUs) {
      const place = this.#timers.first;
      const model = this.#requests.model[this.#requests.slotOf(place)] as number;
      if (this.end(place)) resumed(model);
    }
  }
}

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
    this.#timers = new SlotTimers(slots);
  }

  /** When the next modelled prefill is over; Infinity for none. */
  get nextUs(): number {
    return this.#timers.nextUs;
  }

  /** The slot's attempt has begun and is counted. */
  begin(slot: number, nowUs: number): void {
    if (this.#requests.streams[slot] === 1) return;
    const { pendingTokens, prefillUs } = this.#fleet.load(this.#requests.replica[slot] as number);
    this.#timers.set(slot, nowUs + pendingTokens * prefillUs);
  }

  /** The prefill is over. True when its replica has less to do than before. */
  end(slot: number): boolean {
    const { replica, epoch, pendingTokens } = this.#requests;
    if (this.#timers.has(slot)) this.#timers.clear(slot);
    const tokens = pendingTokens[slot] as number;
    if (tokens === 0) return false;
    pendingTokens[slot] = 0;
    this.#fleet.prefilled(replica[slot] as number, epoch[slot] as number, tokens);
    return true;
  }

  /** Ends the modelled prefills that are over; calls `resumed` with the model of each. */
  expire(nowUs: number, resumed: (model: number) => void): void {
    while (this.#timers.nextUs <= nowUs) {
      const slot = this.#timers.first;
      if (this.end(slot)) resumed(this.#requests.model[slot] as number);
    }
  }
}

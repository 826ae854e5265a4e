/**
 * The scheduler's bell as an acceptor rings it: not for every message of a turn of the event loop.
 *
 * The first message of a turn wakes the scheduler at once, so a lone request waits for nothing. What
 * follows is announced at the end of the turn, and every `spacingUs` of a long one: a wake-up costs
 * both threads more than a decision, and a burst would otherwise pay it for every request; yet the
 * first of hundreds of requests must not wait until the last has been read.
 */
import { nowUs } from '../lib/clock.ts';
import { ring } from '../shm/doorbell.ts';

/** A turn under full load takes many milliseconds; a wake-up 6 to 10 us. */
const spacingUs = 500;

export class SchedulerBell {
  readonly #words: Int32Array;
  readonly #bell: number;
  #rangUs = 0;
  #isTurnWatched = false;
  #owed = false;
  readonly #onTurnEnd = (): void => {
    this.#isTurnWatched = false;
    this.#rangUs = 0;
    if (this.#owed) this.#ring();
  };

  constructor(words: Int32Array, bell: number) {
    this.#words = words;
    this.#bell = bell;
  }

  /** Call after publishing, at `us` of the clock. */
  ring(us = nowUs()): void {
    if (us - this.#rangUs < spacingUs) {
      this.#owed = true;
      return;
    }
    this.#rangUs = us;
    if (!this.#isTurnWatched) setImmediate(this.#onTurnEnd);
    this.#isTurnWatched = true;
    this.#ring();
  }

  #ring(): void {
    this.#owed = false;
    ring(this.#words, this.#bell);
  }
}

/**
 * The scheduler's bell as an acceptor rings it: at most twice a turn of the event loop.
 *
 * The first message of a turn wakes the scheduler at once, so a lone request waits for nothing. What
 * follows in the same turn is announced once at its end: a wake-up costs both threads more than a
 * decision, and a burst would otherwise pay it for every request.
 */
import { ring } from '../shm/doorbell.ts';

export class SchedulerBell {
  readonly #words: Int32Array;
  readonly #bell: number;
  #rangThisTurn = false;
  #owed = false;
  readonly #onTurnEnd = (): void => {
    this.#rangThisTurn = false;
    if (!this.#owed) return;
    this.#owed = false;
    ring(this.#words, this.#bell);
  };

  constructor(words: Int32Array, bell: number) {
    this.#words = words;
    this.#bell = bell;
  }

  /** Call after publishing. */
  ring(): void {
    if (this.#rangThisTurn) {
      this.#owed = true;
      return;
    }
    this.#rangThisTurn = true;
    setImmediate(this.#onTurnEnd);
    ring(this.#words, this.#bell);
  }
}

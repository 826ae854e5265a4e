/**
 * Passing: who goes before a waiter that finds no room, while the room is given out. Pure.
 *
 * A waiter whose adapter only some replicas have must not keep the others idle, and who passes it must
 * not take what it waits for: it holds the candidates it could use, and those behind it get the rest.
 * A waiter that can use any replica holds them all, so nobody passes it.
 */
import type { Candidates } from './candidates.ts';
import type { Fleet } from './fleet.ts';

export class Passing {
  /** Adapters of those who were passed; whoever asks for the same one waits behind them. */
  readonly adapters = new Set<number>();
  readonly #fleet: Fleet;
  readonly #isHeld: Uint8Array;

  constructor(fleet: Fleet) {
    this.#fleet = fleet;
    this.#isHeld = new Uint8Array(fleet.rows);
  }

  /** The candidate is kept for somebody who was passed. */
  isHeld(row: number): boolean {
    return this.#isHeld[row] === 1;
  }

  /** A waiter with this adapter found no room. True when some candidates are left for others. */
  hold(adapter: number, { length, row: rows }: Candidates): boolean {
    let left = 0;
    this.adapters.add(adapter);
    for (let i = 0; i < length; i++) {
      const row = rows[i] as number;
      if (this.#fleet.hasAdapter(row, adapter)) this.#isHeld[row] = 1;
      if (!this.isHeld(row)) left++;
    }
    return left > 0;
  }

  /** All the room has been given out. */
  end(): void {
    if (this.adapters.size === 0) return;
    this.adapters.clear();
    this.#isHeld.fill(0);
  }
}

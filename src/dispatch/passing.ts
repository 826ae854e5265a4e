/**
 * Passing: who goes before a waiter that finds no room, while the room is given out. Pure.
 *
 * A waiter that only some replicas can serve (they have its adapter, or it is pinned to one) must not keep
 * the others idle, and who passes it must not take what it waits for: it holds the candidates it could
 * use, and those behind it get the rest. A waiter that can use any replica holds them all, so nobody
 * passes it but for what is reserved for others.
 */
import type { Candidates } from './candidates.ts';
import type { Cluster } from './cluster.ts';
import type { Fleet } from './fleet.ts';

export class Passing {
  /** Of those who were passed (Requests.reachOf); whoever can use the same replicas waits behind them. */
  readonly reaches = new Set<number>();
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

  /** A waiter of this reach found no room. True when some is left for others. */
  hold(reach: number, { candidates, reserved }: Cluster): boolean {
    this.reaches.add(reach);
    const left = this.#hold(reach, candidates, true) + this.#hold(reach, reserved, false);
    return left > 0;
  }

  #hold(reach: number, { length, row: rows }: Candidates, isForAll: boolean): number {
    let left = 0;
    for (let i = 0; i < length; i++) {
      const row = rows[i] as number;
      const isUsed =
        reach < 0 ? row === -1 - reach : isForAll && this.#fleet.hasAdapter(row, reach);
      if (isUsed) this.#isHeld[row] = 1;
      if (!this.isHeld(row)) left++;
    }
    return left;
  }

  /** All the room has been given out. */
  end(): void {
    if (this.reaches.size === 0) return;
    this.reaches.clear();
    this.#isHeld.fill(0);
  }
}

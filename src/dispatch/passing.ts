/**
 * Passing: who goes before a waiter that finds no room. Pure.
 *
 * A waiter that only some replicas can serve (they have its adapter, or it is pinned to one) must not keep
 * the others idle, and who passes it must not take what it waits for: it holds the candidates it could
 * use, and those behind it get the rest. A waiter that can use any replica holds them all, so nobody
 * passes it but for what is reserved for others. So it is while the room is given out (pump.ts), waiter by
 * waiter; a hedge or a batch passes all who wait and gets what none of them could use.
 */
import { assert } from '../lib/assert.ts';
import type { Candidates } from './candidates.ts';
import type { Cluster } from './cluster.ts';
import type { Fleet } from './fleet.ts';
import type { Lanes } from './lanes.ts';
import { adapterOfReach, rowOfReach } from './reaches.ts';

export class Passing {
  /** Of those who were passed (Requests.reachOf); whoever can use the same replicas waits behind them. */
  readonly reaches = new Set<number>();
  readonly #fleet: Fleet;
  readonly #lanes: Lanes;
  readonly #isHeld: Uint8Array;

  constructor(fleet: Fleet, lanes: Lanes) {
    this.#fleet = fleet;
    this.#lanes = lanes;
    this.#isHeld = new Uint8Array(fleet.rows);
  }

  /** The candidate is kept for somebody who was passed. */
  isHeld(row: number): boolean {
    return this.#isHeld[row] === 1;
  }

  /** A waiter of this reach found no room. True when some is left for others. */
  hold(reach: number, { candidates, reserved }: Cluster): boolean {
    this.#hold(reach, candidates);
    return this.#isAnyLeft(candidates) || this.#isAnyLeft(reserved);
  }

  /** Holds what anybody who waits could use, until end(). True when a candidate is left for others. */
  holdForAll(model: number): boolean {
    assert(this.reaches.size === 0, 'nobody else is giving out room');
    const { anywhere, bound } = this.#lanes.lane(model).reaches;
    if (anywhere > 0) return false;
    const candidates = this.#fleet.candidates(model);
    for (const { reach } of bound) this.#hold(reach, candidates);
    return this.#isAnyLeft(candidates);
  }

  #hold(reach: number, { length, row: rows }: Candidates): void {
    this.reaches.add(reach);
    const adapter = adapterOfReach(reach);
    // Where its adapter is not, it waits for no room, and there is none to keep for it.
    if (reach < 0) {
      const row = rowOfReach(reach);
      if (this.#fleet.hasAdapter(row, adapter)) this.#isHeld[row] = 1;
      return;
    }
    for (let i = 0; i < length; i++) {
      const row = rows[i] as number;
      if (this.#fleet.hasAdapter(row, adapter)) this.#isHeld[row] = 1;
    }
  }

  #isAnyLeft({ length, row: rows }: Candidates): boolean {
    for (let i = 0; i < length; i++) if (!this.isHeld(rows[i] as number)) return true;
    return false;
  }

  /** Nothing is held any more. */
  end(): void {
    if (this.reaches.size === 0) return;
    this.reaches.clear();
    this.#isHeld.fill(0);
  }
}

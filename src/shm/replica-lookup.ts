/**
 * The replica table as those see it who neither write it nor pick from it: who stands in a row. Acceptors
 * and forwarders; only reads, never blocks.
 */
import { replicaCounts } from './memory.ts';
import { ReplicaAdmin, ReplicaTableLayout } from './replica-table.layout.ts';
import type { Keeper } from './stored-responses.ts';

const { replica, count } = ReplicaTableLayout.place(replicaCounts).at;
const field = replica.at;

export class ReplicaLookup {
  readonly #words: Int32Array;

  constructor(region: SharedArrayBuffer) {
    ReplicaTableLayout.attach(region, replicaCounts);
    this.#words = new Int32Array(region);
  }

  /** Writes who has the row to `keeper`. */
  read(row: number, keeper: Keeper): void {
    keeper.row = row;
    keeper.epoch = this.#read(row, field.epoch);
    keeper.identity = this.#read(row, field.identity);
    keeper.model = this.#read(row, field.model);
  }

  /**
   * True when the keeper has not left. One that a reload has given another row (the same URL, for the same
   * model) is found there.
   */
  locate(keeper: Keeper): boolean {
    const { row, epoch, identity, model } = keeper;
    if (this.#isMember(row) && this.#read(row, field.epoch) === epoch) return true;
    const rows = Atomics.load(this.#words, count);
    for (let other = 0; other < rows; other++) {
      const isSame = this.#read(other, field.identity) === identity;
      if (!isSame || this.#read(other, field.model) !== model || !this.#isMember(other)) continue;
      this.read(other, keeper);
      return true;
    }
    return false;
  }

  /** Writes the only replica there is, of the model or with -1 of all, to `keeper`. False: it is not the only one. */
  only(model: number, keeper: Keeper): boolean {
    let found = -1;
    const rows = Atomics.load(this.#words, count);
    for (let row = 0; row < rows; row++) {
      if (!this.#isMember(row)) continue;
      if (model >= 0 && this.#read(row, field.model) !== model) continue;
      if (found >= 0) return false;
      found = row;
    }
    if (found >= 0) this.read(found, keeper);
    return found >= 0;
  }

  /** It serves what it keeps: it is active, or drains. */
  #isMember(row: number): boolean {
    const admin = this.#read(row, field.admin);
    return admin === ReplicaAdmin.active || admin === ReplicaAdmin.draining;
  }

  #read(row: number, at: number): number {
    return Atomics.load(this.#words, replica.base + row * replica.stride + at);
  }
}

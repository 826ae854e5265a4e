/** Whether replicas may be given requests, over the rows of their table as they are. Any thread; only reads. */
import { replicaCounts } from './memory.ts';
import { ReplicaAdmin, ReplicaTableLayout } from './replica-table.layout.ts';

const { replica, count } = ReplicaTableLayout.place(replicaCounts).at;

export class Routable {
  readonly #words: Int32Array;
  readonly #floats: Float64Array;

  constructor(replicas: SharedArrayBuffer) {
    ReplicaTableLayout.attach(replicas, replicaCounts);
    this.#words = new Int32Array(replicas);
    this.#floats = new Float64Array(replicas);
  }

  /**
   * Some replica of the model that has or could load the adapter, or of any, may be: the rule of the
   * scheduler (dispatch/fleet.ts).
   */
  has(model?: number, adapter = 0): boolean {
    const rows = Atomics.load(this.#words, count);
    for (let index = 0; index < rows; index++) {
      const row = replica.base + index * replica.stride;
      const isActive = Atomics.load(this.#words, row + replica.at.admin) === ReplicaAdmin.active;
      const isHealthy = Atomics.load(this.#words, row + replica.at.healthy) === 1;
      const weight = this.#floats[(row + replica.at.weight) / 2] as number;
      if (!isActive || !isHealthy || weight <= 0) continue;
      if (model === undefined) return true;
      const isOfModel = this.#words[row + replica.at.model] === model;
      if (isOfModel && (adapter === 0 || this.#couldServe(row, adapter - 1))) return true;
    }
    return false;
  }

  #couldServe(row: number, bit: number): boolean {
    const { adapters, loadable } = replica.at;
    const word = row + (bit >>> 5);
    const either =
      (this.#words[word + adapters] as number) | (this.#words[word + loadable] as number);
    return ((either >>> (bit & 31)) & 1) === 1;
  }
}

/**
 * When each replica last sent a byte of an answer: what a probe that times out is weighed against.
 *
 * Any forwarder writes, the health checker reads; a plain f64 store each, where the last writer wins
 * and is never far from the latest (RELIABILITY 0.11: a busy replica that streams is not ejected).
 */
import { replicaCounts } from './memory.ts';
import { ReplicaTableLayout } from './replica-table.layout.ts';

export class ReplicaProgress {
  readonly #floats: Float64Array;
  readonly #base: number;
  readonly #stride: number;

  constructor(region: SharedArrayBuffer) {
    const { replica } = ReplicaTableLayout.attach(region, replicaCounts).at;
    this.#floats = new Float64Array(region);
    this.#base = (replica.base + replica.at.progressUs) / 2;
    this.#stride = replica.stride / 2;
  }

  mark(row: number, us: number): void {
    this.#floats[this.#base + row * this.#stride] = us;
  }

  /** Microseconds of lib/clock.ts; 0 when the row never sent anything. */
  lastUs(row: number): number {
    return this.#floats[this.#base + row * this.#stride] as number;
  }
}

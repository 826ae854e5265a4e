/**
 * The replica table as the scheduler sees it: reads what the main thread says, writes what it gave.
 *
 * Scheduler thread; never blocks. A change that the main thread is still writing is read again: the
 * version is taken before the rows and grows after them.
 */
import type { ReplicaFacts } from '../dispatch/fleet.ts';
import { replicaCounts } from '../shm/memory.ts';
import { ReplicaAdmin, ReplicaTableLayout } from '../shm/replica-table.layout.ts';

const { at } = ReplicaTableLayout.place(replicaCounts);
const field = at.replica.at;
const wordOf = (row: number, offset: number): number =>
  at.replica.base + row * at.replica.stride + offset;

export class ReplicaRows {
  readonly #words: Int32Array;
  readonly #floats: Float64Array;
  #version = 0;

  constructor(region: SharedArrayBuffer) {
    ReplicaTableLayout.attach(region, replicaCounts);
    this.#words = new Int32Array(region);
    this.#floats = new Float64Array(region);
  }

  /** Rows in use lie below this. */
  get count(): number {
    return Atomics.load(this.#words, at.count);
  }

  /** Of the table as it was read last. */
  get version(): number {
    return this.#version;
  }

  get changed(): boolean {
    return Atomics.load(this.#words, at.version) !== this.#version;
  }

  /** Hands every row to `apply`. */
  read(apply: (row: number, facts: ReplicaFacts) => void): void {
    this.#version = Atomics.load(this.#words, at.version);
    const count = this.count;
    for (let row = 0; row < count; row++) {
      const read = (offset: number): number => Atomics.load(this.#words, wordOf(row, offset));
      const readFloat = (offset: number): number => this.#floats[wordOf(row, offset) / 2] as number;
      const admin = read(field.admin);
      apply(row, {
        epoch: read(field.epoch),
        // A row that nobody uses is a member of no model.
        model: admin === ReplicaAdmin.absent ? -1 : read(field.model),
        active: admin === ReplicaAdmin.active,
        healthy: read(field.healthy) === 1,
        maxInFlight: read(field.maxInFlight),
        identity: read(field.identity),
        kvTokens: read(field.kvTokens),
        weight: readFloat(field.weight),
        prefillUs: readFloat(field.prefillUs),
        residentUs: readFloat(field.residentUs),
      });
    }
  }

  setInFlight(row: number, inFlight: number): void {
    const word = wordOf(row, field.inFlight);
    if (this.#words[word] !== inFlight) Atomics.store(this.#words, word, inFlight);
  }

  countDispatched(row: number): void {
    const word = wordOf(row, field.dispatched);
    this.#words[word] = (this.#words[word] as number) + 1;
  }

  countFailed(row: number): void {
    const word = wordOf(row, field.failed);
    this.#words[word] = (this.#words[word] as number) + 1;
  }
}

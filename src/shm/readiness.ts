/**
 * Whether a request could be served at this moment: what both readiness probes answer. Main thread
 * and acceptors; only reads, never blocks.
 */
import { nowUs } from '../lib/clock.ts';
import { ControlLayout, DrainStage, OverloadAction, ThreadId } from './control.layout.ts';
import { controlCounts, replicaCounts, type SharedMemory } from './memory.ts';
import { ReplicaAdmin, ReplicaTableLayout } from './replica-table.layout.ts';

/** A scheduler that has not shown itself for this long decides nothing (RELIABILITY 4). */
const schedulerSilentUs = 500_000;

const refusing = OverloadAction.refuseRequests | OverloadAction.refuseConnections;

const { replica, count } = ReplicaTableLayout.place(replicaCounts).at;

export class Readiness {
  readonly #control: Int32Array;
  readonly #controlFloats: Float64Array;
  readonly #draining: number;
  readonly #overload: number;
  /** Float64 index of the scheduler's last beat. */
  readonly #beatAt: number;
  readonly #replicas: Int32Array;
  readonly #replicaFloats: Float64Array;

  constructor({ control, replicas, size }: SharedMemory) {
    const { draining, overload, thread } = ControlLayout.attach(control, controlCounts(size)).at;
    ReplicaTableLayout.attach(replicas, replicaCounts);
    this.#control = new Int32Array(control);
    this.#controlFloats = new Float64Array(control);
    this.#draining = draining;
    this.#overload = overload;
    this.#beatAt = (thread.base + ThreadId.scheduler * thread.stride + thread.at.beatUs) / 2;
    this.#replicas = new Int32Array(replicas);
    this.#replicaFloats = new Float64Array(replicas);
  }

  /** What is missing; '' when nothing is. */
  problem(): string {
    if (Atomics.load(this.#control, this.#draining) >= DrainStage.announced) return 'draining';
    if ((Atomics.load(this.#control, this.#overload) & refusing) !== 0) return 'overloaded';
    const beatUs = this.#controlFloats[this.#beatAt] as number;
    if (nowUs() - beatUs > schedulerSilentUs) return 'the scheduler does not answer';
    return this.#isAnyRoutable() ? '' : 'no replica is healthy';
  }

  /** The rule of the scheduler (dispatch/fleet.ts), over the rows as they are. */
  #isAnyRoutable(): boolean {
    const words = this.#replicas;
    const rows = Atomics.load(words, count);
    for (let index = 0; index < rows; index++) {
      const row = replica.base + index * replica.stride;
      const isActive = Atomics.load(words, row + replica.at.admin) === ReplicaAdmin.active;
      const isHealthy = Atomics.load(words, row + replica.at.healthy) === 1;
      const weight = this.#replicaFloats[(row + replica.at.weight) / 2] as number;
      if (isActive && isHealthy && weight > 0) return true;
    }
    return false;
  }
}

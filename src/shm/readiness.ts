/**
 * Whether a request could be served at this moment: what both readiness probes answer. Main thread
 * and acceptors; only reads, never blocks.
 */
import { nowUs } from '../lib/clock.ts';
import { ControlLayout, DrainStage, OverloadAction, ThreadId } from './control.layout.ts';
import { controlCounts, type SharedMemory } from './memory.ts';
import { Routable } from './routable.ts';

/** A scheduler that has not shown itself for this long decides nothing (RELIABILITY 4). */
const schedulerSilentUs = 500_000;

const refusing = OverloadAction.refuseRequests | OverloadAction.refuseConnections;

export class Readiness {
  readonly #control: Int32Array;
  readonly #controlFloats: Float64Array;
  readonly #draining: number;
  readonly #overload: number;
  /** Float64 index of the scheduler's last beat. */
  readonly #beatAt: number;
  readonly #replicas: Routable;

  constructor({ control, replicas, size }: SharedMemory) {
    const { draining, overload, thread } = ControlLayout.attach(control, controlCounts(size)).at;
    this.#control = new Int32Array(control);
    this.#controlFloats = new Float64Array(control);
    this.#draining = draining;
    this.#overload = overload;
    this.#beatAt = (thread.base + ThreadId.scheduler * thread.stride + thread.at.beatUs) / 2;
    this.#replicas = new Routable(replicas);
  }

  /** What is missing; '' when nothing is. */
  problem(): string {
    if (Atomics.load(this.#control, this.#draining) >= DrainStage.announced) return 'draining';
    if ((Atomics.load(this.#control, this.#overload) & refusing) !== 0) return 'overloaded';
    const beatUs = this.#controlFloats[this.#beatAt] as number;
    if (nowUs() - beatUs > schedulerSilentUs) return 'the scheduler does not answer';
    return this.#replicas.has() ? '' : 'no replica is healthy';
  }
}

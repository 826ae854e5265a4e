/**
 * The sign of life of a thread with an event loop: its control row beats every 50 ms, says how late the
 * timers of the last second ran, how busy the loop was, and the thread's gauges.
 *
 * Runs on the thread it tells of and writes its own row only. A loop that is stuck does not beat; one
 * that is slow says so.
 */
import { type EventLoopUtilization, performance } from 'node:perf_hooks';
import { nowUs } from '../lib/clock.ts';
import { ControlLayout, ThreadPhase } from './control.layout.ts';
import { controlCounts, type SharedMemory } from './memory.ts';

const beatMs = 50;
/** Beats of the last second. */
const windowBeats = 20;

export interface ThreadGauges {
  connections(): number;
  /** Bytes of the thread's arena partition in use; 0 for a thread without one. */
  arenaBytes(): number;
}

export class Heartbeat {
  readonly #words: Int32Array;
  readonly #floats: Float64Array;
  readonly #row: number;
  readonly #at: ReturnType<typeof ControlLayout.place>['at']['thread']['at'];
  readonly #gauges: ThreadGauges;
  readonly #afterBeat: () => void;
  readonly #lags = new Float64Array(windowBeats);
  #timer: NodeJS.Timeout | undefined;
  #beats = 0;
  #dueUs = 0;
  #utilization: EventLoopUtilization = performance.eventLoopUtilization();

  /** `afterBeat` runs on the timer too; it must not throw. */
  constructor(
    memory: SharedMemory,
    threadId: number,
    gauges: ThreadGauges,
    afterBeat: () => void = () => {},
  ) {
    const { thread } = ControlLayout.attach(memory.control, controlCounts(memory.size)).at;
    this.#words = new Int32Array(memory.control);
    this.#floats = new Float64Array(memory.control);
    this.#row = thread.base + threadId * thread.stride;
    this.#at = thread.at;
    this.#gauges = gauges;
    this.#afterBeat = afterBeat;
  }

  start(): void {
    this.#dueUs = nowUs();
    this.beat();
    Atomics.store(this.#words, this.#row + this.#at.phase, ThreadPhase.running);
    this.#timer = setInterval(() => {
      this.beat();
      this.#afterBeat();
    }, beatMs);
  }

  stop(): void {
    clearInterval(this.#timer);
    Atomics.store(this.#words, this.#row + this.#at.phase, ThreadPhase.stopped);
  }

  /** Also between two turns of the timer. */
  beat(): void {
    const now = nowUs();
    this.#lags[this.#beats % windowBeats] = Math.max(now - this.#dueUs, 0);
    this.#dueUs = now + beatMs * 1000;
    let worst = 0;
    for (const lag of this.#lags) worst = Math.max(worst, lag);
    this.#put(this.#at.lagUs, worst);
    this.#put(this.#at.beatUs, now);
    this.#put(this.#at.arenaBytes, this.#gauges.arenaBytes());
    Atomics.store(this.#words, this.#row + this.#at.connections, this.#gauges.connections());
    if (this.#beats % windowBeats === 0) {
      const total = performance.eventLoopUtilization();
      this.#put(
        this.#at.utilization,
        performance.eventLoopUtilization(total, this.#utilization).utilization,
      );
      this.#utilization = total;
    }
    this.#beats++;
    Atomics.store(this.#words, this.#row + this.#at.beats, this.#beats | 0);
  }

  #put(field: number, value: number): void {
    this.#floats[(this.#row + field) / 2] = value;
  }
}

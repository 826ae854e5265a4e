/**
 * The sign of life of an event-loop thread: its control row beats, and says how late its timers run.
 *
 * Runs on the thread it tells of. A loop that is stuck does not beat; one that is slow says so.
 */
import { nowUs } from '../lib/clock.ts';
import { ThreadPhase } from '../shm/control.layout.ts';

const beatMs = 50;
/** Beats over which the worst delay is kept: the last second. */
const windowBeats = 20;

export class Heartbeat {
  readonly #words: Int32Array;
  readonly #floats: Float64Array;
  readonly #row: number;
  readonly #at: HeartbeatFields;
  readonly #lags = new Float64Array(windowBeats);
  #timer: NodeJS.Timeout | undefined;
  #beats = 0;
  #lastUs = 0;

  /** `row` is the int32 index of the thread's control row. */
  constructor(words: Int32Array, floats: Float64Array, row: number, at: HeartbeatFields) {
    this.#words = words;
    this.#floats = floats;
    this.#row = row;
    this.#at = at;
  }

  start(): void {
    this.#lastUs = nowUs();
    this.#beat(0);
    Atomics.store(this.#words, this.#row + this.#at.phase, ThreadPhase.running);
    this.#timer = setInterval(() => {
      const us = nowUs();
      this.#beat(Math.max(us - this.#lastUs - beatMs * 1000, 0));
      this.#lastUs = us;
    }, beatMs);
  }

  stop(phase: ThreadPhase): void {
    clearInterval(this.#timer);
    Atomics.store(this.#words, this.#row + this.#at.phase, phase);
  }

  #beat(lagUs: number): void {
    this.#lags[this.#beats % windowBeats] = lagUs;
    this.#beats++;
    let worst = 0;
    for (const lag of this.#lags) worst = Math.max(worst, lag);
    this.#floats[(this.#row + this.#at.lagUs) / 2] = worst;
    this.#floats[(this.#row + this.#at.beatUs) / 2] = nowUs();
    Atomics.store(this.#words, this.#row + this.#at.beats, this.#beats | 0);
  }
}

export interface HeartbeatFields {
  readonly phase: number;
  readonly beats: number;
  readonly beatUs: number;
  readonly lagUs: number;
}

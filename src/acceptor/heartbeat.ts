/**
 * Shows the other threads that this acceptor lives and how late its event loop is. Acceptor threads.
 *
 * Writes its own row of the control block only: beats at least every 100 ms, the worst lag of the last
 * second, connections open and arena bytes taken for the gauges.
 */
import { nowUs } from '../lib/clock.ts';
import type { AcceptorState } from './acceptor-state.ts';
import { faultPoint } from './fault-hooks.ts';

const beatMs = 50;
const lagWindowBeats = 20;

export class Heartbeat {
  readonly #state: AcceptorState;
  readonly #connections: () => number;
  readonly #failed: (error: unknown) => void;
  readonly #onBeat: () => void;
  readonly #timer: NodeJS.Timeout;
  readonly #lags = new Float64Array(lagWindowBeats);
  #beats = 0;
  #dueUs: number;

  constructor(
    state: AcceptorState,
    connections: () => number,
    onBeat: () => void,
    failed: (error: unknown) => void,
  ) {
    this.#state = state;
    this.#connections = connections;
    this.#onBeat = onBeat;
    this.#failed = failed;
    this.#dueUs = nowUs() + beatMs * 1000;
    this.#timer = setInterval(() => this.#beat(), beatMs);
  }

  setPhase(phase: number): void {
    const { words, ownRow, at } = this.#state.control;
    Atomics.store(words, ownRow + at.phase, phase);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #beat(): void {
    try {
      this.#write();
      faultPoint('timer');
      this.#onBeat();
    } catch (error) {
      this.#failed(error);
    }
  }

  #write(): void {
    const { control, arena } = this.#state;
    const { words, floats, ownRow, at } = control;
    const now = nowUs();
    this.#beats++;
    this.#lags[this.#beats % lagWindowBeats] = Math.max(now - this.#dueUs, 0);
    this.#dueUs = now + beatMs * 1000;
    let worst = 0;
    for (const lag of this.#lags) worst = Math.max(worst, lag);
    floats[(ownRow + at.lagUs) / 2] = worst;
    floats[(ownRow + at.beatUs) / 2] = now;
    floats[(ownRow + at.arenaBytes) / 2] = arena.used;
    words[ownRow + at.connections] = this.#connections();
    Atomics.store(words, ownRow + at.beats, this.#beats | 0);
  }
}

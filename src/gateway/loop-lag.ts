/**
 * Whether the event loop of this thread was late in a span of time. Main thread; never blocks.
 *
 * A timer ticks. A tick that comes too late ends an episode that began when it was due; a tick that is
 * overdue while somebody asks is an episode that has not ended. Of those that have, the last is enough:
 * a span that is over by now shares some of an episode exactly when it began before that one ended.
 */
import { nowMs } from '../lib/clock.ts';

/** Also the error of every lateness that is measured: small beside what counts as late. */
const tickMs = 20;

export class LoopLag {
  readonly #limitMs: number;
  #dueMs = Number.POSITIVE_INFINITY;
  #lastLateMs = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;

  /** Late is what is more than `limitMs` behind its time. */
  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  start(): void {
    this.#dueMs = nowMs() + tickMs;
    this.#timer = setInterval(() => this.tick(nowMs()), tickMs).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  tick(atMs: number): void {
    if (this.#isOverdue(atMs)) this.#lastLateMs = atMs;
    this.#dueMs = atMs + tickMs;
  }

  /** True when the loop was late at any moment from `sinceMs` to `atMs`, which is the present. */
  wasLate(sinceMs: number, atMs: number): boolean {
    return this.#lastLateMs >= sinceMs || this.#isOverdue(atMs);
  }

  #isOverdue(atMs: number): boolean {
    return atMs - this.#dueMs > this.#limitMs;
  }
}

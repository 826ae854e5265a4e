/**
 * The replica's running slots (`max_num_seqs`), first come first served, and what attempts need.
 *
 * Runs on the replica's event loop. Invariant: running <= maxNumSeqs, and a freed slot goes to the
 * oldest waiting attempt before onEnd returns.
 */
import type { Attempt, AttemptHost } from './attempt.ts';
import type { Holdable, HoldGate } from './gate.ts';
import type { AttemptEnd, ReplicaStats } from './stats.ts';
import { type TimerEntry, TimerQueue } from './timer-queue.ts';

export class RunningSlots implements AttemptHost {
  readonly timers = new TimerQueue();
  /** Prompt and answer tokens of all running attempts: what fills a KV cache. */
  residentTokens = 0;
  readonly #maxNumSeqs: number;
  readonly #stats: ReplicaStats;
  readonly #gate: HoldGate;
  readonly #onKill: () => void;
  readonly #waiting = new Set<Attempt>();

  constructor(maxNumSeqs: number, stats: ReplicaStats, gate: HoldGate, onKill: () => void) {
    this.#maxNumSeqs = maxNumSeqs;
    this.#stats = stats;
    this.#gate = gate;
    this.#onKill = onKill;
  }

  schedule(entry: TimerEntry, at: number): number {
    return this.timers.add(entry, at);
  }

  cancel(entry: TimerEntry, tick: number): void {
    this.timers.cancel(entry, tick);
  }

  hold(attempt: Holdable): void {
    this.#gate.hold(attempt);
  }

  leaveGate(attempt: Holdable): void {
    this.#gate.leave(attempt);
  }

  admit(attempt: Attempt): boolean {
    if (!attempt.needsSlot) return true;
    const stats = this.#stats;
    if (stats.running < this.#maxNumSeqs) {
      this.#takeSlot(attempt);
      return true;
    }
    this.#waiting.add(attempt);
    stats.waiting = this.#waiting.size;
    stats.changed();
    return false;
  }

  leaveQueue(attempt: Attempt): void {
    this.#waiting.delete(attempt);
    this.#stats.waiting = this.#waiting.size;
  }

  onTokens(attempt: Attempt, count: number): void {
    this.#stats.tokensEmitted += count;
    if (attempt.hasSlot) this.residentTokens += count;
    this.#stats.changed();
  }

  onEnd(attempt: Attempt, end: Exclude<AttemptEnd, 'open'>): void {
    const stats = this.#stats;
    if (attempt.hasSlot) {
      attempt.hasSlot = false;
      stats.running--;
      this.residentTokens -= attempt.promptTokens + (attempt.record?.tokens ?? 0);
    }
    if (attempt.record !== undefined) stats.end(attempt.record, end);
    if (this.#waiting.size === 0) return;
    for (const next of this.#waiting) {
      if (stats.running >= this.#maxNumSeqs) break;
      this.leaveQueue(next);
      this.#takeSlot(next);
      next.start();
    }
  }

  kill(): void {
    this.#onKill();
  }

  #takeSlot(attempt: Attempt): void {
    attempt.hasSlot = true;
    this.#stats.running++;
    this.#stats.promptTokens += attempt.promptTokens;
    this.residentTokens += attempt.promptTokens;
    this.#stats.changed();
  }
}

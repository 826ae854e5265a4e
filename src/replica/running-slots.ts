/**
 * The replica's running slots (`max_num_seqs`), first come first served, and what attempts need.
 *
 * Runs on the replica's event loop. With an engine profile the modelled engine has the slots.
 * Invariant: running <= maxNumSeqs, and a freed slot goes to the oldest waiting attempt before
 * onEnd returns.
 */
import type { Attempt, AttemptHost } from './attempt.ts';
import { engineModel } from './engine/engine-model.ts';
import type { Holdable, HoldGate } from './gate.ts';
import type { Generation } from './generation.ts';
import { LiveEngine } from './live-engine.ts';
import type { CacheFigures } from './metrics.ts';
import type { EngineProfile } from './profile.ts';
import type { AttemptEnd, ReplicaStats } from './stats.ts';
import { type TimerEntry, TimerQueue } from './timer-queue.ts';

/** Profiles that are no engine have the KV memory of this one to fill. */
const UNMODELLED = engineModel('8b-h100');

export class RunningSlots implements AttemptHost {
  readonly timers = new TimerQueue();
  readonly #engine: LiveEngine | undefined;
  /** Prompt and answer tokens of all running attempts: what fills a KV cache. */
  #residentTokens = 0;
  readonly #maxNumSeqs: number;
  readonly #stats: ReplicaStats;
  readonly #gate: HoldGate;
  readonly #onKill: () => void;
  readonly #waiting = new Set<Attempt>();

  constructor(
    maxNumSeqs: number,
    engine: EngineProfile | undefined,
    stats: ReplicaStats,
    gate: HoldGate,
    onKill: () => void,
  ) {
    this.#engine = engine && new LiveEngine(engine, maxNumSeqs, stats, this.timers);
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

  /** What the KV memory holds and saved, as the engine counts it. */
  cacheFigures(): CacheFigures {
    if (this.#engine !== undefined) return this.#engine.cacheFigures();
    const { kvPages, pageTokens } = UNMODELLED;
    const usage = Math.min(1, this.#residentTokens / (kvPages * pageTokens));
    return { usage, kvPages, pageTokens, queriedTokens: 0, hitTokens: 0, preemptions: 0 };
  }

  /** Why a generation can never run here; undefined when it can. */
  refusal(generation: Generation): string | undefined {
    return this.#engine?.refusal(generation);
  }

  /** Makes every engine step so many times as long; false without an engine. */
  setSlowness(factor: number): boolean {
    if (this.#engine === undefined) return false;
    this.#engine.slowness = factor;
    return true;
  }

  admit(attempt: Attempt): boolean {
    const { generation } = attempt;
    if (generation === undefined) return true;
    const stats = this.#stats;
    if (this.#engine !== undefined) {
      attempt.run = this.#engine.enter(attempt, generation);
      return true;
    }
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
    if (attempt.hasSlot) this.#residentTokens += count;
    this.#stats.changed();
  }

  onEnd(attempt: Attempt, end: Exclude<AttemptEnd, 'open'>): void {
    const stats = this.#stats;
    attempt.run?.leave();
    if (attempt.hasSlot) {
      attempt.hasSlot = false;
      stats.running--;
      this.#residentTokens -= promptTokensOf(attempt) + (attempt.record?.tokens ?? 0);
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
    this.#stats.promptTokens += promptTokensOf(attempt);
    this.#residentTokens += promptTokensOf(attempt);
    this.#stats.changed();
  }
}

function promptTokensOf(attempt: Attempt): number {
  return attempt.generation?.promptTokens ?? 0;
}

/**
 * The modelled engine on the clock of a simulated replica: one sequence for every choice.
 *
 * Runs on the replica's event loop; one timer, at the end of the running step, in whole
 * milliseconds. A timer that comes late completes all steps that ended meanwhile, each at its own
 * model time, so lateness never adds up. Requests reach the engine after the API overhead.
 * Invariant: whenever a timer returns, no step that has ended is incomplete.
 */
import { Bag, type Bagged } from '../lib/bag.ts';
import { nowMs } from '../lib/clock.ts';
import { Engine } from './engine/engine.ts';
import type { EngineModel } from './engine/engine-model.ts';
import type { Choice, Generation } from './generation.ts';
import type { CacheFigures } from './metrics.ts';
import type { EngineProfile } from './profile.ts';
import { promptBlocks } from './prompt-blocks.ts';
import type { ReplicaStats } from './stats.ts';
import type { TimerEntry, TimerQueue } from './timer-queue.ts';

/** Whoever plays what the engine makes. */
export interface StepListener {
  onSteps(now: number): void;
}

interface LiveSequence {
  readonly run: EngineRun;
  /** Whether its prefix hit is that of a prompt, and not of a further choice of the same one. */
  readonly firstOfPrompt: boolean;
}

export class LiveEngine implements TimerEntry {
  readonly timers: TimerQueue;
  readonly #model: EngineModel;
  /** Model microseconds of a millisecond. */
  readonly #usPerMs: number;
  readonly #engine: Engine;
  readonly #stats: ReplicaStats;
  readonly #startMs = nowMs();
  readonly #sequences = new Map<number, LiveSequence>();
  readonly #runs = new Bag<EngineRun>();
  #ids = 0;
  #tick = -1;
  #now = 0;
  #stepStartUs = 0;
  #stepUs = 0;
  readonly #tell = (run: EngineRun): void => run.listener.onSteps(this.#now);

  constructor(profile: EngineProfile, maxNumSeqs: number, stats: ReplicaStats, timers: TimerQueue) {
    this.#model = { ...profile.model, maxNumSeqs };
    this.#usPerMs = 1000 * profile.speed;
    this.#stats = stats;
    this.timers = timers;
    this.#engine = new Engine(this.#model, this.#model.pageTokens, {
      firstToken: (id) => this.#onFirstToken(id),
      finished: (id) => this.#sequences.get(id)?.run.onFinished(id),
    });
  }

  set slowness(factor: number) {
    this.#engine.slowness = factor;
  }

  /** How long the last complete step took on the clock. */
  get stepMs(): number {
    return this.#stepUs / this.#usPerMs;
  }

  get overheadMs(): number {
    return this.#model.overheadUs / this.#usPerMs;
  }

  cacheFigures(): CacheFigures {
    const { kvUsage, promptTokensTotal, hitTokensTotal, preemptions } = this.#engine;
    const { kvPages, pageTokens } = this.#model;
    return {
      usage: kvUsage,
      kvPages,
      pageTokens,
      queriedTokens: promptTokensTotal,
      hitTokens: hitTokensTotal,
      preemptions,
    };
  }

  /** Why a generation can never run; undefined when it can. */
  refusal(generation: Generation): string | undefined {
    const tooLong = generation.choices.find(
      (choice) => !this.#engine.fits(promptTokens(choice), outputTokens(choice)),
    );
    if (tooLong === undefined) return undefined;
    const tokens = promptTokens(tooLong) + outputTokens(tooLong);
    const most = this.#model.kvPages * this.#model.pageTokens;
    return `prompt and answer have ${tokens} tokens; the KV cache has room for ${most}`;
  }

  enter(listener: StepListener, generation: Generation): EngineRun {
    const run = new EngineRun(this, listener, generation);
    this.#stats.promptTokens += generation.promptTokens;
    this.#runs.add(run);
    return run;
  }

  submit(run: EngineRun, choices: readonly Choice[], now: number): number[] {
    this.#catchUp(now);
    const ids: number[] = [];
    let blocks: Int32Array = new Int32Array(0);
    for (const [i, choice] of choices.entries()) {
      const firstOfPrompt = choice.prompt !== choices[i - 1]?.prompt;
      if (firstOfPrompt) blocks = promptBlocks(choice.prompt.content, this.#model.pageTokens);
      const id = this.#ids++;
      ids.push(id);
      this.#sequences.set(id, { run, firstOfPrompt });
      const us = this.#modelUs(now);
      if (this.#engine.nextUs === Number.POSITIVE_INFINITY) this.#stepStartUs = us;
      this.#engine.submit(id, promptTokens(choice), outputTokens(choice), blocks, us);
    }
    this.#changed();
    return ids;
  }

  produced(id: number): number {
    return this.#engine.producedTokens(id);
  }

  forget(id: number): void {
    this.#sequences.delete(id);
  }

  /** Forgets a run; sequences that it still has are cancelled. */
  leave(run: EngineRun, ids: readonly number[]): void {
    this.#runs.remove(run);
    if (ids.length === 0) return;
    // Its step may have ended, when the timer is late; a cancelled sequence takes part in that one.
    const us = Math.min(this.#modelUs(nowMs()), this.#engine.nextUs);
    for (const id of ids) {
      this.#engine.cancel(id, us);
      this.forget(id);
    }
    this.#changed();
  }

  onTimer(now: number): void {
    this.#tick = -1;
    this.#catchUp(now);
    this.#changed();
  }

  /** Completes the steps that have ended by now, then lets every run send what they made. */
  #catchUp(now: number): void {
    const us = this.#modelUs(now);
    if (this.#engine.nextUs > us) return;
    while (this.#engine.nextUs <= us) {
      this.#stepUs = this.#engine.nextUs - this.#stepStartUs;
      this.#stepStartUs = this.#engine.nextUs;
      this.#engine.advance();
    }
    this.#now = now;
    this.#runs.visitAll(this.#tell);
  }

  #changed(): void {
    this.#stats.running = this.#engine.running;
    this.#stats.waiting = this.#engine.waiting;
    this.#stats.changed();
    const { nextUs } = this.#engine;
    if (this.#tick >= 0 || nextUs === Number.POSITIVE_INFINITY) return;
    this.#tick = this.timers.add(this, this.#startMs + nextUs / this.#usPerMs);
  }

  #onFirstToken(id: number): void {
    const sequence = this.#sequences.get(id);
    if (sequence?.firstOfPrompt) sequence.run.onCached(this.#engine.cachedTokens(id));
  }

  #modelUs(now: number): number {
    return Math.floor((now - this.#startMs) * this.#usPerMs);
  }
}

/** One answer in the engine: a sequence for each of its choices. */
export class EngineRun implements TimerEntry, Bagged {
  /** Index among the engine's runs. */
  place = -1;
  readonly listener: StepListener;
  readonly startedAt = nowMs();
  readonly #engine: LiveEngine;
  readonly #generation: Generation;
  /** Timer of the submission; -1 once it is done. */
  #tick: number;
  /** Sequences that have tokens to make. */
  #ids: number[] = [];

  constructor(engine: LiveEngine, listener: StepListener, generation: Generation) {
    this.#engine = engine;
    this.listener = listener;
    this.#generation = generation;
    this.#tick = engine.timers.add(this, this.startedAt + engine.overheadMs);
  }

  get stepMs(): number {
    return this.#engine.stepMs;
  }

  /** Steps of the answer that the engine has made: every choice that is that long has its token. */
  get stepsReady(): number {
    if (this.#tick >= 0) return 0;
    let steps = Number.POSITIVE_INFINITY;
    for (const id of this.#ids) steps = Math.min(steps, this.#engine.produced(id));
    return steps;
  }

  onTimer(now: number): void {
    this.#ids = this.#engine.submit(this, this.#generation.choices, now);
    this.#tick = -1;
  }

  onCached(tokens: number): void {
    const { cached } = this.#generation;
    if (cached !== undefined) cached.tokens += tokens;
  }

  onFinished(id: number): void {
    this.#ids.splice(this.#ids.indexOf(id), 1);
    this.#engine.forget(id);
  }

  /** The answer is over, by whatever end. */
  leave(): void {
    if (this.#tick >= 0) this.#engine.timers.cancel(this, this.#tick);
    this.#engine.leave(this, this.#ids);
  }
}

function promptTokens(choice: Choice): number {
  return Math.max(1, choice.prompt.tokens);
}

/** A continuation of a complete answer still computes its prompt, and so has a step. */
function outputTokens(choice: Choice): number {
  return Math.max(1, choice.length);
}

/**
 * One request being answered: waits at the gate, waits for a running slot, then plays its source on
 * the timer queue, or as the modelled engine makes its steps. Runs on the replica's event loop.
 *
 * Invariant: it ends exactly once, as served, failed, aborted or cut, and gives back its slot then.
 */
import { nowMs } from '../lib/clock.ts';
import type { Connection, Exchange } from './connection.ts';
import type { Holdable } from './gate.ts';
import type { Generation } from './generation.ts';
import type { EngineRun } from './live-engine.ts';
import type { Source } from './source.ts';
import type { AttemptEnd, AttemptRecord } from './stats.ts';
import type { TimerEntry } from './timer-queue.ts';

/** What an attempt needs of the replica. */
export interface AttemptHost {
  schedule(entry: TimerEntry, at: number): number;
  cancel(entry: TimerEntry, tick: number): void;
  hold(attempt: Holdable): void;
  leaveGate(attempt: Holdable): void;
  /** False: wait, and start() is called when a slot is free. */
  admit(attempt: Attempt): boolean;
  leaveQueue(attempt: Attempt): void;
  onTokens(attempt: Attempt, count: number): void;
  onEnd(attempt: Attempt, end: Exclude<AttemptEnd, 'open'>): void;
  kill(): void;
}

type Stage = 'new' | 'held' | 'waiting' | 'playing' | 'ended';

/** Unwritten bytes of due segments; above it they are written before more are made. */
const BATCH_BYTES_MAX = 64 * 1024;

export class Attempt implements Exchange, Holdable, TimerEntry {
  readonly record: AttemptRecord | undefined;
  /** What it makes tokens for; it takes one of the replica's running slots then. */
  readonly generation: Generation | undefined;
  hasSlot = false;
  /** Its place in the modelled engine, which says when its tokens are there. */
  run: EngineRun | undefined;
  readonly #host: AttemptHost;
  readonly #connection: Connection;
  readonly #source: Source;
  #stage: Stage = 'new';
  #loaded = false;
  #dueAt = 0;
  #tick = -1;
  /** Engine steps that the segments so far have waited for. */
  #stepsAwaited = 0;
  #pending = '';
  /** Tokens of this answer once `#pending` is written. */
  #pendingTokens = 0;
  #begun = false;

  constructor(
    host: AttemptHost,
    connection: Connection,
    source: Source,
    record: AttemptRecord | undefined,
    generation: Generation | undefined,
  ) {
    this.#host = host;
    this.#connection = connection;
    this.#source = source;
    this.record = record;
    this.generation = generation;
  }

  get requestId(): string {
    return this.record?.id ?? '';
  }

  begin(held: boolean): void {
    this.#connection.begin(this);
    if (!held) {
      this.#enter();
      return;
    }
    this.#stage = 'held';
    this.#host.hold(this);
  }

  /** A running slot is taken. */
  start(): void {
    this.#begun = true;
    this.#resume();
  }

  onRelease(): void {
    if (this.#begun) this.#resume();
    else this.#enter();
  }

  onTimer(now: number): void {
    this.#tick = -1;
    if (this.#stage === 'playing') this.#play(now);
  }

  /** The engine has made steps. */
  onSteps(now: number): void {
    if (this.#stage === 'playing' && this.#tick < 0) this.#play(now);
  }

  onDrain(): void {
    if (this.#stage === 'playing' && this.#tick < 0) this.#resume();
  }

  onClientGone(): void {
    if (this.#stage === 'held') this.#host.leaveGate(this);
    if (this.#stage === 'waiting') this.#host.leaveQueue(this);
    this.#end('aborted');
  }

  #enter(): void {
    this.#stage = 'waiting';
    if (this.#host.admit(this)) this.start();
  }

  #resume(): void {
    this.#stage = 'playing';
    this.#dueAt = nowMs();
    this.#play(this.#dueAt);
  }

  #play(now: number): void {
    const source = this.#source;
    for (;;) {
      if (!this.#loaded) {
        if (this.#pending.length > BATCH_BYTES_MAX) this.#flush();
        // A peer that does not read stops its own stream: 'drain' goes on with it.
        if (this.#connection.congested) return;
        if (this.run !== undefined && !this.#hasStep(this.run, now)) {
          this.#flush();
          return;
        }
        if (!source.next()) return;
        this.#loaded = true;
        this.#dueAt += source.gapMs;
      }
      if (this.#dueAt > now) {
        this.#flush();
        this.#tick = this.#host.schedule(this, this.#dueAt);
        return;
      }
      this.#pending += source.text;
      this.#pendingTokens = source.tokens;
      this.#loaded = false;
      if (source.ending === 'none') continue;
      this.#flush();
      if (source.ending !== 'hold') {
        this.#finish();
        return;
      }
      this.#stage = 'held';
      this.#host.hold(this);
      return;
    }
  }

  /** Whether the engine has made what comes next. onSteps() goes on when it has not. */
  #hasStep(run: EngineRun, now: number): boolean {
    const { stepsNeeded, slow } = this.#source;
    if (stepsNeeded <= this.#stepsAwaited) return true;
    if (stepsNeeded > run.stepsReady) return false;
    const sinceMs = this.#stepsAwaited === 0 ? now - run.startedAt : run.stepMs;
    const slowAt = (this.#stepsAwaited === 0 ? run.startedAt : this.#dueAt) + slow * sinceMs;
    this.#dueAt = slow > 1 ? Math.max(now, slowAt) : now;
    this.#stepsAwaited = stepsNeeded;
    return true;
  }

  #flush(): void {
    const { record } = this;
    const tokens = this.#pendingTokens;
    if (record !== undefined && tokens > record.tokens) {
      this.#host.onTokens(this, tokens - record.tokens);
      record.tokens = tokens;
    }
    if (this.#pending === '') return;
    const bytes = this.#pending;
    this.#pending = '';
    this.#connection.write(bytes);
  }

  #finish(): void {
    switch (this.#source.ending) {
      case 'done': {
        const failed = (this.record?.status ?? 200) >= 400;
        this.#end(failed ? 'failed' : 'served');
        this.#connection.done(this.#source.reusable);
        return;
      }
      case 'fin':
        this.#end('cut');
        this.#connection.finish();
        return;
      case 'reset':
        this.#end('cut');
        this.#connection.reset();
        return;
      case 'kill':
        this.#host.kill();
        return;
    }
  }

  #end(end: Exclude<AttemptEnd, 'open'>): void {
    if (this.#stage === 'ended') return;
    this.#stage = 'ended';
    if (this.#tick >= 0) this.#host.cancel(this, this.#tick);
    this.#host.onEnd(this, end);
  }
}

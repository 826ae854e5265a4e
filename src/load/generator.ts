/**
 * The load generator: one thread, raw keep-alive connections, open or closed loop.
 *
 * Open loop: intended send times come from an arrival process and never wait for the target. A
 * request that finds no idle connection is due all the same; its latency counts from its intended
 * time (no coordinated omission). The backlog needs no memory: it is the distance between the next
 * intended time and now. Closed loop: a connection sends its next request when it has its answer.
 *
 * Bounded by time, by count and by connections. One limit bounds both the wait for a connection and
 * the time from there to the last byte: counted over both together, a backlog of that length would
 * make the generator send only requests that it then abandons.
 */
import { assert } from '../lib/assert.ts';
import { nowUs } from '../lib/clock.ts';
import { createPrng } from '../lib/prng.ts';
import { createArrivals, type NextGapUs } from './arrivals.ts';
import { Connection, type ConnectionTarget } from './connection.ts';
import { type Goodput, LoadMetrics } from './load-metrics.ts';
import { Outcome } from './outcome.ts';
import type { RequestBody, RequestTemplate } from './request-template.ts';
import { SelfCheck, type SelfCheckResult } from './self-check.ts';

export interface LoadPlan {
  /** Connections are dealt out over these in turn; at least one. */
  readonly targets: readonly ConnectionTarget[];
  readonly template: RequestTemplate;
  readonly stream: boolean;
  /** Requests per second; Infinity is the closed loop. */
  readonly requestRate: number;
  readonly burstiness: number;
  readonly connections: number;
  /** Requests in flight at most; never more than `connections`. */
  readonly concurrencyMax: number;
  /** The measured time; Infinity when `requestsMax` ends the run. */
  readonly durationMs: number;
  readonly requestsMax: number;
  readonly warmupMs: number;
  /** Of the wait for a connection, and again of the exchange on it. */
  readonly timeoutMs: number;
  readonly seed: number;
  /** First part of every x-request-id. */
  readonly idPrefix: string;
  /** Tokens each answer must have, or -1. */
  readonly expectTokens: number;
  readonly goodput: Goodput;
}

export interface LoadProgress {
  readonly elapsedMs: number;
  readonly inFlight: number;
  readonly metrics: LoadMetrics;
  readonly lagP99Ms: number;
}

export interface LoadResult {
  readonly metrics: LoadMetrics;
  /** From the end of the warm-up to the last answer. */
  readonly durationMs: number;
  readonly bytesRead: number;
  readonly self: SelfCheckResult;
}

export interface LoadHooks {
  readonly onProgress?: (progress: LoadProgress) => void;
  readonly progressMs?: number;
  readonly signal?: AbortSignal;
}

/** Timers of Node are whole milliseconds; completions between ticks also send what is due. */
const tickMs = 1;
const sweepUs = 50_000;
/** After a failed connect, so that a target that is down is not hammered. */
const reconnectMs = 50;
const connectingMax = 64;

export async function runLoad(plan: LoadPlan, hooks: LoadHooks = {}): Promise<LoadResult> {
  assert(plan.connections >= 1, 'at least one connection');
  assert(plan.targets.length >= 1, 'at least one target');
  assert(plan.concurrencyMax >= 1, 'at least one request in flight');
  assert(
    plan.durationMs < Number.POSITIVE_INFINITY || plan.requestsMax < Number.POSITIVE_INFINITY,
    'a run has an end',
  );
  return await new Generator(plan, hooks).run();
}

class Generator {
  readonly #plan: LoadPlan;
  readonly #hooks: LoadHooks;
  readonly #metrics: LoadMetrics;
  readonly #connections: Connection[];
  /** Connections without a request, oldest first, so that all of them take part. */
  readonly #idle: Connection[];
  #idleHead = 0;
  #idleCount = 0;
  readonly #nextGapUs: NextGapUs | undefined;
  readonly #concurrencyMax: number;
  #inFlight = 0;
  #issued = 0;
  #issuedMeasured = 0;
  #issuing = false;
  #nextUs = 0;
  #startUs = 0;
  #measureUs = 0;
  #endUs = 0;
  #lastFinishUs = 0;
  #sweptUs = 0;
  #self: SelfCheck | undefined;
  #sentBefore = 0;
  #selfResult: SelfCheckResult | undefined;
  #resolve: () => void = () => {};

  constructor(plan: LoadPlan, hooks: LoadHooks) {
    this.#plan = plan;
    this.#hooks = hooks;
    this.#metrics = new LoadMetrics(plan.goodput, plan.template.promptTokens);
    const expect = { stream: plan.stream, tokens: plan.expectTokens };
    this.#connections = Array.from(
      { length: plan.connections },
      (_, index) =>
        new Connection(
          plan.targets[index % plan.targets.length] as ConnectionTarget,
          expect,
          (gapUs, measured) => this.#metrics.tokenGap(gapUs, measured),
          (connection, outcome, atUs) => this.#onFinished(connection, outcome, atUs),
        ),
    );
    this.#idle = [...this.#connections];
    this.#idleCount = this.#idle.length;
    this.#concurrencyMax = Math.min(plan.concurrencyMax, plan.connections);
    this.#nextGapUs = Number.isFinite(plan.requestRate)
      ? createArrivals(plan.requestRate, plan.burstiness, createPrng(plan.seed))
      : undefined;
  }

  async run(): Promise<LoadResult> {
    for (let at = 0; at < this.#connections.length; at += connectingMax) {
      const group = this.#connections.slice(at, at + connectingMax);
      await Promise.all(group.map((connection) => connection.warm()));
    }
    const { warmupMs, durationMs } = this.#plan;
    this.#startUs = nowUs();
    this.#measureUs = this.#startUs + warmupMs * 1000;
    this.#endUs = this.#measureUs + durationMs * 1000;
    this.#nextUs = this.#startUs + (this.#nextGapUs?.() ?? 0);
    this.#lastFinishUs = this.#measureUs;
    this.#issuing = true;
    const finished = new Promise<void>((resolve) => {
      this.#resolve = resolve;
    });
    const tick = setInterval(() => this.#tick(), tickMs);
    const progress = setInterval(() => this.#report(), this.#hooks.progressMs ?? 2000);
    const stop = () => this.#stop();
    this.#hooks.signal?.addEventListener('abort', stop, { once: true });
    this.#tick();
    try {
      await finished;
    } finally {
      clearInterval(tick);
      clearInterval(progress);
      this.#hooks.signal?.removeEventListener('abort', stop);
      for (const connection of this.#connections) connection.close();
    }
    assert(this.#inFlight === 0, 'every request has ended');
    assert(this.#selfResult !== undefined, 'the run was judged');
    return {
      metrics: this.#metrics,
      durationMs: Math.max(0, this.#lastFinishUs - this.#measureUs) / 1000,
      bytesRead: this.#connections.reduce((sum, connection) => sum + connection.bytesRead, 0),
      self: this.#selfResult,
    };
  }

  #tick(): void {
    const atUs = nowUs();
    if (this.#self === undefined && atUs >= this.#measureUs) {
      this.#self = new SelfCheck();
      this.#sentBefore = this.#metrics.sent;
    }
    this.#self?.tick(atUs, tickMs);
    this.#metrics.closeSecond(atUs);
    if (atUs - this.#sweptUs >= sweepUs) this.#sweep(atUs);
    this.#pump(atUs);
    this.#finishWhenDone();
  }

  /** Sends everything that is due and has a connection. */
  #pump(atUs: number): void {
    while (this.#issuing && this.#due(atUs)) {
      const intendedUs = this.#nextGapUs === undefined ? atUs : this.#nextUs;
      const late = atUs - intendedUs > this.#plan.timeoutMs * 1000;
      if (!late && (this.#inFlight >= this.#concurrencyMax || this.#idleCount === 0)) return;
      const measured = intendedUs >= this.#measureUs;
      this.#issued++;
      if (measured) this.#issuedMeasured++;
      if (this.#nextGapUs !== undefined) this.#nextUs += this.#nextGapUs();
      if (late) this.#metrics.addUnsent(measured);
      else this.#send(intendedUs, atUs, measured);
    }
  }

  /** True when a request should be sent by now; ends the issuing when there will be no more. */
  #due(atUs: number): boolean {
    const nextUs = this.#nextGapUs === undefined ? atUs : this.#nextUs;
    if (nextUs >= this.#endUs || this.#issuedMeasured >= this.#plan.requestsMax) {
      this.#issuing = false;
      return false;
    }
    return nextUs <= atUs;
  }

  #send(intendedUs: number, atUs: number, measured: boolean): void {
    const connection = this.#takeIdle();
    const { bodies } = this.#plan.template;
    this.#inFlight++;
    if (this.#inFlight > this.#metrics.inFlightMax) this.#metrics.inFlightMax = this.#inFlight;
    const id = `${this.#plan.idPrefix}-${this.#issued}`;
    connection.exchange.begin(id, intendedUs, atUs, measured);
    connection.send(bodies[this.#issued % bodies.length] as RequestBody);
  }

  #onFinished(connection: Connection, outcome: Outcome, atUs: number): void {
    this.#inFlight--;
    this.#metrics.add(connection.exchange, outcome, atUs);
    if (outcome === Outcome.connect) this.#metrics.addErrno(connection);
    if (connection.exchange.measured) this.#lastFinishUs = atUs;
    if (outcome === Outcome.connect) setTimeout(() => this.#putIdle(connection), reconnectMs);
    else this.#putIdle(connection);
    this.#pump(atUs);
    this.#finishWhenDone();
  }

  #finishWhenDone(): void {
    if (this.#issuing || this.#inFlight > 0) return;
    // A run that is stopped during its warm-up has nothing to judge.
    const self = this.#self ?? new SelfCheck();
    this.#selfResult ??= self.result(this.#metrics.sent - this.#sentBefore);
    this.#resolve();
  }

  #sweep(atUs: number): void {
    this.#sweptUs = atUs;
    const limitUs = this.#plan.timeoutMs * 1000;
    for (const connection of this.#connections) {
      if (connection.busy && atUs - connection.exchange.takenUs > limitUs) {
        connection.abandon(Outcome.timeout);
      }
    }
  }

  #stop(): void {
    this.#issuing = false;
    for (const connection of this.#connections) {
      if (connection.busy) connection.abandon(Outcome.stopped);
    }
    this.#finishWhenDone();
  }

  #report(): void {
    this.#hooks.onProgress?.({
      elapsedMs: (nowUs() - this.#startUs) / 1000,
      inFlight: this.#inFlight,
      metrics: this.#metrics,
      lagP99Ms: this.#self?.lagP99Ms() ?? 0,
    });
  }

  #takeIdle(): Connection {
    assert(this.#idleCount > 0, 'an idle connection exists');
    const connection = this.#idle[this.#idleHead] as Connection;
    this.#idleHead = (this.#idleHead + 1) % this.#idle.length;
    this.#idleCount--;
    return connection;
  }

  #putIdle(connection: Connection): void {
    assert(this.#idleCount < this.#idle.length, 'a connection is idle once');
    this.#idle[(this.#idleHead + this.#idleCount) % this.#idle.length] = connection;
    this.#idleCount++;
  }
}

/**
 * A thread that the gateway serves without, as the main thread keeps it: started, started again when it dies,
 * stopped. Main thread.
 *
 * No request depends on it, so it is nothing of thread-recovery.ts: its deaths end nothing, and another comes
 * after a pause that grows with each death in a row, for as long as it takes.
 */
import { nowMs } from '../lib/clock.ts';
import type { MetricsWriter } from '../shm/metrics.ts';
import type { ToThread } from '../shm/threads.ts';
import { metrics } from '../telemetry/catalogue.ts';
import { ThreadKind } from '../telemetry/labels.ts';
import type { Logger } from '../telemetry/log.ts';
import { ThreadHandle } from './thread-handle.ts';

export interface SpareThreadParts {
  readonly logger: Pick<Logger, 'error'>;
  readonly metrics: MetricsWriter;
  /** As it is at the moment of the call. */
  startData(): unknown;
}

const pauseMs = 250;
const pauseMsMax = 30_000;
/** One that has run for so long has not died in a row. */
const soundMs = 60_000;

export class SpareThread {
  readonly name: 'ledger' | 'tracer';
  readonly #parts: SpareThreadParts;
  #thread: ThreadHandle | undefined;
  #again: NodeJS.Timeout | undefined;
  #startedMs = 0;
  #deaths = 0;
  #stopped: Promise<void> | undefined;

  constructor(name: SpareThread['name'], parts: SpareThreadParts) {
    this.name = name;
    this.#parts = parts;
  }

  /** Undefined: there is none at the moment. */
  get handle(): ThreadHandle | undefined {
    return this.#thread;
  }

  /** Not one that was stopped. */
  start(): void {
    if (this.#stopped !== undefined) return;
    this.#startedMs = nowMs();
    const data = this.#parts.startData();
    this.#thread = new ThreadHandle(this.name, this.name, data, (_, error) => this.#died(error));
  }

  send(message: ToThread): void {
    this.#thread?.send(message);
  }

  /** Gives it `graceMs` to bring away what is there. */
  stop(graceMs: number): Promise<void> {
    clearTimeout(this.#again);
    this.#stopped ??= this.#thread?.stop(graceMs, true) ?? Promise.resolve();
    return this.#stopped;
  }

  #died(error: unknown): void {
    this.#thread = undefined;
    this.#deaths = nowMs() - this.#startedMs > soundMs ? 1 : this.#deaths + 1;
    this.#parts.logger.error(`the ${this.name} died; it is started again`, { err: error });
    const ms = Math.min(pauseMs * 2 ** (this.#deaths - 1), pauseMsMax);
    this.#again = setTimeout(() => this.#startAgain(), ms).unref();
  }

  #startAgain(): void {
    this.#parts.metrics.add(metrics.threadRestarts, ThreadKind[this.name], 1);
    this.start();
  }
}

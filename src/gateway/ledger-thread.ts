/**
 * The ledger as the main thread sees it: started, told of budgets, started again when it dies, stopped.
 *
 * The gateway serves without it: events stay in their files and budgets as they are. So its death ends
 * nothing, and another comes after a pause that grows with each death in a row, for as long as it takes.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../config/schema.ts';
import { configuredSinks } from '../config/sinks.ts';
import type { BudgetRow } from '../config/tenants.ts';
import { nowMs } from '../lib/clock.ts';
import type { MetricsWriter } from '../shm/metrics.ts';
import type { LedgerStart, ToThread } from '../shm/threads.ts';
import { metrics } from '../telemetry/catalogue.ts';
import { ThreadKind } from '../telemetry/labels.ts';
import type { Logger } from '../telemetry/log.ts';
import { ThreadHandle } from './thread-handle.ts';

export interface LedgerThreadParts {
  readonly logger: Pick<Logger, 'error' | 'warn'>;
  readonly metrics: MetricsWriter;
  /** As it is at the moment of the call. */
  startData(): LedgerStart;
}

/** Where usage events have a file, and a sink or a price makes somebody want to know of them. */
export const wantsLedger = ({ usage, models }: Config): boolean =>
  usage.file !== '' &&
  (configuredSinks(usage).length > 0 || models.some(({ price }) => price !== undefined));

/** Files of a gigabyte are summed up in some seconds. */
const startMsMax = 20_000;
const pauseMs = 250;
const pauseMsMax = 30_000;
/** It answers between two reads of a file; whoever revokes a key does not wait for longer. */
const answerMsMax = 2000;
/** One that has run for so long has not died in a row. */
const soundMs = 60_000;

export class LedgerThread {
  readonly name = 'ledger';
  readonly #parts: LedgerThreadParts;
  readonly #stopping = new AbortController();
  #thread: ThreadHandle | undefined;
  #startedMs = 0;
  #deaths = 0;
  #stopped: Promise<void> | undefined;

  constructor(parts: LedgerThreadParts) {
    this.#parts = parts;
  }

  /** Resolves once it knows what is spent, or when that takes too long or fails. Never rejects. */
  async start(): Promise<void> {
    if (this.#stopping.signal.aborted) return;
    this.#startedMs = nowMs();
    const start = this.#parts.startData();
    this.#thread = new ThreadHandle(this.name, this.name, start, (_, error) => this.#died(error));
    const ready = this.#thread.ready().catch(() => 0); // its death is heard of
    await Promise.race([ready, sleep(startMsMax, undefined, { ref: false })]);
  }

  /**
   * Resolves once it goes by them, or is ended because it does not say so in time: its successor knows them
   * from its start.
   */
  async setBudgets(budgets: readonly BudgetRow[]): Promise<void> {
    const thread = this.#thread;
    if (thread === undefined) return;
    const answered = thread.applyBudgets(budgets).then(() => true);
    const late = sleep(answerMsMax, false, { ref: false });
    if (!(await Promise.race([answered, late]))) thread.kill('it did not take new budgets in time');
  }

  send(message: ToThread): void {
    this.#thread?.send(message);
  }

  /** Gives it `graceMs` to bring away what is there; the rest stays in the files. */
  stop(graceMs: number): Promise<void> {
    this.#stopping.abort();
    this.#stopped ??= this.#thread?.stop(graceMs, true) ?? Promise.resolve();
    return this.#stopped;
  }

  #died(error: unknown): void {
    this.#thread = undefined;
    this.#deaths = nowMs() - this.#startedMs > soundMs ? 0 : this.#deaths + 1;
    this.#parts.logger.error('the ledger died; it is started again', { err: error });
    void this.#startAgain();
  }

  async #startAgain(): Promise<void> {
    const ms = Math.min(pauseMs * 2 ** Math.max(0, this.#deaths - 1), pauseMsMax);
    const { signal } = this.#stopping;
    await sleep(ms, undefined, { ref: false, signal }).catch(() => {});
    if (signal.aborted) return;
    this.#parts.metrics.add(metrics.threadRestarts, ThreadKind.ledger, 1);
    await this.start();
  }
}

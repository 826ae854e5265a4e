/**
 * The tracer as the main thread keeps it: started where requests are traced, started again when it dies.
 * Main thread.
 *
 * No request depends on it, so it is nothing of thread-recovery.ts: its deaths end nothing, nobody waits for its
 * start, and each that follows soon on another makes the next start come later.
 */
import { nowMs } from '../lib/clock.ts';
import type { TracerStart } from '../shm/threads.ts';
import type { Logger } from '../telemetry/log.ts';
import { ThreadHandle } from './thread-handle.ts';

const againMsMin = 1000;
const againMsMax = 60_000;

export class TracerThread {
  readonly #logger: Pick<Logger, 'error'>;
  readonly #startData: () => TracerStart | undefined;
  #thread: ThreadHandle | undefined;
  #again: NodeJS.Timeout | undefined;
  #startedMs = 0;
  #againMs = againMsMin;

  /** `startData` is undefined where requests are not traced. */
  constructor(logger: Pick<Logger, 'error'>, startData: () => TracerStart | undefined) {
    this.#logger = logger;
    this.#startData = startData;
  }

  start(): void {
    const data = this.#startData();
    if (data === undefined) return;
    this.#startedMs = nowMs();
    this.#thread = new ThreadHandle('tracer', 'tracer', data, (_, error) => this.#died(error));
  }

  /** The last spans have the time that the thread takes for them; it ends within the grace. */
  async stop(graceMs: number): Promise<void> {
    clearTimeout(this.#again);
    await this.#thread?.stop(graceMs, true);
  }

  #died(error: unknown): void {
    this.#thread = undefined;
    const hasLasted = nowMs() - this.#startedMs > againMsMax;
    this.#againMs = hasLasted ? againMsMin : Math.min(this.#againMs * 2, againMsMax);
    this.#logger.error('the tracer died; spans are lost until it is started again', { err: error });
    this.#again = setTimeout(() => this.start(), this.#againMs);
  }
}

/**
 * Threads of piscina that have read the same tokenizers. Main thread.
 *
 * piscina starts a thread in the place of one that dies, but none any more once one has died before it was
 * ready. Then all of them are replaced by others with the same texts, when a task finds out and at most once
 * in `mendAgainMs`; tasks that the old ones had fail.
 */
import { fileURLToPath } from 'node:url';
import type { Piscina } from 'piscina';
import { nowMs } from '../lib/clock.ts';
import type { LoadReport, TokenAnswer, TokenizerStart, TokenTask } from '../shm/token-tasks.ts';

/** Source and build have the same tree, with another ending. */
const ending = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
const filename = fileURLToPath(new URL(`../tokenizer/main.${ending}`, import.meta.url));

/**
 * A vocabulary of 250,000 takes 150 MB, a body at most as much again (tokenizer/values.ts). V8 may end the whole
 * process where one allocation goes over it, so nothing may come near.
 */
const heapMbMax = 2048;
const mendAgainMs = 1000;

/** piscina replaces a thread that was ended before the pool was and is gone after it: nobody would end that one. */
function takeNoMore({ options }: Piscina): void {
  options.minThreads = 0;
}

type Died = (error: Error) => void;

export class TokenizerThreads {
  readonly #create: () => Piscina;
  readonly #count: number;
  #pool: Piscina;
  #mendedMs = Number.NEGATIVE_INFINITY;

  /** Resolves before the threads have read anything. `died` hears of deaths that fail no task. */
  static async start(
    start: TokenizerStart,
    count: number,
    died: Died,
    heapMb = heapMbMax,
  ): Promise<TokenizerThreads> {
    const { Piscina: Threads } = await import('piscina');
    const create = (): Piscina => {
      const pool = new Threads({
        ...{ filename, workerData: start, minThreads: count, maxThreads: count },
        // Who lets tasks in has a bound of its own.
        maxQueue: Number.POSITIVE_INFINITY,
        // Loading takes a second, and a thread is started only in the place of one that died.
        idleTimeout: Number.POSITIVE_INFINITY,
        resourceLimits: { maxOldGenerationSizeMb: heapMb },
      });
      pool.on('error', died);
      return pool;
    };
    return new TokenizerThreads(create, count);
  }

  private constructor(create: () => Piscina, count: number) {
    this.#create = create;
    this.#count = count;
    this.#pool = create();
  }

  /** What one of them says of the texts; all have the same. */
  async report(): Promise<LoadReport> {
    return (await this.#pool.run('load')) as LoadReport;
  }

  /** Rejects when the thread dies, or is ended by the signal. */
  async run(task: TokenTask, signal: AbortSignal): Promise<TokenAnswer> {
    if (this.#isShort && !this.#mend()) throw new Error('no thread is there');
    const pool = this.#pool;
    try {
      return (await pool.run(task, { signal })) as TokenAnswer;
    } catch (error) {
      // Tasks that wait for a thread that never comes fail now, not at the end of their time.
      if (pool === this.#pool && this.#isShort) this.#mend();
      throw error;
    }
  }

  /** Once the tasks it has are over. */
  close(): Promise<void> {
    takeNoMore(this.#pool);
    return this.#pool.close();
  }

  destroy(): Promise<void> {
    takeNoMore(this.#pool);
    return this.#pool.destroy();
  }

  get #isShort(): boolean {
    return this.#pool.threads.length < this.#count;
  }

  /** False: it is too soon. */
  #mend(): boolean {
    if (nowMs() - this.#mendedMs < mendAgainMs) return false;
    this.#mendedMs = nowMs();
    takeNoMore(this.#pool);
    void this.#pool.destroy();
    this.#pool = this.#create();
    return true;
  }
}

/**
 * The tokenizer pool: piscina threads that count tokens for the acceptors. Main thread, which passes tasks
 * and answers on and never counts.
 *
 * At most `threads` tasks run and `queue` wait; one more is `busy` at once. A task past its deadline is
 * `late`; one that a thread does not let go of costs that thread its life. A thread that dies fails the task it
 * had, and another takes its place. Nobody waits for the pool for ever, and what it does not count is
 * decided by an estimate (acceptor/context-limit.ts). New files get threads of their own, which take over once they
 * have read them; files that cannot be used change nothing.
 */
import { statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Config } from '../config/schema.ts';
import { nowMs } from '../lib/clock.ts';
import type { SharedMemory } from '../shm/memory.ts';
import type { TokenAnswer, TokenizerFiles, TokenizerStart, TokenTask } from '../shm/token-tasks.ts';
import type { Logger } from '../telemetry/log.ts';
import { readTokenizerFiles } from '../tokenizer/files.ts';
import { TokenizerThreads } from './tokenizer-threads.ts';

/** A thread looks at the clock after each piece, a fraction of a second of work, except within a template. */
const killGraceMs = 3000;
/** A degraded mode is said, and not once per request. */
const sayAgainMs = 60_000;

export interface PoolParts {
  readonly config: Config;
  readonly memory: SharedMemory;
  readonly logger: Logger;
}

/** By model; null where there is no tokenizer. */
const filesOf = ({ models }: Config): (TokenizerFiles | null)[] =>
  models.map(({ tokenizer }) =>
    tokenizer === undefined
      ? null
      : { file: tokenizer.file, chatTemplate: tokenizer.chat_template ?? '' },
  );

const hasTokenizers = (config: Config): boolean => filesOf(config).some((f) => f !== null);

export interface TokenizerProblem {
  readonly model: number;
  readonly message: string;
}

/** What is wrong with the files of the config, found by loading them in a thread of its own. */
export async function tokenizerProblems(config: Config): Promise<readonly TokenizerProblem[]> {
  if (!hasTokenizers(config)) return [];
  const loaded = await load(config, { arena: null, arenaBytes: 0 }, 1, () => {});
  await loaded.threads?.destroy();
  return loaded.problems;
}

export class TokenizerPool {
  readonly #parts: PoolParts;
  readonly #runningMax: number;
  #threads: TokenizerThreads | undefined;
  /** Of the files that the threads have read. */
  #signature = '';
  #running = 0;
  #saidMs = Number.NEGATIVE_INFINITY;
  /** Threads that are still being started go as soon as they are there. */
  #isClosed = false;

  constructor(parts: PoolParts) {
    this.#parts = parts;
    const { threads, queue } = parts.config.tokenizers;
    this.#runningMax = threads + queue;
  }

  /** Resolves once every thread has read the files; rejects with what is wrong with them. */
  async start(): Promise<void> {
    if (!hasTokenizers(this.#parts.config)) return;
    const signature = this.#look();
    const problem = await this.#replace(signature);
    if (problem !== '') throw new Error(problem);
  }

  /** Reads files that have changed. '' when they are in use, else why the old ones stay. */
  async reload(): Promise<string> {
    const signature = this.#look();
    if (signature === this.#signature) return '';
    const problem = await this.#replace(signature);
    if (problem !== '') {
      this.#parts.logger.error(`tokenizers not reloaded; the old ones stay: ${problem}`);
    }
    return problem;
  }

  /** Never rejects. */
  async ask(task: TokenTask): Promise<TokenAnswer> {
    const answer = await this.#ask(task);
    if (answer.kind === 'none' && answer.reason !== 'uncountable') this.#say(answer.reason);
    return answer;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#threads?.destroy();
  }

  async #ask(task: TokenTask): Promise<TokenAnswer> {
    if (this.#threads === undefined) return { kind: 'none', reason: 'failed' };
    if (this.#running >= this.#runningMax) return { kind: 'none', reason: 'busy' };
    this.#running++;
    const abort = new AbortController();
    const killMs = Math.max(0, task.deadlineMs - nowMs()) + killGraceMs;
    const timer = setTimeout(() => abort.abort(), killMs);
    try {
      return await this.#threads.run(task, abort.signal);
    } catch {
      return { kind: 'none', reason: abort.signal.aborted ? 'late' : 'failed' };
    } finally {
      clearTimeout(timer);
      this.#running--;
    }
  }

  #say(reason: string): void {
    if (nowMs() - this.#saidMs < sayAgainMs) return;
    this.#saidMs = nowMs();
    this.#parts.logger.warn(`tokens not counted, an estimate decides: ${reason}`);
  }

  async #replace(signature: string): Promise<string> {
    const { config, memory, logger } = this.#parts;
    const { arena, size } = memory;
    const place = { arena, arenaBytes: size.arenaBytes };
    const died = (error: Error): void => logger.error('a tokenizer thread died', { err: error });
    const { threads, problems } = await load(config, place, config.tokenizers.threads, died);
    const [problem] = problems;
    if (problem !== undefined || this.#isClosed) {
      await threads?.destroy();
      return problem === undefined ? '' : `models.${problem.model}.tokenizer: ${problem.message}`;
    }
    const before = this.#threads;
    this.#threads = threads;
    this.#signature = signature;
    // Its tasks end by themselves or are killed.
    void before?.close();
    return '';
  }

  /** Time and size of every file that is read. */
  #look(): string {
    const paths = filesOf(this.#parts.config).flatMap((files) => {
      if (files === null) return [];
      const folders = [files.file, dirname(files.file)];
      const names = ['tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja'];
      const beside = folders.flatMap((folder) => names.map((name) => join(folder, name)));
      return [files.file, files.chatTemplate, ...beside];
    });
    return paths
      .map((path) => {
        const stat = statSync(path, { throwIfNoEntry: false });
        return stat === undefined ? '-' : `${stat.ino}.${stat.mtimeMs}.${stat.size}`;
      })
      .join();
  }
}

/** Threads that have read the files, or what is wrong with these. */
async function load(
  config: Config,
  place: Pick<TokenizerStart, 'arena' | 'arenaBytes'>,
  count: number,
  onError: (error: Error) => void,
): Promise<{ threads?: TokenizerThreads; problems: readonly TokenizerProblem[] }> {
  const problems: TokenizerProblem[] = [];
  const texts = filesOf(config).map((files, model) => {
    try {
      return files && readTokenizerFiles(files);
    } catch (error) {
      problems.push({ model, message: (error as Error).message });
      return null;
    }
  });
  if (problems.length > 0) return { problems };
  const threads = await TokenizerThreads.start({ ...place, texts }, count, onError);
  try {
    for (const [model, message] of (await threads.report()).entries()) {
      if (message !== null) problems.push({ model, message });
    }
  } catch (error) {
    await threads.destroy();
    const model = texts.findIndex((text) => text !== null);
    return { problems: [{ model, message: `a thread died of it: ${(error as Error).message}` }] };
  }
  return { threads, problems };
}

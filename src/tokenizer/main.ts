/**
 * Entry of a thread of the tokenizer pool (piscina): makes every tokenizer at its start of what the main
 * thread has read, then answers one task at a time. Blocks for as long as a task takes; reads the arena and
 * writes nothing.
 *
 * It owns nothing: when it dies, the tasks it had fail at the main thread, who asked decides by an
 * estimate, and the pool starts another. Its nice value leaves the cores to the threads that carry requests.
 */
import { workerData } from 'node:worker_threads';
import { nowMs } from '../lib/clock.ts';
import { noBytes } from '../lib/no-bytes.ts';
import { nameThread } from '../lib/thread-name.ts';
import { setThreadPriority } from '../lib/thread-priority.ts';
import { textOf } from '../protocol/text.ts';
import { arenaBytes } from '../shm/arena.ts';
import type { LoadReport, TokenAnswer, TokenizerStart, TokenTask } from '../shm/token-tasks.ts';
import { answerTask } from './answers.ts';
import { ModelTokenizer } from './model-tokenizer.ts';
import { bodyValuesMax, holdsAtMost } from './values.ts';

const nice = 10;

nameThread('tokenizer');
setThreadPriority(nice);
const { arena, arenaBytes: size, texts } = workerData as TokenizerStart;
const bytes = arena === null ? noBytes : arenaBytes(arena, size);
const problems: (string | null)[] = [];
const tokenizers = texts.map((each, model) => {
  problems[model] = null;
  if (each === null) return undefined;
  try {
    return new ModelTokenizer(each);
  } catch (error) {
    problems[model] = (error as Error).message;
    return undefined;
  }
});

const uncountable: TokenAnswer = { kind: 'none', reason: 'uncountable' };

/** `load` says what became of the files. */
export default function run(task: TokenTask | 'load'): TokenAnswer | LoadReport {
  if (task === 'load') return problems;
  const tokenizer = tokenizers[task.model];
  if (tokenizer === undefined) return { kind: 'none', reason: 'failed' };
  if (nowMs() > task.deadlineMs) return { kind: 'none', reason: 'late' };
  try {
    const end = task.start + task.length;
    if (!holdsAtMost(bytes, task.start, end, bodyValuesMax)) return uncountable;
    return answerTask(tokenizer, task, textOf(bytes, task.start, end));
  } catch {
    return { kind: 'none', reason: 'failed' };
  }
}

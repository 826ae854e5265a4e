/**
 * The tokenizer pool as an acceptor sees it: asks through the main thread, waits a bounded time. Acceptor
 * threads; never blocks.
 *
 * No more questions are open than the pool takes, so a flood costs no messages. The time limit is kept here:
 * whatever becomes of main thread and pool, everybody who asked is called back once. An answer that comes
 * later is nobody's.
 */
import { nowMs } from '../lib/clock.ts';
import type { MetricsWriter } from '../shm/metrics.ts';
import type { FromThread } from '../shm/threads.ts';
import type { TokenAnswer, TokenTask } from '../shm/token-tasks.ts';
import { metrics } from '../telemetry/catalogue.ts';
import { TokenCount } from '../telemetry/labels.ts';

type Counted = (answer: TokenAnswer) => void;

interface Waiting {
  readonly counted: Counted;
  readonly timer: NodeJS.Timeout;
}

export interface TokenLimits {
  /** Questions at one time. */
  readonly askedMax: number;
  readonly timeoutMs: number;
}

const busy: TokenAnswer = Object.freeze({ kind: 'none', reason: 'busy' });
const late: TokenAnswer = Object.freeze({ kind: 'none', reason: 'late' });

export class TokenCounts {
  readonly #limits: TokenLimits;
  readonly #post: (message: FromThread) => void;
  readonly #metrics: MetricsWriter;
  readonly #waiting = new Map<number, Waiting>();
  #next = 0;

  constructor(limits: TokenLimits, metrics: MetricsWriter, post: (message: FromThread) => void) {
    this.#metrics = metrics;
    this.#limits = limits;
    this.#post = post;
  }

  /** Calls back in a later turn of the loop; with `busy` in this one. */
  ask(task: Omit<TokenTask, 'deadlineMs'>, counted: Counted): void {
    const { askedMax, timeoutMs } = this.#limits;
    if (this.#waiting.size >= askedMax) {
      this.#tell(counted, busy);
      return;
    }
    const ticket = this.#next++;
    const timer = setTimeout(() => this.answer(ticket, late), timeoutMs).unref();
    this.#waiting.set(ticket, { counted, timer });
    this.#post({ kind: 'count', ticket, task: { ...task, deadlineMs: nowMs() + timeoutMs } });
  }

  answer(ticket: number, answer: TokenAnswer): void {
    const waiting = this.#waiting.get(ticket);
    if (waiting === undefined) return;
    this.#waiting.delete(ticket);
    clearTimeout(waiting.timer);
    this.#tell(waiting.counted, answer);
  }

  #tell(counted: Counted, answer: TokenAnswer): void {
    const outcome = answer.kind === 'none' ? answer.reason : 'counted';
    this.#metrics.add(metrics.tokenCounts, TokenCount[outcome], 1);
    counted(answer);
  }
}

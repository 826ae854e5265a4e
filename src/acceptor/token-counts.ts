/**
 * The tokenizer pool as an acceptor sees it: asks through the main thread, waits a bounded time. Acceptor
 * threads; never blocks.
 *
 * No more questions are open than the pool takes, and of these no more are with the pool than keep its threads
 * busy: the others wait here, where who asks little is not behind who floods. Counts for limits come first, since
 * a replica answers `/tokenize` as well; in each of the two the tenants take turns. Past the bound the
 * newest question goes of whoever has most of them. The time limit is kept here: whatever becomes of main thread and
 * pool, everybody who asked is called back once. An answer that comes later is nobody's.
 */
import { nowMs } from '../lib/clock.ts';
import { Turns } from '../lib/turns.ts';
import type { MetricsWriter } from '../shm/metrics.ts';
import type { FromThread } from '../shm/threads.ts';
import type { TokenAnswer, TokenTask } from '../shm/token-tasks.ts';
import { metrics } from '../telemetry/catalogue.ts';
import { TokenCount } from '../telemetry/labels.ts';

type Counted = (answer: TokenAnswer) => void;

interface Question {
  readonly ticket: number;
  /** Lane of who asks. */
  readonly tenant: number;
  readonly task: TokenTask;
  readonly counted: Counted;
  readonly timer: NodeJS.Timeout;
}

export interface TokenLimits {
  /** Questions at one time. */
  readonly askedMax: number;
  /** Of these with the pool. */
  readonly postedMax: number;
  readonly timeoutMs: number;
}

const busy: TokenAnswer = Object.freeze({ kind: 'none', reason: 'busy' });
const late: TokenAnswer = Object.freeze({ kind: 'none', reason: 'late' });

export class TokenCounts {
  readonly #limits: TokenLimits;
  readonly #post: (message: FromThread) => void;
  readonly #metrics: MetricsWriter;
  /** With the pool, by ticket. */
  readonly #posted = new Map<number, Question>();
  readonly #limitCounts = new Turns<Question>();
  readonly #answers = new Turns<Question>();
  #next = 0;

  constructor(limits: TokenLimits, metrics: MetricsWriter, post: (message: FromThread) => void) {
    this.#metrics = metrics;
    this.#limits = limits;
    this.#post = post;
  }

  /** Calls back in a later turn of the loop; with `busy` perhaps in this one. */
  ask(tenant: number, of: Omit<TokenTask, 'deadlineMs'>, counted: Counted): void {
    const { timeoutMs } = this.#limits;
    const ticket = this.#next++;
    const task = { ...of, deadlineMs: nowMs() + timeoutMs };
    const timer = setTimeout(() => this.#onLate(question), timeoutMs).unref();
    const question: Question = { ticket, tenant, task, counted, timer };
    this.#lineOf(question).add(tenant, question);
    this.#dropPastBound(question);
    this.#postNext();
  }

  answer(ticket: number, answer: TokenAnswer): void {
    const question = this.#posted.get(ticket);
    if (question === undefined) return;
    this.#posted.delete(ticket);
    this.#postNext();
    this.#tell(question, answer);
  }

  #lineOf({ task: { want } }: Question): Turns<Question> {
    return want === 'count' ? this.#limitCounts : this.#answers;
  }

  /** At most one, as one has come. */
  #dropPastBound(newest: Question): void {
    const waiting = this.#limitCounts.size + this.#answers.size;
    if (waiting + this.#posted.size <= this.#limits.askedMax) return;
    const line = this.#answers.size > 0 ? this.#answers : this.#limitCounts;
    const dropped = line.dropOf(newest.tenant);
    if (dropped === newest) this.#tell(newest, busy);
    // Its verdict is not for the turn in which the body of another one is read.
    else if (dropped !== undefined) setImmediate(() => this.#tell(dropped, busy));
  }

  #postNext(): void {
    while (this.#posted.size < this.#limits.postedMax) {
      const question = this.#limitCounts.next() ?? this.#answers.next();
      if (question === undefined) return;
      const { ticket, task } = question;
      this.#posted.set(ticket, question);
      this.#post({ kind: 'count', ticket, task });
    }
  }

  #onLate(question: Question): void {
    this.#lineOf(question).remove(question.tenant, question);
    if (this.#posted.delete(question.ticket)) this.#postNext();
    this.#tell(question, late);
  }

  #tell({ timer, counted }: Question, answer: TokenAnswer): void {
    clearTimeout(timer);
    const outcome = answer.kind === 'none' ? answer.reason : 'counted';
    this.#metrics.add(metrics.tokenCounts, TokenCount[outcome], 1);
    counted(answer);
  }
}

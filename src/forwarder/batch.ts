/**
 * Several attempts in one exchange with one replica: completions that differ in their prompt alone,
 * sent with a list of prompts. Forwarder threads; never waits.
 *
 * The answer is held until it is complete, then each member gets its share (protocol/batch-answer.ts).
 * A member that leaves (client gone, deadline) ends at once and harms nobody; the last one to leave
 * cuts the exchange. What the replica refuses as a whole, each member is asked again by itself. The
 * body is a copy, so no member's memory is read once it has settled.
 */
import { Buffer } from 'node:buffer';
import type { Dispatcher } from 'undici';
import { nowUs } from '../lib/clock.ts';
import { NoParts, splitAnswer } from '../protocol/batch-answer.ts';
import { metrics as catalogue } from '../telemetry/catalogue.ts';
import { AnswerHead, type AnswerHeaders, encodeAnswerHead } from './answer-head.ts';
import { Attempt, type AttemptOwner } from './attempt.ts';
import type { AttemptTrace } from './attempt-trace.ts';
import { AttemptClock } from './clocks.ts';
import { batchFailures, type Failure, failures, Stage } from './failure.ts';
import type { ReplicaPool } from './pools.ts';
import { ReplicaCall } from './replica-call.ts';
import type { Running, RunningOwner } from './running.ts';
import type { Services } from './services.ts';

/** Held in memory until it is complete; the answers to its members alone have no such bound. */
const answerBytesMax = 32 * 1024 * 1024;

/** A request on its way into a batch. */
export interface BatchItem {
  readonly slot: number;
  readonly lease: number;
  readonly promptBytes: number;
  readonly trace: AttemptTrace | undefined;
}

export class Batch extends ReplicaCall {
  protected readonly clock: AttemptClock;
  readonly #members: readonly Member[];
  readonly #promptBytes: readonly number[];
  readonly #owner: RunningOwner;
  readonly #onFailed: () => void;
  /** Members whose outcome is open, and those that are not settled. */
  #open: number;
  #unsettled: number;
  #head: AnswerHead | undefined;
  #headers: AnswerHeaders = {};
  #chunks: Uint8Array[] = [];
  #bytes = 0;

  constructor(
    owner: RunningOwner,
    services: Services,
    pool: ReplicaPool,
    items: readonly BatchItem[],
    request: Dispatcher.DispatchOptions,
  ) {
    super(services, pool, request);
    const deadlineUs = Number.POSITIVE_INFINITY; // each member has its own
    const time = { deadlineUs, isOwnDeadline: false, streams: false };
    this.clock = new AttemptClock(services.limits, nowUs(), time);
    this.#owner = owner;
    this.#onFailed = () => services.metrics.add(catalogue.batchesFailed, pool.address.row, 1);
    this.#members = items.map((item) => new Member(this, services, item, items.length));
    this.#promptBytes = items.map(({ promptBytes }) => promptBytes);
    this.#open = this.#unsettled = items.length;
    services.metrics.add(catalogue.batches, pool.address.row, 1);
    services.metrics.add(catalogue.batchedRequests, pool.address.row, items.length);
  }

  get members(): readonly Running[] {
    return this.#members;
  }

  stop(): void {
    this.#fail(failures.stopping);
  }

  check(us: number): void {
    for (const member of this.#members) {
      const { clock } = member.attempt;
      if (member.isOver) member.attempt.checkTaken(us);
      else if (clock.isPastDeadline(us)) this.#release(member, clock.deadlineFailure(false), 0);
    }
    if (this.over) {
      this.checkDrained(us);
      return;
    }
    const failure = this.clock.verdict(us, this.stage, false);
    if (failure !== undefined) this.#fail(failure);
  }

  /** The outcome of a member is fixed; nobody left, nothing more is wanted of the replica. */
  leftBy(member: Member): void {
    if (member.isOver) return;
    member.isOver = true;
    this.#open--;
    if (this.#open === 0 && !this.over) this.leave('cut');
  }

  settledBy(member: Member): void {
    this.#unsettled--;
    this.#owner.onSettled(member);
    if (this.#unsettled === 0 && this.closed) this.#owner.onDone(this);
  }

  // --- the replica ------------------------------------------------------------------------------

  protected onSent(us: number): void {
    for (const { isOver, attempt } of this.#members) if (!isOver) attempt.record.sent(us);
  }

  protected onHead(status: number, us: number): void {
    for (const { isOver, attempt } of this.#members) if (!isOver) attempt.record.head(us, status);
  }

  protected onRefused(failure: Failure, retryAfterMs: number): void {
    this.#releaseAll(failure, retryAfterMs);
  }

  protected onAnswer(status: number, headers: AnswerHeaders): void {
    const head = new AnswerHead(status, headers, 'openai-completions', this.#members.length);
    this.#head = head;
    this.#headers = headers;
    if (status >= 400) {
      this.leave('drain');
      this.#releaseAll(failures.batchRefused, 0);
    } else if (!head.isJson) this.#fail(failures.batchAnswer);
    else if (head.contentLength > answerBytesMax) this.#fail(failures.batchRefused);
  }

  protected onBody(chunk: Uint8Array): void {
    this.clock.token(nowUs());
    this.#bytes += chunk.length;
    if (this.#bytes > answerBytesMax) this.#fail(failures.batchRefused);
    else this.#chunks.push(chunk);
  }

  protected onEnd(broken: Failure | undefined): void {
    if (broken !== undefined) this.#fail(broken);
    else this.#deliver();
  }

  protected onClosed(): void {
    if (this.#unsettled === 0) this.#owner.onDone(this);
  }

  // --- the members ------------------------------------------------------------------------------

  #deliver(): void {
    const body = this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks);
    const parts = splitAnswer(body as Uint8Array, this.#promptBytes);
    if (parts === NoParts.error) this.#fail(failures.errorBody);
    else if (parts === NoParts.malformed) {
      // Without a length, an answer that the connection has cut looks the same.
      this.#fail(this.#head?.framed === false ? failures.truncated : failures.batchAnswer);
    } else {
      this.leave('drain');
      for (const [i, member] of this.#members.entries()) {
        const part = parts[i];
        if (member.isOver || part === undefined) continue;
        const contentLength = part.body.reduce((sum, { length }) => sum + length, 0);
        const { headBytesMax } = member.attempt.writer;
        const facts = { status: this.#head?.status ?? 0, contentLength };
        const head = encodeAnswerHead(facts, this.#headers, headBytesMax, this.pool);
        this.leftBy(member);
        member.attempt.deliver(head, part.body, contentLength, part.usage);
      }
    }
    this.#chunks = [];
  }

  #fail(failure: Failure): void {
    if (this.over) return;
    this.#chunks = [];
    this.leave('cut');
    this.#releaseAll(failure, 0);
  }

  #releaseAll(cause: Failure, retryAfterMs: number): void {
    this.#onFailed();
    const { first, rest } = batchFailures(cause, this.stage !== Stage.connecting);
    let failure = first;
    for (const member of this.#members) {
      if (member.isOver) continue;
      this.#release(member, failure, retryAfterMs);
      failure = rest;
    }
  }

  /** Gives back a member whose outcome is open. */
  #release(member: Member, failure: Failure, retryAfterMs: number): void {
    if (member.isOver) return;
    this.leftBy(member);
    member.attempt.giveUp(failure, retryAfterMs);
  }
}

class Member implements AttemptOwner, Running {
  readonly attempt: Attempt;
  /** Its outcome is fixed. */
  isOver = false;
  readonly #batch: Batch;

  constructor(batch: Batch, services: Services, item: BatchItem, size: number) {
    const { slot, lease, trace } = item;
    this.#batch = batch;
    this.attempt = new Attempt(this, services, slot, lease, trace, size);
  }

  get slot(): number {
    return this.attempt.slot;
  }

  get lease(): number {
    return this.attempt.lease;
  }

  abort(): void {
    this.#batch.leftBy(this);
    this.attempt.abort();
  }

  onSettled(): void {
    this.#batch.settledBy(this);
  }

  onLost(): void {
    this.#batch.leftBy(this);
  }

  onWritten(): void {
    // A batch holds its whole answer: the replica is never paused for a member.
  }
}

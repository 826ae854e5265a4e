/**
 * One attempt: one HTTP exchange with one replica, from dispatch to the record that settles it or
 * the event that gives the request back to the scheduler. Forwarder threads; never waits.
 *
 * Until `commit` nothing has reached the client: whatever fails ends in dispatched -> resuming and
 * `released`, and the scheduler decides. From there on the slot is streaming and the attempt ends in
 * exactly one settling record. Every end passes through `#leave`, so no connection goes on reading a
 * request body that the acceptor is about to free. Late callbacks of undici find `#over`.
 */
import type { Dispatcher } from 'undici';
import { InvariantError } from '../lib/assert.ts';
import { nowUs } from '../lib/clock.ts';
import { routeOf } from '../protocol/routes.ts';
import { SlotState } from '../shm/request-slots.layout.ts';
import { EventKind, Outcome } from '../shm/rings.layout.ts';
import type { Answer, AnswerSink } from './answer.ts';
import { AnswerHead, type AnswerHeaders, encodeAnswerHead, single } from './answer-head.ts';
import { AttemptRecord } from './attempt-record.ts';
import { type AttemptClock, type Clocked, clockOf } from './clocks.ts';
import { EventStream } from './event-stream.ts';
import * as failing from './failure.ts';
import { type Failure, failures, Stage } from './failure.ts';
import { Notice, Output, type OutputOwner } from './output.ts';
import type { ConnectionUser, ReplicaPool } from './pools.ts';
import { attemptOver, ReplicaLink } from './replica-link.ts';
import type { ResponseWriter } from './response-writer.ts';
import type { Services } from './services.ts';
import { WholeAnswer } from './whole-answer.ts';

/** How long an answer nobody wants any more may go on before its connection is closed. */
const drainUsMax = 1_000_000;

export interface ExchangeOwner {
  /** The request is no longer with this forwarder. */
  onSettled(exchange: Exchange): void;
  /** Nothing of the HTTP exchange is left. */
  onClosed(exchange: Exchange): void;
}

export class Exchange implements ConnectionUser, AnswerSink, OutputOwner, Clocked {
  readonly slot: number;
  readonly lease: number;
  readonly link = new ReplicaLink();
  /** Among the open exchanges of the forwarder. */
  place = -1;
  committed = false;
  readonly #owner: ExchangeOwner;
  readonly #services: Services;
  readonly #writer: ResponseWriter;
  readonly #pool: ReplicaPool;
  readonly #request: Dispatcher.DispatchOptions;
  readonly #output: Output;
  readonly #record: AttemptRecord;
  readonly #clock: AttemptClock;
  #answer: Answer | undefined;
  #head: Uint8Array | undefined;
  #stage: Stage = Stage.connecting;
  #isEventStream = false;
  /** The outcome is fixed; what undici still says is late. */
  #over = false;
  /** undici is done with the exchange, or will find it withdrawn. */
  #closed = false;
  #paused = false;
  #outcome: Outcome = Outcome.ok;

  constructor(
    owner: ExchangeOwner,
    services: Services,
    pool: ReplicaPool,
    slot: number,
    lease: number,
    request: Dispatcher.DispatchOptions,
  ) {
    const { slots, credit, limits } = services;
    const { words, at } = slots;
    const row = slots.row(slot);
    const us = nowUs();
    const produced = credit.consumed(row);
    this.slot = slot;
    this.lease = lease;
    this.#owner = owner;
    this.#services = services;
    this.#pool = pool;
    this.#request = request;
    this.#writer = services.writers[words[row + at.acceptor] as number] as ResponseWriter;
    this.#output = new Output(this, slot, lease, row, produced);
    this.#record = new AttemptRecord(services, slot, us, produced);
    this.#clock = clockOf(slots, slot, limits, us);
  }

  /** undici is done with the exchange. */
  get closed(): boolean {
    return this.#closed;
  }

  start(): void {
    this.#pool.dispatch(this.#request, this);
  }

  /** The client has left, or the scheduler wants the attempt no more. */
  abort(): void {
    this.#record.used(this.#answer?.usage);
    this.#leave('cut');
    this.#record.cancelled(nowUs());
    this.#output.clear();
    this.#settleWith(failures.clientGone);
  }

  /** The gateway stops: an answer that is not through ends here. */
  stop(): void {
    if (!this.#over) this.fail(failures.stopping);
  }

  forgive(gapUs: number): void {
    this.#clock.forgive(gapUs);
  }

  check(us: number): void {
    if (this.#over) {
      if (!this.#closed && this.#clock.silentUs(us) > drainUsMax) this.#cut();
      if (this.#output.notice !== Notice.none && this.#clock.isPastDeadline(us)) this.#expire();
      return;
    }
    const failure = this.#clock.verdict(us, this.#stage, this.#paused);
    if (failure !== undefined) this.#breakOff(failure);
  }

  /** Nothing more comes; an answer that needs no more ends well even so. */
  #breakOff(failure: Failure): void {
    if (this.#answer !== undefined) this.#answer.end(failure);
    else this.fail(failure);
  }

  /** The answer is here, its client has not taken it, and the time is over. */
  #expire(): void {
    if (this.#output.bytes === 0) return;
    this.#output.clear();
    this.#giveUp(failures.clientDeadline, 0);
  }

  // --- undici -----------------------------------------------------------------------------------

  onRequestStart(controller: Dispatcher.DispatchController): void {
    // Thrown at undici: the one way to take back a request before it is written.
    if (this.#over) throw attemptOver;
    const us = nowUs();
    this.link.started(controller);
    this.#stage = Stage.sent;
    this.#clock.restart(us);
    this.#record.sent(us);
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: AnswerHeaders,
  ): void {
    if (status < 200 || this.#over) return; // 102 and 103 say nothing that we pass on
    this.#stage = Stage.head;
    this.#record.head(nowUs(), status);
    const sent = this.#request.headers as readonly string[];
    const failure = failing.failureOfHead(status, headers, this.#pool.authorization !== '', sent);
    if (failure !== undefined) this.#refuse(failure, headers);
    else this.#begin(status, headers);
  }

  #refuse(failure: Failure, headers: AnswerHeaders): void {
    if (failure === failures.unauthorized || failure === failures.clientKey) {
      this.#services.onMisconfigured(this.#pool.address.name, failure.error);
    }
    const exact = single(headers['retry-after-ms']);
    const coarse = single(headers['retry-after']);
    this.#leave('drain');
    this.#giveUp(failure, failing.retryAfterMs(exact, coarse, Date.now()));
  }

  #begin(status: number, headers: AnswerHeaders): void {
    const { words, at, row } = this.#columns();
    const route = routeOf(words[row + at.route] as number);
    const head = new AnswerHead(status, headers, route.shape, words[row + at.choices] as number);
    this.#isEventStream = head.isEventStream && status < 300;
    if (status >= 400) this.#outcome = Outcome.clientError;
    if (this.#isEventStream && head.isEncoded) {
      this.fail(failures.framing); // identity was asked for, and these events cannot be followed
      return;
    }
    this.#head = encodeAnswerHead(head, headers, this.#writer.headBytesMax);
    const wholeBytesMax = Math.min(
      this.#services.credit.window,
      this.#writer.recordBytesLimit - this.#head.length,
    );
    this.#answer = this.#isEventStream
      ? new EventStream(this, head)
      : new WholeAnswer(this, head, wholeBytesMax);
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Uint8Array): void {
    if (this.#over) {
      this.link.drain(chunk.length);
      return;
    }
    this.#stage = Stage.body;
    this.#services.progress.mark(this.#pool.address.row, nowUs());
    this.#answer?.push(chunk);
    if (this.#over || !this.#shouldPause()) return;
    this.#paused = true;
    controller.pause();
    // Only an output that was flushed is resumed, and this chunk may have completed no event.
    this.#writer.enqueue(this.#output);
  }

  onResponseEnd(): void {
    this.#closed = true;
    this.link.dropUnsent();
    if (this.#over) this.#owner.onClosed(this);
    else this.#answer?.end(undefined);
  }

  onResponseError(_controller: Dispatcher.DispatchController | null, error: Error): void {
    if (error instanceof InvariantError) {
      // undici returns to its handlers what they throw; a broken invariant ends the thread.
      queueMicrotask(() => {
        throw error;
      });
    }
    if (this.#closed) return;
    if (!this.#over && this.#stage === Stage.sent && this.link.takeStale(error)) {
      this.#retryFresh();
      return;
    }
    this.#closed = true;
    if (this.#over) {
      this.#owner.onClosed(this);
      return;
    }
    this.#breakOff(failing.failureOfError(error, this.#stage));
  }

  #retryFresh(): void {
    this.#stage = Stage.connecting;
    this.#clock.restart(nowUs());
    this.#pool.dispatchFresh(this.#request, this);
  }

  // --- the answer -------------------------------------------------------------------------------

  commit(): boolean {
    const { slots, events } = this.#services;
    const { dispatched, streaming } = SlotState;
    if (!slots.transition(this.slot, this.lease, dispatched, streaming)) {
      this.#lose();
      return false;
    }
    this.committed = true;
    events.push(EventKind.started, this.slot, this.lease, Outcome.ok, 0, 0, undefined);
    this.#output.head = this.#head;
    this.#writer.enqueue(this.#output);
    return true;
  }

  emit(bytes: Uint8Array): void {
    this.#output.push(bytes);
    this.#writer.enqueue(this.#output);
  }

  whole(body: readonly Uint8Array[]): void {
    for (const bytes of body) this.#output.push(bytes);
    this.#output.head = this.#head;
    this.#output.notice = Notice.whole;
  }

  token(events: number): void {
    const us = nowUs();
    this.#clock.token(us);
    this.#record.tokens(us, events);
  }

  progress(): void {
    if (this.#isEventStream) this.#clock.sign(nowUs());
    else this.#clock.token(nowUs()); // the bytes of a whole answer are its content
  }

  dropped(): void {
    this.#record.malformed();
  }

  complete(): void {
    this.#record.used(this.#answer?.usage);
    this.#leave('drain');
    if (this.#output.notice === Notice.none) this.#output.notice = Notice.end;
    this.#writer.enqueue(this.#output);
  }

  fail(failure: Failure): void {
    if (this.#over) return;
    this.#record.used(this.#answer?.usage);
    this.#leave('cut');
    this.#giveUp(failure, 0);
  }

  /** An error for the client when it has a part of the answer, else the request for the scheduler. */
  #giveUp(failure: Failure, retryAfterMs: number): void {
    if (this.committed) {
      this.#settleWith(failure);
      return;
    }
    const { slots, events } = this.#services;
    const { dispatched, resuming } = SlotState;
    const { outcome, error } = failure;
    this.#record.failed(error, false);
    this.#record.ended(nowUs(), this.#output.produced);
    this.#output.withdraw();
    if (!slots.transition(this.slot, this.lease, dispatched, resuming)) {
      this.#lose();
      return;
    }
    // No usage: what the client never got is not on its account.
    events.push(EventKind.released, this.slot, this.lease, outcome, error, retryAfterMs, undefined);
    this.#owner.onSettled(this);
  }

  #settleWith(failure: Failure): void {
    this.#outcome = failure.outcome;
    this.#record.failed(failure.error, failure.outcome === Outcome.truncated);
    if (!this.committed) this.#output.withdraw();
    this.#output.notice = Notice.end;
    this.#output.error = failure.error;
    this.#writer.enqueue(this.#output);
  }

  // --- the output -------------------------------------------------------------------------------

  claimSettlement(): boolean {
    this.#record.ended(nowUs(), this.#output.produced);
    const from = this.committed ? SlotState.streaming : SlotState.dispatched;
    if (this.#services.slots.transition(this.slot, this.lease, from, SlotState.settled))
      return true;
    this.#lose();
    return false;
  }

  settled(): void {
    const { events } = this.#services;
    const { slot, lease, error } = this.#output;
    events.push(EventKind.released, slot, lease, this.#outcome, error, 0, this.#record.usage);
    this.#owner.onSettled(this);
  }

  written(): void {
    if (!this.#paused || this.#over) return;
    // What is in hand goes first, so the replica is heard again a read at a time.
    if (this.#output.bytes > 0 || this.#services.credit.exhausted(this.#output)) {
      this.#writer.starve(this.#output);
      return;
    }
    this.#paused = false;
    this.#clock.restart(nowUs()); // the silence was the client's
    this.link.resume();
  }

  #shouldPause(): boolean {
    if (!this.committed) return false;
    const { credit } = this.#services;
    const waiting = credit.unconsumed(this.#output) + this.#output.bytes;
    return this.#writer.blocked || waiting >= credit.window;
  }

  /** Somebody else settled the slot: nothing of this attempt may be published any more. */
  #lose(): void {
    this.#record.conflict();
    if (!this.#over) this.#leave('cut');
    this.#output.withdraw();
    this.#writer.forget(this.#output);
    this.#owner.onSettled(this);
  }

  // --- leaving the replica ----------------------------------------------------------------------

  /** `drain` reads a short rest of the answer, so that the connection can be used again. */
  #leave(how: 'drain' | 'cut'): void {
    this.#over = true;
    if (this.#closed) this.#owner.onClosed(this);
    else if (how === 'cut' || this.#paused || this.link.requestIsUnsent) this.#cut();
    else this.#clock.restart(nowUs());
  }

  #cut(): void {
    this.#closed = true;
    this.link.cut();
    this.#owner.onClosed(this);
  }

  #columns() {
    const { slots } = this.#services;
    return { words: slots.words, at: slots.at, row: slots.row(this.slot) };
  }
}

/**
 * One attempt by itself: an exchange with a replica (replica-call.ts) whose answer goes to the client
 * of one request (attempt.ts) as it comes. Forwarder threads; never waits.
 */
import type { Dispatcher } from 'undici';
import { errors } from '../errors/catalogue.ts';
import { assert } from '../lib/assert.ts';
import { nowUs } from '../lib/clock.ts';
import { GoOn } from '../lib/go-on.ts';
import { routeOf } from '../protocol/routes.ts';
import { Asks, mayRefuseOptions } from '../protocol/stream-options.ts';
import { Outcome } from '../shm/rings.layout.ts';
import { metrics as catalogue } from '../telemetry/catalogue.ts';
import { Result } from '../telemetry/labels.ts';
import type { Answer } from './answer.ts';
import { AnswerHead, type AnswerHeaders, encodeAnswerHead } from './answer-head.ts';
import { Attempt, type AttemptOwner } from './attempt.ts';
import type { AttemptClock } from './clocks.ts';
import { type Delivery, isContinuable } from './delivery.ts';
import { EventStream, type StreamSink } from './event-stream.ts';
import { type Failure, failures } from './failure.ts';
import { KeyMask } from './key-mask.ts';
import type { ReplicaPool } from './pools.ts';
import { ReplicaCall } from './replica-call.ts';
import type { Running, RunningOwner } from './running.ts';
import type { Services } from './services.ts';
import { asSent, type SentRequest, type UpstreamRequest } from './upstream-requests.ts';
import { WholeAnswer, type WholeSink } from './whole-answer.ts';

export class Exchange extends ReplicaCall implements StreamSink, WholeSink, AttemptOwner, Running {
  readonly #owner: RunningOwner;
  readonly #attempt: Attempt;
  /** Of a stream that another replica may go on with. */
  #delivery: Delivery | undefined;
  /** What is sent once more if the replica refuses the usage it is asked for. */
  #plain: UpstreamRequest | undefined;
  readonly #adds: Asks;
  #isAskedAgain = false;
  #answer: Answer | undefined;
  #head: Uint8Array | undefined;
  /** Of an error that a replica tells the client. */
  #mask: KeyMask | undefined;
  #isEventStream = false;
  /** Of an answer that its engine stores: where it lies is still to be noted. */
  #isUnnoted = false;
  #isSettled = false;

  constructor(
    owner: RunningOwner,
    services: Services,
    pool: ReplicaPool,
    slot: number,
    lease: number,
    request: SentRequest,
    rival?: Exchange,
  ) {
    super(services, pool, request);
    const { trace, delivery, plain, adds = Asks.nothing } = request;
    this.#owner = owner;
    this.#delivery = delivery;
    this.#plain = plain;
    this.#adds = adds;
    const other = rival === undefined ? undefined : rival.#attempt;
    this.#attempt = new Attempt(this, services, slot, lease, trace, 1, other, delivery?.earlier);
  }

  protected get clock(): AttemptClock {
    return this.#attempt.clock;
  }

  get slot(): number {
    return this.#attempt.slot;
  }

  get lease(): number {
    return this.#attempt.lease;
  }

  get committed(): boolean {
    return this.#attempt.committed;
  }

  /** Neither its answer nor its end has begun: it may be hedged. */
  get isOpen(): boolean {
    return !this.over && !this.committed;
  }

  abort(): void {
    this.#attempt.record.used(this.#answer?.usage);
    this.leave('cut');
    this.#attempt.abort();
  }

  stop(): void {
    if (!this.over) this.fail(failures.stopping);
  }

  check(us: number): void {
    if (this.over) {
      this.checkDrained(us);
      this.#attempt.checkTaken(us);
      return;
    }
    const failure = this.clock.verdict(us, this.stage, this.paused);
    if (failure !== undefined) this.onEnd(failure);
  }

  // --- the replica ------------------------------------------------------------------------------

  protected onSent(us: number): void {
    this.#attempt.record.sent(us);
  }

  protected onHead(status: number, us: number): void {
    this.#attempt.record.head(us, status);
  }

  protected onRefused(failure: Failure, retryAfterMs: number): void {
    this.#attempt.giveUp(failure, retryAfterMs);
  }

  protected onAnswer(status: number, headers: AnswerHeaders): void {
    const { words, at } = this.services.slots;
    const row = this.services.slots.row(this.slot);
    const route = routeOf(words[row + at.route] as number);
    const isLast = ((words[row + at.goOn] as number) & GoOn.longer) === 0;
    const mayGoOn = status >= 400 && !isLast;
    const choices = words[row + at.choices] as number;
    const mayAskAgain = this.#plain !== undefined && mayRefuseOptions(status);
    const may = { mayGoOn, mayAskAgain };
    const head = new AnswerHead(status, headers, route.shape, choices, may);
    const attempt = this.#attempt;
    this.#isEventStream = head.isEventStream && status < 300;
    if (!this.#isEventStream && this.#delivery?.isContinued === true) {
      this.#endContinued();
      return;
    }
    if (status >= 400) {
      attempt.outcome = Outcome.clientError;
      this.#mask = KeyMask.of(this.pool.own.secrets);
    }
    if (this.#isEventStream && head.isEncoded) {
      this.fail(failures.framing); // identity was asked for, and these events cannot be followed
      return;
    }
    if (this.#isAskedAgain && status < 300) this.#learnRefusal();
    const judge = status < 300 ? this.services.judgeOf(this.slot) : undefined;
    const unwanted = judge?.ofHead(headers);
    if (unwanted !== undefined) {
      this.discard(unwanted);
      return;
    }
    this.#isUnnoted = this.services.responses.isStored(row, status);
    this.#head = encodeAnswerHead(head, headers, attempt.writer.headBytesMax, this.pool);
    this.#answer = this.#isEventStream
      ? new EventStream(this, head, this.#delivery, judge)
      : new WholeAnswer(this, head, attempt.wholeBytesMax(this.#head), judge);
  }

  protected onBody(chunk: Uint8Array, controller: Dispatcher.DispatchController): void {
    this.#answer?.push(this.#mask === undefined ? chunk : this.#mask.push(chunk));
    if (this.over || !this.#shouldPause()) return;
    this.paused = true;
    controller.pause();
    // Only an output that was flushed is resumed, and this chunk may have completed no event.
    this.#attempt.writer.enqueue(this.#attempt.output);
  }

  /** An answer that needs no more ends well even when the exchange does not. */
  protected onEnd(broken: Failure | undefined): void {
    if (this.#answer !== undefined) {
      if (this.#mask !== undefined) this.#answer.push(this.#mask.finish());
      this.#answer.end(broken);
    } else if (broken !== undefined) this.fail(broken);
  }

  protected onClosed(): void {
    if (this.#isSettled) this.#owner.onDone(this);
  }

  // --- the answer -------------------------------------------------------------------------------

  commit(): boolean {
    this.#note();
    return this.#attempt.commit(this.#head);
  }

  emit(bytes: Uint8Array): void {
    if (this.#isUnnoted) this.#note();
    this.#attempt.emit(bytes);
  }

  whole(body: readonly Uint8Array[]): void {
    this.#note();
    this.#attempt.whole(this.#head, body);
  }

  token(events: number): void {
    const us = nowUs();
    this.clock.token(us);
    this.#attempt.record.tokens(us, events);
  }

  progress(): void {
    if (this.#isEventStream) this.clock.sign(nowUs());
    else this.clock.token(nowUs()); // the bytes of a whole answer are its content
  }

  dropped(): void {
    this.#attempt.record.malformed();
  }

  complete(): void {
    this.#attempt.record.used(this.#answer?.usage);
    this.leave('drain');
    this.#attempt.complete();
  }

  /**
   * Nothing of the refusal reaches the client, and its attempt is the same one: what is left out here is
   * what the gateway has put in. The answer has no usage that nobody asked for, and cannot be continued.
   */
  askAgain(): void {
    const plain = this.#plain;
    assert(plain !== undefined, 'an option was added');
    this.#plain = this.#delivery = this.#answer = this.#mask = undefined;
    this.#isAskedAgain = true;
    this.#attempt.outcome = Outcome.ok;
    this.services.metrics.add(catalogue.streamOptionsRefused, this.pool.address.row, 1);
    this.startAgain(asSent(plain));
  }

  discard(cause: Failure): void {
    const usage = this.#answer?.usage;
    // A stream would go on; the usage of its beginning says nothing of what the model answers with.
    this.leave(this.#isEventStream ? 'cut' : 'drain');
    this.#attempt.discard(cause, usage, this.#isEventStream ? undefined : usage);
  }

  fail(failure: Failure): void {
    if (this.over) return;
    // What its client never got is on nobody's account.
    if (this.committed) this.#attempt.record.used(this.#answer?.usage);
    this.leave('cut');
    const isContinued = this.#delivery !== undefined && this.#delivery.plan.mode !== 'usage';
    const isLost = this.committed && isContinued && isContinuable(failure);
    if (isLost) this.#attempt.record.continued(Result.failed);
    this.#attempt.giveUp(failure, 0);
  }

  handOver(failure: Failure): void {
    const { record } = this.#attempt;
    record.used(this.#answer?.usage);
    this.#delivery?.suspend(record.lastTokenUs);
    this.leave('cut');
    this.#attempt.handOver(failure);
  }

  /** Whoever gets the id of a stored response finds it: it is noted before. */
  #note(): void {
    const id = this.#answer?.id ?? '';
    if (!this.#isUnnoted || id === '') return;
    this.#isUnnoted = false;
    const { slots, responses } = this.services;
    responses.keep(slots.row(this.slot), this.pool.address, id);
  }

  /** It was the option: what is wrong with a request is wrong without it too, and teaches nothing. */
  #learnRefusal(): void {
    const isOfAlways = this.#adds === Asks.usageAlways;
    const { number } = isOfAlways ? errors.CONTINUOUS_USAGE_REFUSED : errors.STREAM_OPTIONS_REFUSED;
    this.pool.refused(this.#adds, nowUs());
    this.services.onMisconfigured(this.pool.address.name, number);
  }

  /** The replica does not go on with the answer. */
  #endContinued(): void {
    this.leave('cut');
    this.#attempt.record.continued(Result.failed);
    this.#attempt.end(failures.continuationRefused);
  }

  // --- the client -------------------------------------------------------------------------------

  onSettled(): void {
    this.#isSettled = true;
    this.#owner.onSettled(this);
    if (this.closed) this.#owner.onDone(this);
  }

  onLost(): void {
    if (!this.over) this.leave('cut');
  }

  onWritten(): void {
    if (!this.paused || this.over) return;
    const { output, writer } = this.#attempt;
    // What is in hand goes first, so the replica is heard again a read at a time.
    if (output.bytes > 0 || this.services.credit.exhausted(output)) {
      writer.starve(output);
      return;
    }
    this.paused = false;
    this.clock.restart(nowUs()); // the silence was the client's
    this.link.resume();
  }

  #shouldPause(): boolean {
    const { committed, output, writer } = this.#attempt;
    if (!committed) return false;
    const { credit } = this.services;
    const waiting = credit.unconsumed(output) + output.bytes;
    return writer.blocked || waiting >= credit.window;
  }
}

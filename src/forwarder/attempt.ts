/**
 * What one attempt has to do with its slot: the client's side of an exchange, or of a share in one.
 * Forwarder threads; never waits.
 *
 * Until `commit` nothing has reached the client: whatever fails ends in dispatched -> resuming and
 * `released`, and the scheduler decides. From there on the slot is streaming and the attempt ends in
 * exactly one settling record, or in a hand-over: streaming -> resuming once its bytes are in the ring.
 * An attempt that goes on behind `earlier` ones sends no head. Two exchanges for one request (a hedge
 * beside the first) run under one lease: the first to begin its answer cuts the other, one that fails
 * leaves the other alone.
 */
import { nowUs } from '../lib/clock.ts';
import { faultPoint } from '../lib/fault-point.ts';
import type { Usage } from '../protocol/completion-observer.ts';
import { HedgeFlag, SlotState } from '../shm/request-slots.layout.ts';
import { attemptOf } from '../shm/request-slots.ts';
import { Outcome } from '../shm/rings.layout.ts';
import type { ExchangeKind } from '../shm/span-records.ts';
import { Result } from '../telemetry/labels.ts';
import { AttemptRecord } from './attempt-record.ts';
import type { AttemptTrace } from './attempt-trace.ts';
import { type AttemptClock, clockOf } from './clocks.ts';
import type { Earlier } from './delivery.ts';
import { type Failure, failures } from './failure.ts';
import { Notice, Output, type OutputOwner } from './output.ts';
import type { ResponseWriter } from './response-writer.ts';
import type { Services } from './services.ts';

export interface AttemptOwner {
  /** The request is no longer with this forwarder. */
  onSettled(): void;
  /** Somebody else settled the slot: nothing of this attempt may be published any more. */
  onLost(): void;
  /** All that could be written for the time being has been. */
  onWritten(): void;
}

export class Attempt implements OutputOwner {
  readonly slot: number;
  readonly lease: number;
  /** Began beside another exchange for the same request. */
  readonly isHedge: boolean;
  readonly output: Output;
  readonly record: AttemptRecord;
  readonly clock: AttemptClock;
  readonly writer: ResponseWriter;
  /** Something of this attempt may have reached the client. */
  committed = false;
  outcome: Outcome = Outcome.ok;
  readonly #owner: AttemptOwner;
  readonly #services: Services;
  readonly #earlier: Earlier | undefined;
  /** The other exchange for the request, while neither has begun its answer. */
  #rival: Attempt | undefined;

  /** `sharers`: attempts that share the exchange. `rival`: the exchange that this one is the hedge of. */
  constructor(
    owner: AttemptOwner,
    services: Services,
    slot: number,
    lease: number,
    trace: AttemptTrace | undefined,
    sharers = 1,
    rival?: Attempt,
    earlier?: Earlier,
  ) {
    const { slots, credit, limits } = services;
    const { words, at } = slots;
    const row = slots.row(slot);
    const us = nowUs();
    const isFirst = earlier === undefined;
    const produced = isFirst ? credit.consumed(row) : (words[row + at.producedBytes] as number);
    words[row + at.sharers] = sharers;
    this.slot = slot;
    this.lease = lease;
    this.isHedge = rival !== undefined;
    this.#rival = rival;
    if (rival !== undefined) rival.#rival = this;
    this.#owner = owner;
    this.#services = services;
    this.#earlier = earlier;
    this.writer = services.writers[words[row + at.acceptor] as number] as ResponseWriter;
    this.output = new Output(this, slot, lease, row, produced);
    this.record = new AttemptRecord(services, slot, us, produced, earlier, trace);
    this.clock = clockOf(slots, slot, limits, us);
  }

  /** Bytes of body that fit in one record with the head. */
  wholeBytesMax(head: Uint8Array): number {
    return Math.min(this.#services.credit.window, this.writer.recordBytesLimit - head.length);
  }

  /** Begins the answer. False: the attempt is over. */
  commit(head: Uint8Array | undefined): boolean {
    const { slots, events } = this.#services;
    const { dispatched, streaming } = SlotState;
    this.#outrun();
    if (!slots.transition(this.slot, this.lease, dispatched, streaming)) {
      this.#lose();
      return false;
    }
    this.committed = true;
    events.started(this, this.record.ageUs(nowUs()));
    if (this.#earlier === undefined) this.output.head = head;
    else this.record.continued(Result.ok);
    this.writer.enqueue(this.output);
    return true;
  }

  emit(bytes: Uint8Array): void {
    this.output.push(bytes);
    this.writer.enqueue(this.output);
  }

  /** The whole answer at once, in place of commit and emit. */
  whole(head: Uint8Array | undefined, body: readonly Uint8Array[]): void {
    this.#outrun();
    for (const bytes of body) this.output.push(bytes);
    this.output.head = head;
    this.output.notice = Notice.whole;
  }

  complete(): void {
    if (this.output.notice === Notice.none) this.output.notice = Notice.end;
    this.writer.enqueue(this.output);
  }

  /** The complete answer of `length` bytes. */
  deliver(head: Uint8Array, body: readonly Uint8Array[], length: number, usage: Usage): void {
    this.record.used(usage);
    if (length <= this.wholeBytesMax(head)) this.whole(head, body);
    else {
      if (!this.commit(head)) return;
      for (const bytes of body) this.output.push(bytes);
    }
    this.complete();
  }

  /** The client has left; the replica's side has been dealt with. */
  abort(): void {
    this.#outrun();
    this.record.cancelled(nowUs());
    this.output.clear();
    this.end(failures.clientGone);
  }

  /** An error for the client when it has a part of the answer, else the request for the scheduler. */
  giveUp(failure: Failure, retryAfterMs: number): void {
    if (this.committed) {
      this.end(failure);
      return;
    }
    if (this.#rival !== undefined) {
      this.#drop(this.#rival, failure, retryAfterMs);
      return;
    }
    this.outcome = failure.outcome;
    this.record.failed(failure.error);
    this.output.withdraw();
    this.output.error = failure.error;
    // No usage: what the client never got is not on its account.
    this.#giveBack(SlotState.dispatched, retryAfterMs, undefined);
  }

  /**
   * The request for the scheduler, for a larger model to answer; `used` as far as it is known, `whole` of a
   * whole reply alone. It speaks for the exchange beside it: both asked the same model.
   */
  discard({ outcome, error }: Failure, used: Usage | undefined, whole: Usage | undefined): void {
    this.#outrun();
    this.outcome = outcome;
    this.record.discarded(used);
    this.record.failed(error);
    this.output.withdraw();
    this.output.error = error;
    this.#giveBack(SlotState.dispatched, 0, whole);
  }

  /** The request for the scheduler, behind the part of the answer that the client has. */
  handOver({ outcome, error }: Failure): void {
    this.outcome = outcome;
    this.record.failed(error);
    this.output.error = error;
    this.output.notice = Notice.handOver;
    this.writer.enqueue(this.output);
  }

  /** Ends an answer that is here and that its client has not taken in time. */
  checkTaken(us: number): void {
    if (this.output.notice === Notice.none || !this.clock.isPastDeadline(us)) return;
    if (this.output.bytes === 0) return;
    this.output.clear();
    this.giveUp(failures.clientDeadline, 0);
  }

  /** The answer ends with an error. */
  end(failure: Failure): void {
    this.outcome = failure.outcome;
    this.record.failed(failure.error);
    if (!this.committed) this.output.withdraw();
    this.output.notice = Notice.end;
    this.output.error = failure.error;
    this.writer.enqueue(this.output);
  }

  // --- the output -------------------------------------------------------------------------------

  completes(position: number): void {
    this.record.complete(this.lease, position);
  }

  claimSettlement(): boolean {
    this.record.ended(nowUs(), this.output.produced);
    this.#endSpan(this.outcome, this.output.error);
    const from = this.committed ? SlotState.streaming : SlotState.dispatched;
    if (this.#services.slots.transition(this.slot, this.lease, from, SlotState.settled))
      return true;
    this.#lose();
    return false;
  }

  settled(): void {
    const { events } = this.#services;
    events.released(this, this.outcome, this.output.error, 0, this.record.usage);
    this.#owner.onSettled();
  }

  handedOver(): void {
    const { words, at } = this.#services.slots;
    words[this.output.row + at.continues] = 1;
    this.#giveBack(SlotState.streaming, 0, this.record.usage);
  }

  written(): void {
    this.#owner.onWritten();
  }

  get #exchange(): ExchangeKind {
    if (this.isHedge) return 'hedge';
    if (this.#earlier !== undefined) return 'continuation';
    return attemptOf(this.lease) > 1 ? 'retry' : 'first';
  }

  /** This exchange is the one that counts: the other one is cut before anything is published. */
  #outrun(): void {
    const rival = this.#rival;
    if (rival === undefined) return;
    this.#part(rival, rival.isHedge);
    this.record.claim();
    rival.#leave(Outcome.cancelled, 0);
  }

  /** This exchange failed and the other one goes on; nobody is told but the scheduler. */
  #drop(rival: Attempt, failure: Failure, retryAfterMs: number): void {
    this.#part(rival, this.isHedge);
    rival.record.claim();
    this.#services.events.dropped(this, failure, retryAfterMs);
    this.#leave(failure.outcome, failure.error);
  }

  /** One of the two is left from here on. */
  #part(rival: Attempt, isHedgeOver: boolean): void {
    const { words, at } = this.#services.slots;
    const flags = this.output.row + at.hedgeFlags;
    words[flags] = (words[flags] as number) | (isHedgeOver ? HedgeFlag.over : HedgeFlag.alone);
    rival.#rival = undefined;
    this.#rival = undefined;
  }

  #giveBack(from: SlotState, retryAfterMs: number, usage: Usage | undefined): void {
    const { slots, events } = this.#services;
    const { slot, lease, error } = this.output;
    this.record.ended(nowUs(), this.output.produced);
    this.#endSpan(this.outcome, error);
    if (!slots.transition(slot, lease, from, SlotState.resuming)) {
      this.#lose();
      return;
    }
    faultPoint('given-back');
    events.released(this, this.outcome, error, retryAfterMs, usage);
    this.#owner.onSettled();
  }

  #lose(): void {
    this.record.conflict();
    this.#leave(this.outcome, this.output.error);
  }

  /** While the slot is still that of the attempt: whoever settles it frees the row. */
  #endSpan(outcome: Outcome, error: number): void {
    this.record.endSpan(this.lease, this.#exchange, outcome, error);
  }

  #leave(outcome: Outcome, error: number): void {
    this.#endSpan(outcome, error);
    this.#owner.onLost();
    this.output.withdraw();
    this.writer.forget(this.output);
    this.#owner.onSettled();
  }
}

/**
 * Executor: turns the brain's decisions into slot states, ring records and metrics.
 *
 * Scheduler thread; never blocks, never allocates. It writes the scheduler's columns of a slot while
 * the slot is queued or resuming, then moves the stamp, then publishes the record. Wakes nobody by
 * itself: ringBells() does, once a batch. If the thread dies between stamp and record, the attempt
 * is published again by its successor; a forwarder takes a start it already runs for what it is. A
 * refusal is in the row before the stamp moves, and the successor tells it again.
 */
import type { Choice } from '../dispatch/choice.ts';
import type { DecisionSink, FallbackList, HedgeResult, Refusal } from '../dispatch/decisions.ts';
import { FallbackReason, Refusal as Reason } from '../dispatch/decisions.ts';
import { errors } from '../errors/catalogue.ts';
import { assert } from '../lib/assert.ts';
import { nowUs } from '../lib/clock.ts';
import { faultPoint } from '../lib/fault-point.ts';
import { ControlLayout, ThreadId, ThreadPhase } from '../shm/control.layout.ts';
import { ring } from '../shm/doorbell.ts';
import { controlCounts, recordRingCapacity, type SharedMemory } from '../shm/memory.ts';
import type { MetricsWriter } from '../shm/metrics.ts';
import { SlotState } from '../shm/request-slots.layout.ts';
import { attemptOf, generationOf, type RequestSlots } from '../shm/request-slots.ts';
import { DispatchKind, DispatchRingLayout, ReplyRingLayout } from '../shm/rings.layout.ts';
import { metrics as catalogue } from '../telemetry/catalogue.ts';
import { Result, Ring, Stage } from '../telemetry/labels.ts';
import { Explainer } from './explainer.ts';
import { moveRow } from './moved-row.ts';
import { Outbox } from './outbox.ts';
import { countPrefix } from './prefix-counts.ts';
import { errorOfRefusal } from './refusals.ts';
import type { ReplicaRows } from './replica-rows.ts';

const createDispatchOutbox = (region: SharedArrayBuffer, capacity: number) =>
  new Outbox(DispatchRingLayout, region, capacity);
const createReplyOutbox = (region: SharedArrayBuffer, capacity: number) =>
  new Outbox(ReplyRingLayout, region, capacity);
type DispatchOutbox = ReturnType<typeof createDispatchOutbox>;
type ReplyOutbox = ReturnType<typeof createReplyOutbox>;

export class Executor implements DecisionSink {
  /** When the brain began to think about what comes next. */
  thinkingSinceUs = 0;
  readonly #slots: RequestSlots;
  readonly #replicas: ReplicaRows;
  readonly #metrics: MetricsWriter;
  readonly #control: Int32Array;
  readonly #explainer: Explainer;
  readonly #forwarders: readonly DispatchOutbox[];
  readonly #acceptors: readonly ReplyOutbox[];
  readonly #forwarderBells: readonly number[];
  readonly #acceptorBells: readonly number[];
  readonly #forwarderPhases: readonly number[];
  /** Attempts running on each forwarder. */
  readonly #running: Int32Array;
  #isBatch = false;
  /** Forwarder of the batch at hand, whose last record is not published yet; -1: none. */
  #batchForwarder = -1;

  constructor(
    memory: SharedMemory,
    slots: RequestSlots,
    replicas: ReplicaRows,
    metrics: MetricsWriter,
  ) {
    const { size } = memory;
    const { thread } = ControlLayout.place(controlCounts(size)).at;
    const bell = (id: number): number => thread.base + id * thread.stride + thread.at.bell;
    const capacity = recordRingCapacity(size);
    this.#slots = slots;
    this.#replicas = replicas;
    this.#metrics = metrics;
    this.#explainer = new Explainer(memory.explain, slots, replicas);
    this.#control = new Int32Array(memory.control);
    this.#forwarders = memory.dispatchRings.map((region) => createDispatchOutbox(region, capacity));
    this.#acceptors = memory.replyRings.map((region) => createReplyOutbox(region, capacity));
    this.#forwarderBells = this.#forwarders.map((_, i) => bell(ThreadId.forwarder(i, size)));
    this.#acceptorBells = this.#acceptors.map((_, i) => bell(ThreadId.acceptor(i)));
    const toPhase = thread.at.phase - thread.at.bell;
    this.#forwarderPhases = this.#forwarderBells.map((word) => word + toPhase);
    this.#running = new Int32Array(size.forwarders);
  }

  placed(slot: number, attempt: number, heldUs: number, choice: Choice): void {
    this.#explainer.placed(slot, attempt, heldUs, choice);
    const { words, at } = this.#slots;
    countPrefix(this.#metrics, words[this.#slots.row(slot) + at.model] as number, choice);
  }

  dispatch(slot: number, attempt: number, replica: number, epoch: number, heldUs: number): void {
    const slots = this.#slots;
    const { words, at } = slots;
    const pickedUs = nowUs();
    faultPoint('picked');
    const row = slots.row(slot);
    const forwarder = this.#forwarderOf(row, attempt);
    words[row + at.replica] = replica;
    words[row + at.replicaEpoch] = epoch;
    words[row + at.forwarder] = forwarder;
    words[row + at.hedgeReplica] = -1;
    words[row + at.hedgeFlags] = 0;
    if (attempt === 1) words[row + at.failedReplicas] = -1;
    if (attempt === 1) words[row + at.pastAttempts] = 0;
    if (attempt === 1) words[row + at.hedges] = 0;
    if (attempt === 1) words[row + at.continues] = 0;
    slots.writeTime(slot, at.pickedUs, pickedUs);
    const dispatchedUs = nowUs();
    slots.writeTime(slot, at.dispatchedUs, dispatchedUs);
    const lease = slots.startAttempt(slot, slots.lease(slot));
    assert(lease >= 0 && attemptOf(lease) === attempt, 'the slot was ours to dispatch');
    faultPoint('dispatched');
    this.#running[forwarder] = (this.#running[forwarder] as number) + 1;
    this.#sendOfBatch(1);
    this.#fill(forwarder, DispatchKind.start, slot, lease, replica, epoch);
    if (this.#isBatch) this.#batchForwarder = forwarder;
    else this.#send(forwarder);
    this.#replicas.countDispatched(replica, words[row + at.adapter] as number, dispatchedUs);
    this.#observe(slot, attempt, replica, heldUs, pickedUs, dispatchedUs);
    this.thinkingSinceUs = dispatchedUs;
  }

  hedge(slot: number, attempt: number, replica: number, epoch: number, choice: Choice): void {
    const { words, at } = this.#slots;
    const row = this.#slots.row(slot);
    this.#explainer.hedged(slot, attempt, choice);
    words[row + at.hedgeReplica] = replica;
    words[row + at.hedgeEpoch] = epoch;
    this.publishHedge(slot);
    this.#replicas.countDispatched(replica, words[row + at.adapter] as number, nowUs());
    this.#metrics.add(catalogue.replicaRequests, replica, 1);
    this.#metrics.add(catalogue.hedges, 0, 1);
  }

  hedgeEnded(_slot: number, result: HedgeResult): void {
    this.#metrics.add(catalogue.hedgesEnded, result, 1);
  }

  dropped(slot: number, replica: number): void {
    this.#noteFailed(slot, replica);
  }

  batchBegins(): void {
    this.#isBatch = true;
  }

  batchEnds(): void {
    this.#sendOfBatch(0);
    this.#isBatch = false;
    this.#batchForwarder = -1;
  }

  refuse(slot: number, refusal: Refusal, error: number, retryAfterMs: number): void {
    const slots = this.#slots;
    const { words, at } = slots;
    const row = slots.row(slot);
    const lease = slots.lease(slot);
    const from = slots.state(slot);
    assert(from === SlotState.queued || from === SlotState.resuming, 'the slot is ours to settle');
    const number = errorOfRefusal(refusal, error, attemptOf(lease));
    // It speaks of all replicas of the model, and only one could have served.
    const isOfPin = number === errors.NO_REPLICA.number && words[row + at.pin] !== 0;
    words[row + at.refusedError] = isOfPin ? errors.RESPONSE_UNAVAILABLE.number : number;
    words[row + at.refusedRetryMs] = retryAfterMs;
    words[row + at.refused] = lease;
    if (!slots.transition(slot, lease, from, SlotState.settled)) {
      this.#metrics.add(catalogue.settleConflicts, 0, 1);
      return;
    }
    this.reply(slot, lease);
    if (attemptOf(lease) > 0 && slots.isContinued(slot)) {
      const model = words[row + at.model] as number;
      this.#metrics.addPair(catalogue.streamContinuations, model, Result.failed, 1);
    }
    if (refusal === Reason.clientGone) {
      const goneUs = slots.readTime(slot, at.clientGoneUs);
      if (goneUs > 0) this.#metrics.observe(catalogue.cancel, 0, nowUs() - goneUs);
    } else this.#metrics.add(catalogue.schedulerDropped, 0, 1);
  }

  /** Tells the acceptor of a refusal as the row has it; once more is harmless. */
  reply(slot: number, lease: number): void {
    const { words, at } = this.#slots;
    const row = this.#slots.row(slot);
    const outbox = this.#acceptors[words[row + at.acceptor] as number];
    assert(outbox !== undefined, 'the acceptor exists');
    const { record } = outbox;
    record[0] = slot;
    record[1] = lease;
    record[2] = words[row + at.refusedError] as number;
    record[3] = words[row + at.refusedRetryMs] as number;
    if (!outbox.send()) this.#metrics.add(catalogue.ringFull, Ring.reply, 1);
  }

  fellBack(slot: number, from: number, to: FallbackList[number], reason: FallbackReason): void {
    const { refusal, lowConfidence } = FallbackReason;
    moveRow(this.#slots, slot, to, reason === refusal || reason === lowConfidence);
    this.#metrics.addPair(catalogue.fallbacks, from, reason, 1);
  }

  mayGoOn(slot: number, goOn: number): void {
    this.#slots.words[this.#slots.row(slot) + this.#slots.at.goOn] = goOn;
  }

  followed(slot: number, replica: number, epoch: number): void {
    const { words, at } = this.#slots;
    words[this.#slots.row(slot) + at.pin] = replica + 1;
    words[this.#slots.row(slot) + at.pinEpoch] = epoch;
  }

  admitted(slot: number, inputTokens: number, outputTokens: number, isLeased: boolean): void {
    const { words, at } = this.#slots;
    const row = this.#slots.row(slot);
    words[row + at.limitInput] = inputTokens;
    words[row + at.limitOutput] = outputTokens;
    words[row + at.limitLeased] = isLeased ? 1 : 0;
    words[row + at.limitedAs] = generationOf(this.#slots.lease(slot)) + 1;
  }

  settledLimits(slot: number): void {
    this.#slots.words[this.#slots.row(slot) + this.#slots.at.limitedAs] = 0;
  }

  abort(slot: number): void {
    this.#publishCurrent(DispatchKind.abort, slot);
  }

  attemptEnded(slot: number): void {
    const { words, at } = this.#slots;
    // Still of the attempt that ends: only dispatch() writes it.
    const forwarder = words[this.#slots.row(slot) + at.forwarder] as number;
    const running = (this.#running[forwarder] as number) - 1;
    assert(running >= 0, 'what ends was started');
    this.#running[forwarder] = running;
  }

  retry(slot: number, replica: number): void {
    this.#noteFailed(slot, replica);
    this.#metrics.add(catalogue.replicaRetries, replica, 1);
  }

  /** Counts an attempt that the predecessor of this thread had given to the forwarder. */
  restore(slot: number): void {
    const { words, at } = this.#slots;
    const forwarder = words[this.#slots.row(slot) + at.forwarder] as number;
    this.#running[forwarder] = (this.#running[forwarder] as number) + 1;
  }

  /** Publishes the current attempt once more. */
  republish(slot: number): void {
    this.#publishCurrent(DispatchKind.start, slot);
  }

  /** Publishes the hedge of the current attempt; the forwarder takes it once, or finds it late. */
  publishHedge(slot: number): void {
    const { words, at } = this.#slots;
    const row = this.#slots.row(slot);
    const forwarder = words[row + at.forwarder] as number;
    const replica = words[row + at.hedgeReplica] as number;
    const epoch = words[row + at.hedgeEpoch] as number;
    this.#fill(forwarder, DispatchKind.hedge, slot, this.#slots.lease(slot), replica, epoch);
    this.#send(forwarder);
  }

  /** Publishes what did not fit before. */
  flush(): void {
    for (const outbox of this.#forwarders) outbox.flush();
    for (const outbox of this.#acceptors) outbox.flush();
  }

  /** Something waits for room in a ring. */
  get isBacklogged(): boolean {
    for (const { waiting } of this.#forwarders) if (waiting > 0) return true;
    for (const { waiting } of this.#acceptors) if (waiting > 0) return true;
    return false;
  }

  /** Wakes every thread that was given something since the last call. */
  ringBells(): void {
    wake(this.#control, this.#forwarders, this.#forwarderBells);
    wake(this.#control, this.#acceptors, this.#acceptorBells);
  }

  #noteFailed(slot: number, replica: number): void {
    const { words, at } = this.#slots;
    const list = this.#slots.row(slot) + at.failedReplicas;
    words.copyWithin(list + 1, list, list + 3);
    words[list] = replica;
  }

  /** A record about the attempt that runs, as its row names it. */
  #publishCurrent(kind: DispatchKind, slot: number): void {
    const { words, at } = this.#slots;
    const row = this.#slots.row(slot);
    const forwarder = words[row + at.forwarder] as number;
    const replica = words[row + at.replica] as number;
    const epoch = words[row + at.replicaEpoch] as number;
    this.#fill(forwarder, kind, slot, this.#slots.lease(slot), replica, epoch);
    this.#send(forwarder);
  }

  /** Publishes the last record of the batch at hand: `more` follow or none. */
  #sendOfBatch(more: number): void {
    if (this.#batchForwarder < 0) return;
    this.#outboxOf(this.#batchForwarder).record[5] = more;
    this.#send(this.#batchForwarder);
  }

  #outboxOf(forwarder: number): DispatchOutbox {
    const outbox = this.#forwarders[forwarder];
    assert(outbox !== undefined, 'the forwarder exists');
    return outbox;
  }

  #send(forwarder: number): void {
    if (!this.#outboxOf(forwarder).send()) this.#metrics.add(catalogue.ringFull, Ring.dispatch, 1);
  }

  #fill(
    forwarder: number,
    kind: DispatchKind,
    slot: number,
    lease: number,
    replica: number,
    epoch: number,
  ): void {
    const { record } = this.#outboxOf(forwarder);
    record[0] = kind;
    record[1] = slot;
    record[2] = lease;
    record[3] = replica;
    record[4] = epoch;
    record[5] = 0;
  }

  #observe(
    slot: number,
    attempt: number,
    replica: number,
    heldUs: number,
    pickedUs: number,
    dispatchedUs: number,
  ): void {
    const metrics = this.#metrics;
    const { words, at } = this.#slots;
    metrics.observe(catalogue.decision, 0, pickedUs - this.thinkingSinceUs);
    metrics.add(catalogue.schedulerDispatched, 0, 1);
    metrics.add(catalogue.replicaRequests, replica, 1);
    if (attempt > 1) return;
    const model = words[this.#slots.row(slot) + at.model] as number;
    metrics.observe(catalogue.queueTime, model, heldUs);
    if (heldUs > 0) return;
    const publishedUs = this.#slots.readTime(slot, at.publishedUs);
    const queuedUs = this.#slots.readTime(slot, at.queuedUs);
    metrics.observe(catalogue.schedulingLatency, 0, dispatchedUs - publishedUs);
    metrics.observe(catalogue.overhead, Stage.queue, queuedUs - publishedUs);
    metrics.observe(catalogue.overhead, Stage.select, dispatchedUs - queuedUs);
  }

  /** What a stream needs to be continued is with the forwarder that began it. */
  #forwarderOf(row: number, attempt: number): number {
    if (this.#batchForwarder >= 0) return this.#batchForwarder;
    const { words, at } = this.#slots;
    const isPinned = attempt > 1 && words[row + at.continues] === 1;
    return isPinned ? (words[row + at.forwarder] as number) : this.#leastBusyForwarder();
  }

  /** Of those that serve; of all while none does, because who dispatches cannot wait for one. */
  #leastBusyForwarder(): number {
    const running = this.#running;
    let best = 0;
    for (let i = 1; i < running.length; i++) {
      const isIdler = (running[i] as number) < (running[best] as number);
      const serves = this.#serves(i);
      if (serves === this.#serves(best) ? isIdler : serves) best = i;
    }
    return best;
  }

  #serves(forwarder: number): boolean {
    return this.#control[this.#forwarderPhases[forwarder] as number] === ThreadPhase.running;
  }
}

function wake(
  control: Int32Array,
  outboxes: readonly { published: number }[],
  bells: readonly number[],
): void {
  for (let i = 0; i < outboxes.length; i++) {
    const outbox = outboxes[i] as { published: number };
    if (outbox.published === 0) continue;
    outbox.published = 0;
    ring(control, bells[i] as number);
  }
}

/**
 * What the brain remembers of each request, as columns indexed by slot. Pure.
 *
 * A slot is known under one generation at a time; the phase says who waits for whom. Everything is
 * allocated once. What an exchange with a replica holds has two places: that of the slot itself, and
 * hedgeOf(slot) for the one beside it.
 */
import { moveHashes } from '../lib/adapter-salt.ts';
import { assert } from '../lib/assert.ts';
import type { Arrival } from './arrival.ts';
import { NONE } from './candidates.ts';
import type { FallbackList } from './decisions.ts';
import { reachOfPin } from './reaches.ts';

/**
 * idle: not ours. waiting, retrying: in a lane, for a replica. running: a replica has an attempt.
 * gathering: in a batch, for others like it. asking: for the store that knows the limits of its tenant.
 * moving: on its way to another model.
 */
export const Phase = {
  idle: 0,
  waiting: 1,
  retrying: 2,
  running: 3,
  gathering: 4,
  asking: 5,
  moving: 6,
} as const;
export type Phase = (typeof Phase)[keyof typeof Phase];

/**
 * running: a hedge runs beside the first exchange. used: one has run, or is all that is left; or the
 * client has a part of the answer, behind which one exchange goes on.
 */
export const HedgeState = { none: 0, running: 1, used: 2 } as const;
export type HedgeState = (typeof HedgeState)[keyof typeof HedgeState];

/** Failed replicas remembered of one request; the newest are kept. */
const failedMax = 4;

/** What an attempt costs its replica, and what its answer is expected to have. */
export interface AttemptCost {
  readonly pendingTokens: number;
  readonly contextTokens: number;
  readonly outputTokens: number;
}

export class Requests {
  readonly phase: Uint8Array;
  readonly generation: Int32Array;
  /** Attempts started. */
  readonly attempt: Uint8Array;
  readonly model: Int32Array;
  /** By place: replica of the current attempt, and the epoch it was picked under. */
  readonly replica: Int32Array;
  readonly epoch: Int32Array;
  /** By place: term of the replica's breaker in which the current attempt began. */
  readonly term: Int32Array;
  readonly deadlineUs: Float64Array;
  /** When the current attempt began; 0: under an earlier brain. */
  readonly startedUs: Float64Array;
  /** Since when it waits, and how long it had waited before. */
  readonly waitingSinceUs: Float64Array;
  readonly waitedUs: Float64Array;
  /** 1 once a retry is counted in the retry budget. */
  readonly retried: Uint8Array;
  /** Attempts that do not count any more: at another model, or with a batch that was refused. */
  readonly pastAttempts: Uint8Array;
  readonly hedge: Uint8Array;
  /** When the client wants a hedge, after the attempt has begun; below 0: it does not ask for one. */
  readonly hedgeUs: Float64Array;
  /** 1 once the client has left while an attempt was running. */
  readonly cancelled: Uint8Array;
  /** Error number of the last failed attempt. */
  readonly lastError: Int32Array;
  readonly promptBytes: Int32Array;
  /** Bytes that its tokens are of; 0: not all of them are of bytes. */
  readonly learntBytes: Int32Array;
  readonly promptTokens: Int32Array;
  readonly maxTokens: Int32Array;
  readonly priority: Int8Array;
  readonly tenant: Int32Array;
  /** Adapter of its model; 0 for none. */
  readonly adapter: Int32Array;
  /** Row of the only replica that can serve it, and its epoch; NONE: any can. */
  readonly pin: Int32Array;
  readonly pinEpoch: Int32Array;
  /** 1: the replica says when the first token is out. */
  readonly streams: Uint8Array;
  /** Pairs of int32. */
  readonly session: Int32Array;
  readonly head: Int32Array;
  /** By place, of the current attempt: prompt tokens still to be prefilled, and those it keeps resident. */
  readonly pendingTokens: Int32Array;
  readonly contextTokens: Int32Array;
  /** Output its tenant was charged for. */
  readonly outputTokens: Int32Array;
  readonly #failed: Int32Array;
  readonly #failedCount: Uint8Array;

  constructor(slots: number) {
    this.phase = new Uint8Array(slots);
    this.generation = new Int32Array(slots);
    this.attempt = new Uint8Array(slots);
    this.model = new Int32Array(slots);
    this.replica = new Int32Array(2 * slots);
    this.epoch = new Int32Array(2 * slots);
    this.term = new Int32Array(2 * slots);
    this.hedge = new Uint8Array(slots);
    this.hedgeUs = new Float64Array(slots);
    this.deadlineUs = new Float64Array(slots);
    this.startedUs = new Float64Array(slots);
    this.waitingSinceUs = new Float64Array(slots);
    this.waitedUs = new Float64Array(slots);
    this.retried = new Uint8Array(slots);
    this.pastAttempts = new Uint8Array(slots);
    this.cancelled = new Uint8Array(slots);
    this.lastError = new Int32Array(slots);
    this.promptBytes = new Int32Array(slots);
    this.learntBytes = new Int32Array(slots);
    this.promptTokens = new Int32Array(slots);
    this.maxTokens = new Int32Array(slots);
    this.priority = new Int8Array(slots);
    this.tenant = new Int32Array(slots);
    this.adapter = new Int32Array(slots);
    this.pin = new Int32Array(slots).fill(NONE);
    this.pinEpoch = new Int32Array(slots);
    this.streams = new Uint8Array(slots);
    this.session = new Int32Array(2 * slots);
    this.head = new Int32Array(2 * slots);
    this.pendingTokens = new Int32Array(2 * slots);
    this.contextTokens = new Int32Array(2 * slots);
    this.outputTokens = new Int32Array(slots);
    this.#failed = new Int32Array(slots * failedMax);
    this.#failedCount = new Uint8Array(slots);
  }

  /** A request enters under a generation the brain has not seen, after `attempts` elsewhere. */
  open(arrival: Arrival, promptTokens: number, attempts = 0): void {
    const { slot } = arrival;
    assert(this.phase[slot] === Phase.idle, 'a slot serves one request at a time');
    this.generation[slot] = arrival.generation;
    this.attempt[slot] = attempts;
    this.model[slot] = arrival.model;
    this.deadlineUs[slot] = arrival.deadlineUs;
    this.startedUs[slot] = 0;
    this.waitingSinceUs[slot] = arrival.publishedUs;
    this.waitedUs[slot] = 0;
    this.retried[slot] = 0;
    this.pastAttempts[slot] = attempts;
    this.cancelled[slot] = 0;
    this.hedge[slot] = HedgeState.none;
    this.hedgeUs[slot] = arrival.hedgeUs;
    this.lastError[slot] = 0;
    this.promptBytes[slot] = arrival.promptBytes;
    this.learntBytes[slot] = arrival.readsMore ? 0 : arrival.textBytes;
    this.promptTokens[slot] = promptTokens;
    this.maxTokens[slot] = arrival.maxTokens;
    this.priority[slot] = arrival.priority;
    this.tenant[slot] = arrival.tenant;
    this.adapter[slot] = arrival.adapter;
    this.pin[slot] = arrival.pin;
    this.pinEpoch[slot] = arrival.pinEpoch;
    this.streams[slot] = arrival.streams ? 1 : 0;
    this.session[2 * slot] = arrival.session0;
    this.session[2 * slot + 1] = arrival.session1;
    this.head[2 * slot] = arrival.head0;
    this.head[2 * slot + 1] = arrival.head1;
    this.pendingTokens[slot] = 0;
    this.contextTokens[slot] = 0;
    this.outputTokens[slot] = 0;
    this.#failedCount[slot] = 0;
  }

  /** The request goes on at another model, whose replicas have not failed it. */
  moveTo(slot: number, { model, adapter }: FallbackList[number]): void {
    assert(this.phase[slot] === Phase.idle, 'it neither waits nor runs');
    moveHashes(this.head, 2 * slot, 2, this.adapter[slot] as number, adapter);
    this.model[slot] = model;
    this.adapter[slot] = adapter;
    this.pastAttempts[slot] = this.attempt[slot] as number;
    this.forgiveAll(slot);
  }

  /** An attempt of the request starts. */
  begin(slot: number, attempt: number, replica: number, epoch: number, cost: AttemptCost): void {
    assert(this.phase[slot] === Phase.idle, 'one attempt of a request at a time');
    this.phase[slot] = Phase.running;
    this.attempt[slot] = attempt;
    this.outputTokens[slot] = cost.outputTokens;
    this.#hold(slot, replica, epoch, cost);
  }

  /** How long it has waited, by now over, for its first attempt; 0 once it has had one. */
  heldUs(slot: number): number {
    return this.attempt[slot] === 0 ? (this.waitedUs[slot] as number) : 0;
  }

  /** A second exchange of the attempt starts. */
  beginHedge(slot: number, replica: number, epoch: number, cost: AttemptCost): void {
    assert(this.phase[slot] === Phase.running, 'a hedge runs beside an attempt');
    assert(this.hedge[slot] === HedgeState.none, 'one hedge of a request');
    this.hedge[slot] = HedgeState.running;
    this.#hold(this.hedgeOf(slot), replica, epoch, cost);
  }

  /** The hedge is all that is left of the attempt: it takes the place of the slot itself. */
  moveHedge(slot: number): void {
    const from = this.hedgeOf(slot);
    this.replica[slot] = this.replica[from] as number;
    this.epoch[slot] = this.epoch[from] as number;
    this.term[slot] = this.term[from] as number;
    this.pendingTokens[slot] = this.pendingTokens[from] as number;
    this.contextTokens[slot] = this.contextTokens[from] as number;
  }

  get slots(): number {
    return this.phase.length;
  }

  hedgeOf(slot: number): number {
    return this.slots + slot;
  }

  slotOf(place: number): number {
    return place < this.slots ? place : place - this.slots;
  }

  /** An exchange of that place runs. */
  holds(place: number): boolean {
    if (place < this.slots) return this.phase[place] === Phase.running;
    return this.hedge[place - this.slots] === HedgeState.running;
  }

  #hold(place: number, replica: number, epoch: number, cost: AttemptCost): void {
    this.replica[place] = replica;
    this.epoch[place] = epoch;
    this.pendingTokens[place] = cost.pendingTokens;
    this.contextTokens[place] = cost.contextTokens;
  }

  countRunning(): number {
    return count(this.phase, Phase.running);
  }

  assertPhase(phase: Phase, requests: number): void {
    assert(count(this.phase, phase) === requests, 'who is in a phase is counted there');
  }

  countHedges(): number {
    return count(this.hedge, HedgeState.running);
  }

  /** Which replicas of its model it can use (reaches.ts). */
  reachOf(slot: number): number {
    const pin = this.pin[slot] as number;
    const adapter = this.adapter[slot] as number;
    return pin === NONE ? adapter : reachOfPin(pin, adapter);
  }

  isRunning(slot: number, generation: number, attempt: number): boolean {
    return (
      this.phase[slot] === Phase.running &&
      this.generation[slot] === generation &&
      this.attempt[slot] === attempt
    );
  }

  failedCount(slot: number): number {
    return this.#failedCount[slot] as number;
  }

  hasFailed(slot: number, replica: number): boolean {
    const first = slot * failedMax;
    for (let i = 0; i < this.failedCount(slot); i++) {
      if (this.#failed[first + i] === replica) return true;
    }
    return false;
  }

  addFailed(slot: number, replica: number): void {
    const first = slot * failedMax;
    this.#failed.copyWithin(first + 1, first, first + failedMax - 1);
    this.#failed[first] = replica;
    this.#failedCount[slot] = Math.min(this.failedCount(slot) + 1, failedMax);
  }

  /** Every replica may be asked again. */
  forgiveAll(slot: number): void {
    this.#failedCount[slot] = 0;
  }
}

function count(states: Uint8Array, wanted: number): number {
  let found = 0;
  for (const state of states) if (state === wanted) found++;
  return found;
}

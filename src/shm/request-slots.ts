/**
 * The slot table in use: claims, transitions, leases.
 *
 * Every change of a stamp goes through `claim`, `transition`, `startAttempt` or `free`, so that the
 * table of request-slots.layout.ts holds by construction; a lost compare-exchange is a return value,
 * because abort and end may both arrive. Reading a column is safe for anybody once the message that
 * names the slot was acquired from a ring.
 */
import { assert } from '../lib/assert.ts';
import {
  attemptBits,
  attemptsLimit,
  HedgeFlag,
  RequestSlotsLayout,
  SlotState,
  slotStates,
  stateBits,
} from './request-slots.layout.ts';

const stateMask = (1 << stateBits) - 1;
const attemptMask = attemptsLimit - 1;
const allowed: readonly (readonly boolean[])[] = Object.values(SlotState).map((from) => {
  const rule = Object.values(slotStates)[from]!;
  return Object.values(SlotState).map((to) => rule.next.includes(to));
});

export const stateOf = (stamp: number): SlotState => (stamp & stateMask) as SlotState;
export const leaseOf = (stamp: number): number => stamp >>> stateBits;
export const attemptOf = (lease: number): number => lease & attemptMask;
export const generationOf = (lease: number): number => lease >>> attemptBits;
const stampFor = (lease: number, state: SlotState): number => (lease << stateBits) | state;

export function createRequestSlots(count: number): SharedArrayBuffer {
  return RequestSlotsLayout.create({ slot: count });
}

export class RequestSlots {
  readonly count: number;
  /** int32 columns: `words[row(slot) + at.model]`. */
  readonly words: Int32Array;
  /** f64 columns: `floats[(row(slot) + at.arrivedUs) / 2]`, or readTime / writeTime. */
  readonly floats: Float64Array;
  readonly at: ReturnType<typeof RequestSlotsLayout.place>['at']['slot']['at'];
  readonly #base: number;
  readonly #stride: number;

  constructor(region: SharedArrayBuffer, count: number) {
    const { at } = RequestSlotsLayout.attach(region, { slot: count });
    this.count = count;
    this.words = new Int32Array(region);
    this.floats = new Float64Array(region);
    this.at = at.slot.at;
    this.#base = at.slot.base;
    this.#stride = at.slot.stride;
    assert(at.slot.at.stamp === 0, 'the stamp opens the row');
  }

  /** Int32 index of the row. */
  row(slot: number): number {
    assert(slot >= 0 && slot < this.count, 'slot is in the table');
    return this.#base + slot * this.#stride;
  }

  stamp(slot: number): number {
    return Atomics.load(this.words, this.row(slot));
  }

  state(slot: number): SlotState {
    return stateOf(this.stamp(slot));
  }

  lease(slot: number): number {
    return leaseOf(this.stamp(slot));
  }

  /** Whether a message written under `lease` is still about the current attempt of the slot. */
  holds(slot: number, lease: number): boolean {
    return this.lease(slot) === lease;
  }

  readTime(slot: number, field: number): number {
    return this.floats[(this.row(slot) + field) / 2]!;
  }

  writeTime(slot: number, field: number, us: number): void {
    this.floats[(this.row(slot) + field) / 2] = us;
  }

  /** When the request must be over: its own limit counts as far as it is below `totalUs`. */
  deadlineUs(slot: number, totalUs: number): number {
    const ownMs = this.words[this.row(slot) + this.at.deadlineMs]!;
    const limitUs = ownMs > 0 ? Math.min(ownMs * 1000, totalUs) : totalUs;
    return this.readTime(slot, this.at.arrivedUs) + limitUs;
  }

  /** The hedge of the current attempt answers, or is all that is left of it. */
  isHedgeAlone(slot: number): boolean {
    return (this.words[this.row(slot) + this.at.hedgeFlags]! & HedgeFlag.alone) !== 0;
  }

  /** The client has a part of the answer, of an attempt before the current one or of one that broke. */
  isContinued(slot: number): boolean {
    return this.words[this.row(slot) + this.at.continues] === 1;
  }

  /** Row of the replica whose answer or failure the current attempt ends with. */
  servingReplica(slot: number): number {
    const { hedgeReplica, replica } = this.at;
    return this.words[this.row(slot) + (this.isHedgeAlone(slot) ? hedgeReplica : replica)]!;
  }

  /** Replicas the request was sent to; 0 when it was sent nowhere. */
  attempts(slot: number): number {
    const attempts = attemptOf(this.lease(slot));
    return attempts === 0 ? 0 : attempts + this.words[this.row(slot) + this.at.hedges]!;
  }

  /** Acceptor: free -> reading under a new generation, attempt 0. Returns the lease. */
  claim(slot: number): number {
    const stamp = this.stamp(slot);
    assert(stateOf(stamp) === SlotState.free, 'only a free slot is claimed');
    const lease = ((((stamp >>> stateBits) >>> attemptBits) + 1) << attemptBits) & 0x1fffffff;
    Atomics.store(this.words, this.row(slot), stampFor(lease, SlotState.reading));
    return lease;
  }

  /**
   * Owner of `from`: moves the slot to `to`. False when the slot is no longer in that state under
   * that lease; the caller then changes nothing.
   */
  transition(slot: number, lease: number, from: SlotState, to: SlotState): boolean {
    assert(allowed[from]![to]!, 'the state table allows the move');
    const expected = stampFor(lease, from);
    return (
      Atomics.compareExchange(this.words, this.row(slot), expected, stampFor(lease, to)) ===
      expected
    );
  }

  /** Scheduler: queued or resuming -> dispatched under the next attempt. The new lease, or -1. */
  startAttempt(slot: number, lease: number): number {
    const from = this.state(slot);
    if (from !== SlotState.queued && from !== SlotState.resuming) return -1;
    assert(attemptOf(lease) + 1 < attemptsLimit, 'attempts of one request are bounded');
    const expected = stampFor(lease, from);
    const stamp = stampFor(lease + 1, SlotState.dispatched);
    const row = this.row(slot);
    return Atomics.compareExchange(this.words, row, expected, stamp) === expected ? lease + 1 : -1;
  }
}

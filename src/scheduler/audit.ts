/**
 * Audit: compares what the brain counts with what the slot table says, slot by slot, once a second.
 *
 * Scheduler thread; never blocks. A pass is spread over its second, so that no request waits for
 * 8192 rows to be read. A slot that differs under the same lease in two passes in a row is a leak:
 * the end of its attempt was never told. It is counted and repaired through the same path as any
 * other end, whose guards make a late message harmless; nothing is clamped. Attempts of a forwarder that
 * is dead or silent are left to its successor, which tells of all their ends (forwarder/take-over.ts).
 */
import type { Brain } from '../dispatch/brain.ts';
import { NONE } from '../dispatch/candidates.ts';
import { SlotState } from '../shm/request-slots.layout.ts';
import { leaseOf, type RequestSlots, stateOf } from '../shm/request-slots.ts';
import { leaseFor } from './lease.ts';
import { lostEnd } from './lost-end.ts';

const passUs = 1_000_000;
const stepSlotsMax = 512;

export class Audit {
  readonly #slots: RequestSlots;
  readonly #brain: Brain;
  readonly #isAway: (slot: number) => boolean;
  readonly #onLeak: () => void;
  /** Lease under which a slot differed in the last pass; 0 for none. */
  readonly #suspect: Int32Array;
  #next = 0;
  #passStartUs: number;

  /** `isAway`: the forwarder of the slot's attempt is dead or silent. */
  constructor(
    slots: RequestSlots,
    brain: Brain,
    nowUs: number,
    isAway: (slot: number) => boolean,
    onLeak: () => void,
  ) {
    this.#slots = slots;
    this.#brain = brain;
    this.#isAway = isAway;
    this.#onLeak = onLeak;
    this.#suspect = new Int32Array(slots.count);
    this.#passStartUs = nowUs;
  }

  /** Examines the share of the slots that is due. */
  step(nowUs: number): void {
    const share = (nowUs - this.#passStartUs) / passUs;
    const due = Math.min(this.#slots.count, Math.floor(share * this.#slots.count));
    const end = Math.min(due, this.#next + stepSlotsMax);
    for (; this.#next < end; this.#next++) this.#examine(this.#next, nowUs);
    if (this.#next < this.#slots.count) return;
    this.#brain.assertExact();
    this.#next = 0;
    this.#passStartUs = nowUs;
  }

  #examine(slot: number, nowUs: number): void {
    const stamp = this.#slots.stamp(slot);
    const state = stateOf(stamp);
    const attempt = this.#brain.runningAttempt(slot);
    const told = leaseOf(stamp);
    const isHeld = state === SlotState.dispatched || state === SlotState.streaming;
    const counted = attempt === NONE ? 0 : leaseFor(this.#brain.generation(slot), attempt);
    if ((isHeld ? counted === told : counted === 0) || this.#isAway(slot)) {
      this.#suspect[slot] = 0;
      return;
    }
    const lease = counted === 0 ? told : counted;
    if (this.#suspect[slot] !== lease) {
      this.#suspect[slot] = lease;
      return;
    }
    this.#suspect[slot] = 0;
    this.#onLeak();
    if (counted === 0) return;
    const isResuming = state === SlotState.resuming && counted === told;
    this.#brain.release(lostEnd(this.#slots, slot, lease, !isResuming), nowUs);
  }
}

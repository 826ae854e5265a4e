/**
 * Rebuild: what a scheduler that takes over from a dead one does before its first event.
 *
 * Scheduler thread. The slot table is the truth. Running attempts are counted again and published
 * again where no byte of an answer exists yet (the record may have died with the predecessor; a
 * forwarder that runs the attempt drops it), their hedges likewise. Attempts that had ended are decided, waiting requests
 * queue again in the order in which they were published. What the rings still hold is then late or
 * new, and is told apart by generation and attempt like any other message.
 */
import type { Brain } from '../dispatch/brain.ts';
import { Refusal } from '../dispatch/decisions.ts';
import { HedgeFlag, SlotState } from '../shm/request-slots.layout.ts';
import { attemptOf, generationOf, type RequestSlots } from '../shm/request-slots.ts';
import { createArrival, readArrival } from './arrivals.ts';
import type { Executor } from './executor.ts';
import { lostEnd } from './lost-end.ts';

export type DeadlineOf = (slot: number) => number;

export function rebuild(
  slots: RequestSlots,
  brain: Brain,
  executor: Executor,
  deadlineOf: DeadlineOf,
  nowUs: number,
): void {
  const queued: number[] = [];
  const resuming: number[] = [];
  for (let slot = 0; slot < slots.count; slot++) {
    const state = slots.state(slot);
    if (state === SlotState.queued) queued.push(slot);
    if (state === SlotState.resuming) resuming.push(slot);
    const isRunning = state === SlotState.dispatched || state === SlotState.streaming;
    if (isRunning || state === SlotState.resuming) {
      const runsHedge = restore(slots, brain, executor, deadlineOf, slot);
      if (state === SlotState.dispatched) executor.republish(slot);
      if (runsHedge) executor.publishHedge(slot);
    }
    if (isRunning && isClientGone(slots, slot)) brain.cancel(slot, generation(slots, slot), nowUs);
  }
  for (const slot of resuming) {
    brain.release(lostEnd(slots, slot, slots.lease(slot), false), nowUs);
  }
  const publishedUs = (slot: number): number => slots.readTime(slot, slots.at.publishedUs);
  queued.sort((a, b) => publishedUs(a) - publishedUs(b));
  for (const slot of queued) {
    if (isClientGone(slots, slot)) executor.refuse(slot, Refusal.clientGone, 0, 0);
    else brain.arrive(readArrival(slots, slot, deadlineOf(slot), createArrival()), nowUs);
  }
}

const generation = (slots: RequestSlots, slot: number): number => generationOf(slots.lease(slot));
const isClientGone = (slots: RequestSlots, slot: number): boolean =>
  Atomics.load(slots.words, slots.row(slot) + slots.at.clientGone) === 1;

/** True when a hedge runs beside the first exchange, or is about to. */
function restore(
  slots: RequestSlots,
  brain: Brain,
  executor: Executor,
  deadlineOf: DeadlineOf,
  slot: number,
): boolean {
  const { words, at } = slots;
  const row = slots.row(slot);
  const isDispatched = slots.state(slot) === SlotState.dispatched;
  const flags = words[row + at.hedgeFlags] as number; // once: the forwarder writes on
  const lease = slots.lease(slot);
  const list = words.subarray(row + at.failedReplicas, row + at.failedReplicas + 4);
  const end = list.indexOf(-1);
  const ofHedge = {
    replica: words[row + at.hedgeReplica] as number,
    epoch: words[row + at.hedgeEpoch] as number,
  };
  const ofFirst = {
    replica: words[row + at.replica] as number,
    epoch: words[row + at.replicaEpoch] as number,
  };
  // The forwarder may not have read of it: the predecessor died with the record.
  const isDecided = (flags & (HedgeFlag.over | HedgeFlag.alone)) !== 0;
  const areTwo = isDispatched && ofHedge.replica >= 0 && !isDecided;
  brain.restore({
    arrival: readArrival(slots, slot, deadlineOf(slot), createArrival()),
    attempt: attemptOf(lease),
    ...((flags & HedgeFlag.alone) === 0 ? ofFirst : ofHedge),
    hasToken: !isDispatched,
    hedge: areTwo ? ofHedge : undefined,
    isHedgeUsed: ofHedge.replica >= 0 || (words[row + at.hedges] as number) > 0,
    failed: [...(end < 0 ? list : list.subarray(0, end))],
  });
  executor.restore(slot);
  return areTwo;
}

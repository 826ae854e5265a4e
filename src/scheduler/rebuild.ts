/**
 * Rebuild: what a scheduler that takes over from a dead one does before its first event.
 *
 * Scheduler thread. The slot table is the truth. Running attempts are counted again and published
 * again where no byte of an answer exists yet (the record may have died with the predecessor; a
 * forwarder that runs the attempt drops it). Attempts that had ended are decided, waiting requests
 * queue again in the order in which they were published. What the rings still hold is then late or
 * new, and is told apart by generation and attempt like any other message.
 */
import type { Brain } from '../dispatch/brain.ts';
import { Refusal } from '../dispatch/decisions.ts';
import { SlotState } from '../shm/request-slots.layout.ts';
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
    if (isRunning || state === SlotState.resuming)
      restore(slots, brain, executor, deadlineOf, slot);
    if (state === SlotState.dispatched) executor.republish(slot);
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

function restore(
  slots: RequestSlots,
  brain: Brain,
  executor: Executor,
  deadlineOf: DeadlineOf,
  slot: number,
): void {
  const { words, at } = slots;
  const row = slots.row(slot);
  const lease = slots.lease(slot);
  const list = words.subarray(row + at.failedReplicas, row + at.failedReplicas + 4);
  const end = list.indexOf(-1);
  brain.restore({
    arrival: readArrival(slots, slot, deadlineOf(slot), createArrival()),
    attempt: attemptOf(lease),
    replica: words[row + at.replica] as number,
    epoch: words[row + at.replicaEpoch] as number,
    hasToken: slots.state(slot) !== SlotState.dispatched,
    failed: [...(end < 0 ? list : list.subarray(0, end))],
  });
  executor.restore(slot);
}

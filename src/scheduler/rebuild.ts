/**
 * Rebuild: what a scheduler that takes over from a dead one does before its first event.
 *
 * Scheduler thread. The slot table is the truth; forwarders and acceptors go on moving it meanwhile, so
 * each row is judged by one reading of its stamp. Running attempts are counted again and published
 * again where no byte of an answer exists yet (the record may have died with the predecessor; a
 * forwarder that runs the attempt drops it), their hedges likewise. Attempts that had ended are decided, refusals told again,
 * waiting requests queue in the order in which they were published. What the rings still hold is then
 * late or new, and is told apart by generation and attempt like any other message. A request that has gone
 * on to another model waits there anew, with the attempts of that model alone. Who has lost its client neither waits
 * nor is tried again.
 */
import type { Brain } from '../dispatch/brain.ts';
import { Refusal } from '../dispatch/decisions.ts';
import { createArrival } from '../dispatch/empty-records.ts';
import { HedgeFlag, SlotState } from '../shm/request-slots.layout.ts';
import {
  attemptOf,
  generationOf,
  leaseOf,
  type RequestSlots,
  stateOf,
} from '../shm/request-slots.ts';
import { readArrival } from './arrivals.ts';
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
  const parts = { slots, brain, executor, deadlineOf };
  for (let slot = 0; slot < slots.count; slot++) {
    const stamp = slots.stamp(slot);
    const lease = leaseOf(stamp);
    switch (stateOf(stamp)) {
      case SlotState.queued:
        queued.push(slot);
        break;
      case SlotState.resuming:
        if (hasMoved(parts, slot) || isClientGone(slots, slot)) queued.push(slot);
        else if (restore(parts, slot, stamp)) resuming.push(slot);
        break;
      case SlotState.dispatched:
      case SlotState.streaming:
        restoreRunning(parts, slot, stamp, nowUs);
        break;
      case SlotState.settled:
        // Told before or not: whoever hears it twice finds it late.
        if (slots.words[slots.row(slot) + slots.at.refused] === lease) executor.reply(slot, lease);
        settleLimits(parts, slot, nowUs);
        break;
    }
  }
  for (const slot of resuming) {
    const end = lostEnd(slots, slot, slots.lease(slot), false);
    // Nothing of the request was told to this brain: the row has the sum of what its client got.
    const { words, at } = slots;
    end.promptTokens = words[slots.row(slot) + at.promptTokens] as number;
    end.completionTokens = words[slots.row(slot) + at.completionTokens] as number;
    brain.release(end, nowUs);
  }
  const publishedUs = (slot: number): number => slots.readTime(slot, slots.at.publishedUs);
  queued.sort((a, b) => publishedUs(a) - publishedUs(b));
  for (const slot of queued) {
    if (isClientGone(slots, slot)) {
      settleLimits(parts, slot, nowUs);
      executor.refuse(slot, Refusal.clientGone, 0, 0);
    } else {
      const arrival = readArrival(slots, slot, deadlineOf(slot), createArrival());
      brain.arrive(arrival, nowUs, attemptOf(slots.lease(slot)));
    }
  }
}

interface Parts {
  readonly slots: RequestSlots;
  readonly brain: Brain;
  readonly executor: Executor;
  readonly deadlineOf: DeadlineOf;
}

/** It waits for the replicas of another model than its last attempt was with. */
function hasMoved({ slots, brain }: Parts, slot: number): boolean {
  const { words, at } = slots;
  const row = slots.row(slot);
  const model = words[row + at.model] as number;
  const asked = words[row + at.askedModel];
  // The larger model of a cascade may have sent it back to the one it came for.
  if (model === asked && asked === words[row + at.onwardModel]) return false;
  return brain.fleet.model(words[row + at.replica] as number) !== model;
}

/** What it took of its limits under the predecessor, as far as it was not used, comes back. */
function settleLimits({ slots, brain, deadlineOf }: Parts, slot: number, nowUs: number): void {
  const { words, at } = slots;
  const row = slots.row(slot);
  const arrival = readArrival(slots, slot, deadlineOf(slot), createArrival());
  const isAsked = slots.attempts(slot) > 0;
  const [prompt, completion] = isAsked
    ? [words[row + at.promptTokens] as number, words[row + at.completionTokens] as number]
    : [0, 0];
  brain.quotas.settle(arrival, prompt, completion, nowUs);
}

const isClientGone = (slots: RequestSlots, slot: number): boolean =>
  Atomics.load(slots.words, slots.row(slot) + slots.at.clientGone) === 1;

function restoreRunning(parts: Parts, slot: number, stamp: number, nowUs: number): void {
  const { slots, brain, executor } = parts;
  const hedges = slots.words[slots.row(slot) + slots.at.hedgeFlags] as number; // once: the forwarder writes on
  if (!restore(parts, slot, stamp, hedges)) return;
  if (stateOf(stamp) === SlotState.dispatched) executor.republish(slot);
  if (runsHedge(slots, slot, stamp, hedges)) executor.publishHedge(slot);
  if (isClientGone(slots, slot)) brain.cancel(slot, generationOf(leaseOf(stamp)), nowUs);
}

/** False: the attempt has ended since the stamp was read, and the row may be another request's. */
function restore(
  { slots, brain, executor, deadlineOf }: Parts,
  slot: number,
  stamp: number,
  hedges: number = slots.words[slots.row(slot) + slots.at.hedgeFlags] as number,
): boolean {
  const { words, at } = slots;
  const row = slots.row(slot);
  const lease = leaseOf(stamp);
  const list = words.slice(row + at.failedReplicas, row + at.failedReplicas + 4);
  const end = list.indexOf(-1);
  const ofHedge = {
    replica: words[row + at.hedgeReplica] as number,
    epoch: words[row + at.hedgeEpoch] as number,
  };
  const ofFirst = {
    replica: words[row + at.replica] as number,
    epoch: words[row + at.replicaEpoch] as number,
  };
  const attempt = {
    arrival: readArrival(slots, slot, deadlineOf(slot), createArrival()),
    attempt: attemptOf(lease),
    pastAttempts: words[row + at.pastAttempts] as number,
    ...((hedges & HedgeFlag.alone) === 0 ? ofFirst : ofHedge),
    hasToken: stateOf(stamp) !== SlotState.dispatched,
    hedge: runsHedge(slots, slot, stamp, hedges) ? ofHedge : undefined,
    isHedgeUsed:
      ofHedge.replica >= 0 || (words[row + at.hedges] as number) > 0 || slots.isContinued(slot),
    failed: [...(end < 0 ? list : list.subarray(0, end))],
  };
  if (!slots.holds(slot, lease)) return false;
  brain.restore(attempt);
  executor.restore(slot);
  return true;
}

/** A hedge runs beside the first exchange, or is about to: the forwarder may not have read of it. */
function runsHedge(slots: RequestSlots, slot: number, stamp: number, hedges: number): boolean {
  const { words, at } = slots;
  const isDecided = (hedges & (HedgeFlag.over | HedgeFlag.alone)) !== 0;
  const hasHedge = (words[slots.row(slot) + at.hedgeReplica] as number) >= 0;
  return stateOf(stamp) === SlotState.dispatched && hasHedge && !isDecided;
}

/** A request as its slot row tells it to the brain. Scheduler thread; the row is read, never written. */
import type { Arrival, PrefixSource } from '../dispatch/arrival.ts';
import { prefixBlockBytes, prefixDepths } from '../protocol/prefix-hash.ts';
import { RequestFlag } from '../shm/request-slots.layout.ts';
import { generationOf, type RequestSlots } from '../shm/request-slots.ts';

/** Fills `arrival` from the row. */
export function readArrival(
  slots: RequestSlots,
  slot: number,
  deadlineUs: number,
  arrival: Arrival,
): Arrival {
  const { words, at } = slots;
  const row = slots.row(slot);
  arrival.slot = slot;
  arrival.generation = generationOf(slots.lease(slot));
  arrival.model = words[row + at.model] as number;
  arrival.askedModel = words[row + at.onwardModel] as number;
  arrival.publishedUs = slots.readTime(slot, at.publishedUs);
  arrival.deadlineUs = deadlineUs;
  arrival.promptBytes = words[row + at.promptBytes] as number;
  arrival.textBytes = words[row + at.textBytes] as number;
  arrival.readsMore = ((words[row + at.flags] as number) & RequestFlag.readsMore) !== 0;
  arrival.maxTokens = words[row + at.maxTokens] as number;
  arrival.priority = words[row + at.priority] as number;
  arrival.tenant = words[row + at.tenant] as number;
  arrival.limitRow = words[row + at.limitRow] as number;
  arrival.limitModelRow = words[row + at.limitModelRow] as number;
  // One more than the generation: a row that was never limited has 0.
  const hasTaken = words[row + at.limitedAs] === arrival.generation + 1;
  arrival.takenInput = hasTaken ? (words[row + at.limitInput] as number) : -1;
  arrival.takenLeased = hasTaken && words[row + at.limitLeased] === 1;
  arrival.takenOutput = hasTaken ? (words[row + at.limitOutput] as number) : -1;
  arrival.adapter = words[row + at.adapter] as number;
  arrival.pin = (words[row + at.pin] as number) - 1;
  arrival.pinEpoch = words[row + at.pinEpoch] as number;
  arrival.choices = words[row + at.choices] as number;
  arrival.generates = ((words[row + at.flags] as number) & RequestFlag.generates) !== 0;
  arrival.streams = ((words[row + at.flags] as number) & RequestFlag.stream) !== 0;
  const hedgeMs = words[row + at.hedgeMs] as number;
  arrival.hedgeUs = hedgeMs < 0 ? -1 : hedgeMs * 1000;
  arrival.session0 = words[row + at.sessionHash] as number;
  arrival.session1 = words[row + at.sessionHash + 1] as number;
  arrival.head0 = words[row + at.headHash] as number;
  arrival.head1 = words[row + at.headHash + 1] as number;
  arrival.batch0 = words[row + at.batchKey] as number;
  arrival.batch1 = words[row + at.batchKey + 1] as number;
  return arrival;
}

/** The block hashes lie in the rows; nothing is copied. */
export function prefixesOf(slots: RequestSlots): PrefixSource {
  const { words, at } = slots;
  return {
    words,
    startOf: (slot) => slots.row(slot) + at.prefixHash,
    countOf: (slot) => words[slots.row(slot) + at.prefixCount] as number,
    depths: prefixDepths,
    blockBytes: prefixBlockBytes,
  };
}

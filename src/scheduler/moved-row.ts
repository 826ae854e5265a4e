/**
 * The row of a request that goes on to another model. Scheduler thread, while the row is its own; if it dies in
 * between, the request waits for the one model or the other, under a name that the replicas there know.
 */
import type { FallbackList } from '../dispatch/decisions.ts';
import { moveHashes } from '../lib/adapter-salt.ts';
import { RequestFlag } from '../shm/request-slots.layout.ts';
import { attemptOf, type RequestSlots } from '../shm/request-slots.ts';

/** `isLarger`: to the larger model of a cascade, whose fallbacks it has from there on. */
export function moveRow(
  slots: RequestSlots,
  slot: number,
  to: FallbackList[number],
  isLarger: boolean,
): void {
  const { words, at } = slots;
  const row = slots.row(slot);
  words[row + at.pastAttempts] = attemptOf(slots.lease(slot));
  // First: a body that names who serves already is only copied for nothing.
  words[row + at.flags] = (words[row + at.flags] as number) | RequestFlag.renamed;
  const adapter = words[row + at.adapter] as number;
  const prefixWords = 2 * (words[row + at.prefixCount] as number);
  moveHashes(words, row + at.prefixHash, prefixWords, adapter, to.adapter);
  moveHashes(words, row + at.headHash, 2, adapter, to.adapter);
  words[row + at.model] = to.model;
  words[row + at.adapter] = to.adapter;
  if (isLarger) words[row + at.onwardModel] = to.model;
}

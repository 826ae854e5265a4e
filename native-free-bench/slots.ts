/**
 * Question: what does the slot table cost a request, from claim to free?
 *
 * Included: stamps, table checks, the compare-exchanges; on one thread, so no line is shared. The life
 * of a request is 6 stamp changes. Subtract nothing. Baseline in the same run: the same moves on a
 * plain array without owners, leases or atomics.
 */
import { SlotState } from '../src/shm/request-slots.layout.ts';
import { createRequestSlots, RequestSlots } from '../src/shm/request-slots.ts';
import { createBench } from './harness.ts';

const bench = createBench('slots', 'What does the slot table cost a request?');
const count = bench.parameter('slots', { smoke: 64, full: 8192 });
const { free, reading, queued, dispatched, streaming, settled } = SlotState;
const slots = new RequestSlots(createRequestSlots(count), count);
const plain = new Uint8Array(count);

const base = bench.measure('plain array, one life', count, () => {
  let sum = 0;
  for (let slot = 0; slot < count; slot++) {
    for (const state of [reading, queued, dispatched, streaming, settled, free]) {
      plain[slot] = state;
      sum += plain[slot]!;
    }
  }
  return sum;
});
bench.measure(
  'RequestSlots, one life',
  count,
  () => {
    let moved = 0;
    for (let slot = 0; slot < count; slot++) {
      const lease = slots.claim(slot);
      if (slots.transition(slot, lease, reading, queued)) moved++;
      const attempt = slots.startAttempt(slot, lease);
      if (slots.transition(slot, attempt, dispatched, streaming)) moved++;
      if (slots.transition(slot, attempt, streaming, settled)) moved++;
      if (slots.transition(slot, attempt, settled, free)) moved++;
    }
    return moved;
  },
  base,
);
bench.measure('holds, a late message is told', count, () => {
  let held = 0;
  for (let slot = 0; slot < count; slot++) if (slots.holds(slot, 1)) held++;
  return held;
});
bench.measure('recount of the table by state', count, () => {
  let used = 0;
  for (let slot = 0; slot < count; slot++) if (slots.state(slot) !== free) used++;
  return used;
});
bench.finish();

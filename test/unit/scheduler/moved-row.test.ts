/** What the row of a request says of it once it has gone on to another model. */
import { expect, test } from 'vitest';
import { moveRow } from '../../../src/scheduler/moved-row.ts';
import { RequestFlag } from '../../../src/shm/request-slots.layout.ts';
import { createRequestSlots, RequestSlots } from '../../../src/shm/request-slots.ts';

test('the larger model may send it to an adapter of the model that it came for', () => {
  const slots = new RequestSlots(createRequestSlots(4), 4);
  const { words, at } = slots;
  const row = slots.row(1);
  words[row + at.flags] = RequestFlag.stream | RequestFlag.judged;
  const seen = () =>
    [at.model, at.adapter, at.askedModel, at.onwardModel].map((of) => words[row + of]);
  moveRow(slots, 1, { model: 2, adapter: 0 }, true);
  expect(seen()).toEqual([2, 0, 0, 2]);
  moveRow(slots, 1, { model: 0, adapter: 3 }, false);
  expect(seen()).toEqual([0, 3, 0, 2]);
  // Its body names the model, which is not who is asked for.
  const { stream, judged, renamed } = RequestFlag;
  expect(words[row + at.flags]).toBe(stream | judged | renamed);
});

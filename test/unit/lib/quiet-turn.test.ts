import { expect, test } from 'vitest';
import { quietTurn } from '../../../src/lib/quiet-turn.ts';

test('a turn in which somebody came is not quiet', async () => {
  let calls = 0;
  // Each turn is looked at before and after: somebody comes in the first three.
  await quietTurn(() => Math.min(++calls, 6));
  expect(calls).toBeGreaterThanOrEqual(8);
});

test('the end is heard in the turn that was quiet', async () => {
  let seen = 0;
  let turn = 0;
  const count = setInterval(() => turn++, 0);
  await quietTurn(() => {
    seen = turn;
    return 0;
  });
  expect(turn).toBe(seen);
  clearInterval(count);
});

test('a loop that is never quiet is not waited for without end', async () => {
  let arrivals = 0;
  const began = performance.now();
  await quietTurn(() => arrivals++);
  expect(performance.now() - began).toBeGreaterThanOrEqual(1000);
});

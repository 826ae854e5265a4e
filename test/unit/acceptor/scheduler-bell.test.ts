import { setImmediate as turn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { SchedulerBell } from '../../../src/acceptor/scheduler-bell.ts';

/** Rings at each of `times`; which of them woke a scheduler that goes back to sleep at once. */
function wakes(bell: SchedulerBell, words: Int32Array, times: readonly number[]): boolean[] {
  return times.map((us) => {
    Atomics.store(words, 0, 1);
    bell.ring(us);
    return Atomics.load(words, 0) === 0;
  });
}

const start = 1_000_000;
const at = (...offsets: number[]): number[] => offsets.map((offset) => start + offset);

test('a burst of one turn wakes once, and once more at its end', async () => {
  const words = new Int32Array(new SharedArrayBuffer(4));
  const bell = new SchedulerBell(words, 0);
  expect(wakes(bell, words, at(0, 10, 20, 499))).toEqual([true, false, false, false]);
  await turn();
  expect(words[0], 'what was owed').toBe(0);
});

test('a long turn wakes again and again, so that its first request does not wait for its last', () => {
  const words = new Int32Array(new SharedArrayBuffer(4));
  const bell = new SchedulerBell(words, 0);
  expect(wakes(bell, words, at(0, 400, 500, 900, 1000, 5000))).toEqual([
    ...[true, false, true, false, true, true],
  ]);
});

test('the first message of the next turn wakes at once, however soon it comes', async () => {
  const words = new Int32Array(new SharedArrayBuffer(4));
  const bell = new SchedulerBell(words, 0);
  wakes(bell, words, at(0));
  await turn();
  expect(wakes(bell, words, at(1))).toEqual([true]);
});

test('nothing is rung at the end of a turn in which nothing is owed', async () => {
  const words = new Int32Array(new SharedArrayBuffer(4));
  const bell = new SchedulerBell(words, 0);
  wakes(bell, words, at(0, 10, 600));
  Atomics.store(words, 0, 1);
  await turn();
  expect(words[0]).toBe(1);
});

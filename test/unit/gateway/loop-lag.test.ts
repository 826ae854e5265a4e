import { expect, test } from 'vitest';
import { LoopLag } from '../../../src/gateway/loop-lag.ts';

const limitMs = 100;

/** A loop whose ticks came at these times; a tick is due 20 ms after the one before it. */
function lagOf(...ticks: readonly number[]): LoopLag {
  const lag = new LoopLag(limitMs);
  for (const atMs of ticks) lag.tick(atMs);
  return lag;
}

test('a loop that has not ticked yet was not late', () => {
  expect(lagOf().wasLate(0, 1e9)).toBe(false);
});

test('ticks up to the limit behind their time are in time', () => {
  expect(lagOf(0, 120, 240).wasLate(0, 240)).toBe(false);
  expect(lagOf(0, 120, 241).wasLate(0, 241)).toBe(true);
});

test('whoever began before the episode ended shares it, whoever began later does not', () => {
  const lag = lagOf(0, 20, 400, 420, 440);
  expect(lag.wasLate(0, 440)).toBe(true);
  expect(lag.wasLate(399, 440)).toBe(true);
  expect(lag.wasLate(401, 440)).toBe(false);
});

test('the last episode counts after an earlier one', () => {
  const lag = lagOf(0, 400, 420, 800, 820);
  expect(lag.wasLate(500, 820)).toBe(true);
  expect(lag.wasLate(801, 820)).toBe(false);
});

test('a tick that is overdue is an episode already', () => {
  const lag = lagOf(0, 20);
  expect(lag.wasLate(0, 140)).toBe(false);
  expect(lag.wasLate(0, 141)).toBe(true);
});

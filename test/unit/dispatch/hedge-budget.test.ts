import { expect, test } from 'vitest';
import { HedgeBudget } from '../../../src/dispatch/hedge-budget.ts';

test.each([0, 0.02, 0.05, 1])('hedges are at most the share %d of all requests', (share) => {
  const budget = new HedgeBudget(share);
  let hedges = 0;
  for (let requests = 1; requests <= 5000; requests++) {
    budget.earn();
    if (!budget.allows(Infinity)) continue;
    budget.take();
    hedges++;
    expect(hedges).toBeLessThanOrEqual(share * requests + 1e-6);
  }
  expect(hedges).toBeGreaterThanOrEqual(Math.floor(share * 5000) - 1);
});

test('a long calm pays for ten at once and no more', () => {
  const budget = new HedgeBudget(0.02);
  for (let i = 0; i < 100_000; i++) budget.earn();
  let hedges = 0;
  for (; budget.allows(Infinity); hedges++) budget.take();
  expect(hedges).toBe(10);
});

test.each([
  // Credit that is needed: 1 + 5 / waits.
  [1, 12],
  [2, 7],
  [5, 4],
  [10, 3],
  [Infinity, 2],
])('a hedge after %d times what is late takes %d requests at a share of a half', (waits, from) => {
  const budget = new HedgeBudget(0.5);
  for (let requests = 1; requests < from; requests++) {
    budget.earn();
    expect(budget.allows(waits), `${requests}`).toBe(false);
  }
  budget.earn();
  expect(budget.allows(waits)).toBe(true);
  budget.take();
  expect(budget.allows(waits)).toBe(false);
});

test('at the late mark hedges keep the share, five of them behind', () => {
  const budget = new HedgeBudget(0.02);
  let hedges = 0;
  for (let requests = 1; requests <= 5000; requests++) {
    budget.earn();
    if (!budget.allows(1)) continue;
    budget.take();
    hedges++;
    expect(hedges).toBeLessThanOrEqual(0.02 * requests - 5 + 1e-6);
  }
  expect(hedges).toBeGreaterThanOrEqual(94);
});

test('what is only a little late leaves half of the credit to what is very late', () => {
  const budget = new HedgeBudget(0.5);
  for (let i = 0; i < 100; i++) budget.earn();
  let hedges = 0;
  for (; budget.allows(1); hedges++) budget.take();
  expect(hedges).toBe(5);
  for (; budget.allows(5); hedges++) budget.take();
  expect(hedges).toBe(9);
  for (; budget.allows(Infinity); hedges++) budget.take();
  expect(hedges).toBe(10);
});

import { expect, test } from 'vitest';
import { Estimates } from '../../../src/lib/estimates.ts';

test('a model that says nothing is taken for four bytes a token', () => {
  const estimates = new Estimates();
  expect(estimates.promptTokens(4000)).toBe(1000);
  expect(estimates.promptTokens(0)).toBe(1);
  estimates.learn(4000, -1, -1);
  expect(estimates.bytesPerToken).toBe(4);
});

test('the first report counts in full, later ones less and less', () => {
  const estimates = new Estimates();
  estimates.learn(2000, 1000, 10);
  expect([estimates.bytesPerToken, estimates.outputTokens]).toEqual([2, 10]);
  estimates.learn(4000, 1000, 30);
  expect([estimates.bytesPerToken, estimates.outputTokens]).toEqual([3, 20]);
});

test('reported usage moves both estimates to where the requests are', () => {
  const estimates = new Estimates();
  for (let i = 0; i < 1000; i++) estimates.learn(3000, 1000, 40);
  expect(estimates.bytesPerToken).toBeCloseTo(3, 3);
  expect(estimates.outputTokens).toBeCloseTo(40, 1);
  expect(estimates.expectedOutput(0)).toBeCloseTo(40, 1);
  expect(estimates.expectedOutput(16)).toBe(16);
});

test('an absurd report does not make the estimate useless', () => {
  const estimates = new Estimates();
  for (let i = 0; i < 10_000; i++) estimates.learn(1_000_000, 1, 2 ** 31 - 1);
  expect(estimates.bytesPerToken).toBeLessThanOrEqual(16);
  expect(estimates.outputTokens).toBeLessThanOrEqual(131_072);
});

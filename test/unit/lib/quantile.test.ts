import { expect, test } from 'vitest';
import { quantile, quantileOf } from '../../../src/lib/quantile.ts';

test('a quantile is a value that so many do not exceed', () => {
  const values = [3, 1, 2, 4];
  expect([0, 0.25, 0.26, 0.5, 0.99, 1].map((share) => quantile(values, share))).toEqual([
    1, 1, 2, 2, 4, 4,
  ]);
  expect(values).toEqual([3, 1, 2, 4]);
});

test('of numbers it is the number, not its text', () => {
  expect(quantile([10, 9, 100], 0.5)).toBe(10);
});

test('of nothing it is 0', () => {
  expect(quantile([], 0.5)).toBe(0);
  expect(quantileOf(new Float64Array(), 1)).toBe(0);
});

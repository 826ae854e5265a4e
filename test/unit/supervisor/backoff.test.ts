import { expect, test } from 'vitest';
import { backoffMs } from '../../../src/supervisor/supervisor.ts';

test('the wait doubles from 0.1 s to 10 s and stays there', () => {
  const waits = Array.from({ length: 10 }, (_, i) => backoffMs(i + 1));
  expect(waits).toEqual([100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]);
});

test('a gateway that dies for days still has a finite wait', () => {
  expect(backoffMs(1_000_000)).toBe(10_000);
  expect(backoffMs(0)).toBe(100);
});

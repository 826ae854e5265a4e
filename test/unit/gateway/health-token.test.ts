import { expect, test } from 'vitest';
import { Stillness } from '../../../src/gateway/health-token.ts';

test('a replica stands still while it has requests and sends nothing', () => {
  const stillness = new Stillness();
  expect(stillness.look(1000, 0, 0)).toBe(0);
  expect(stillness.look(2000, 3, 0)).toBe(0); // busy from now on, as far as anybody knows
  expect(stillness.look(5000, 1, 0)).toBe(3000);
  expect(stillness.look(6000, 1, 5500)).toBe(500); // a byte came
  expect(stillness.look(7000, 0, 5500)).toBe(0);
  expect(stillness.look(9000, 1, 5500)).toBe(0); // the time it was idle does not count
});

import { expect, test } from 'vitest';
import { Complaints } from '../../../src/forwarder/complaints.ts';

test('a complaint is not repeated within ten seconds; of another replica, or about more, it is due', () => {
  const complaints = new Complaints();
  expect(complaints.isDue('r1', 89, 1000)).toBe(true);
  expect(complaints.isDue('r1', 89, 1001)).toBe(false);
  expect(complaints.isDue('r1', 76, 1001)).toBe(true);
  expect(complaints.isDue('r2', 89, 1001)).toBe(true);
  expect(complaints.isDue('r1', 89, 10_999)).toBe(false);
  expect(complaints.isDue('r1', 89, 11_000)).toBe(true);
  expect(complaints.isDue('r1', 76, 11_000)).toBe(false);
});

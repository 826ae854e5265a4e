/** Days and months of UTC, and sums that are exact. */
import { expect, test } from 'vitest';
import { endOfDay, endOfMonth, Spending } from '../../../src/ledger/spending.ts';
import { costInBillionths, fromBillionths, inBillionths } from '../../../src/lib/price.ts';

const at = (text: string): number => Date.parse(text);

test('an event counts for its own day and month, and a day that is over for its month alone', () => {
  const spending = new Spending(undefined, at('2026-12-30T10:00:00Z'));
  spending.add('a', '2026-12-30T09:00:00.000Z', 5);
  spending.add('a', '2026-12-29T23:59:59.999Z', 7);
  spending.add('a', '2026-11-30T23:59:59.999Z', 100);
  spending.add('b', '2026-12-30T00:00:00.000Z', 1);
  expect(spending.of('a')).toEqual({ day: 5, month: 12 });
  spending.advance(at('2026-12-31T00:00:00Z'));
  expect(spending.of('a')).toEqual({ day: 0, month: 12 });
  spending.add('a', '2026-12-30T23:59:59.999Z', 3);
  expect(spending.of('a')).toEqual({ day: 0, month: 15 });
  spending.advance(at('2027-01-01T00:00:00Z'));
  expect(spending.of('a')).toEqual({ day: 0, month: 0 });
  expect(spending.of('nobody')).toEqual({ day: 0, month: 0 });
});

test('what was saved counts on, as far as its day and month are not over', () => {
  const spending = new Spending(undefined, at('2026-12-30T10:00:00Z'));
  spending.add('a', '2026-12-30T09:00:00.000Z', 5);
  const saved = JSON.parse(JSON.stringify(spending.saved));
  const later = (time: string) => new Spending(saved, at(time)).of('a');
  expect(later('2026-12-30T23:00:00Z')).toEqual({ day: 5, month: 5 });
  expect(later('2026-12-31T00:00:00Z')).toEqual({ day: 0, month: 5 });
  expect(later('2027-12-30T00:00:00Z')).toEqual({ day: 0, month: 0 });
});

test('the ends of days and months', () => {
  expect(endOfDay(at('2026-12-31T23:59:59.999Z'))).toBe(at('2027-01-01T00:00:00Z'));
  expect(endOfDay(at('2026-12-31T00:00:00Z'))).toBe(at('2027-01-01T00:00:00Z'));
  expect(endOfMonth(at('2026-12-05T10:00:00Z'))).toBe(at('2027-01-01T00:00:00Z'));
  expect(endOfMonth(at('2028-02-29T10:00:00Z'))).toBe(at('2028-03-01T00:00:00Z'));
});

test('a price is of a million tokens; what was cached has its own', () => {
  const price = { input: 2.5, cachedInput: 1.25, output: 10 };
  expect(costInBillionths(price, 1_000_000, 0, 0)).toBe(inBillionths(2.5));
  expect(costInBillionths(price, 1000, 400, 20)).toBe(600 * 2500 + 400 * 1250 + 20 * 10_000);
  expect(costInBillionths(price, 10, 99, 0), 'no more than there was').toBe(10 * 1250);
  const sum = Array.from({ length: 10_000 }, () =>
    costInBillionths({ ...price, output: 0.1 }, 0, 0, 1),
  );
  expect(fromBillionths(sum.reduce((a, b) => a + b, 0))).toBe(0.001);
});

/** Days and months of UTC, and sums that are exact. */
import { expect, test } from 'vitest';
import { endOfDay, endOfMonth, Spending } from '../../../src/ledger/spending.ts';
import { costInBillionths, fromBillionths, inBillionths } from '../../../src/lib/price.ts';

const at = (text: string): number => Date.parse(text);

const cameAt = at('2026-12-30T10:00:00Z');
const add = (to: Spending, time: string, cost: number, nowMs = cameAt): void =>
  to.add('a', time, cost, nowMs);

test('an event counts for its own day and month, whenever it is told', () => {
  const spending = new Spending(undefined);
  const of = (time: string) => spending.at(at(time))('a');
  add(spending, '2026-12-30T09:00:00.000Z', 5);
  add(spending, '2026-12-29T23:59:59.999Z', 7);
  add(spending, '2026-11-30T23:59:59.999Z', 100);
  spending.add('b', '2026-12-30T00:00:00.000Z', 1, cameAt);
  expect(of('2026-12-30T10:00:00Z')).toEqual({ day: 5, month: 12 });
  expect(of('2026-12-31T00:00:00Z')).toEqual({ day: 0, month: 12 });
  add(spending, '2026-12-30T23:59:59.999Z', 3);
  expect(of('2026-12-31T00:00:00Z')).toEqual({ day: 0, month: 15 });
  // Told before the clock says that it is another day, month and year.
  add(spending, '2027-01-01T00:00:00.000Z', 2);
  expect(of('2026-12-31T23:59:59.999Z')).toEqual({ day: 0, month: 15 });
  expect(of('2027-01-01T00:00:00Z')).toEqual({ day: 2, month: 2 });
  expect(spending.at(cameAt)('nobody')).toEqual({ day: 0, month: 0 });
});

test('a clock that was wrong for a while leaves the sums as they were, over restarts too', () => {
  let spending = new Spending(undefined);
  add(spending, '2026-12-30T09:00:00.000Z', 5);
  for (const wrong of ['2027-12-30T10:00:00.000Z', '2026-12-31T10:00:00.000Z']) {
    add(spending, wrong, 50, at(wrong));
    spending = new Spending(JSON.parse(JSON.stringify(spending.saved)));
    add(spending, '2026-12-30T10:00:00.000Z', 1);
  }
  expect(spending.at(cameAt)('a')).toEqual({ day: 7, month: 57 });
});

test('what was saved counts on, as far as its day and month are not over', () => {
  const spending = new Spending(undefined);
  add(spending, '2026-12-30T09:00:00.000Z', 5);
  const saved = JSON.parse(JSON.stringify(spending.saved));
  const later = (time: string) => new Spending(saved).at(at(time))('a');
  expect(later('2026-12-30T23:00:00Z')).toEqual({ day: 5, month: 5 });
  expect(later('2026-12-31T00:00:00Z')).toEqual({ day: 0, month: 5 });
  expect(later('2027-12-30T00:00:00Z')).toEqual({ day: 0, month: 0 });
});

test('the few periods nearest to the clock are kept, and what is no time is none', () => {
  const spending = new Spending(undefined);
  // As the files of two acceptors are summed up again, and a clock that was far in the future.
  for (const _ of [1, 2]) {
    add(spending, '2099-01-01T00:00:00.000Z', 1);
    for (let day = 1; day <= 30; day++) {
      add(spending, `2026-12-${String(day).padStart(2, '0')}T00:00:00.000Z`, 1);
    }
  }
  for (const time of ['', '2026-12', 'soon enough', '2026-99-99T00:00:00.000Z']) {
    add(spending, time, 1);
  }
  const { days, months } = spending.saved;
  expect(Object.keys(days).sort()).toEqual(['27', '28', '29', '30'].map((day) => `2026-12-${day}`));
  expect(Object.keys(months).sort()).toEqual(['2026-12', '2099-01']);
  expect(spending.at(cameAt)('a').day).toBe(2);
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

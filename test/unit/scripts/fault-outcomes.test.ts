/** The table of `npm run test:fault`: a row holds by tests that passed, and by nothing else. */
import { expect, test } from 'vitest';
import { battery } from '../../../scripts/fault/battery.ts';
import { holds, outcomes } from '../../../scripts/fault/outcomes.ts';
import { reliabilityPage, terminalTable } from '../../../scripts/fault/page.ts';

const row = (id: string) => ({ id, injection: `does ${id}`, expected: 'a | b', shownAs: '' });
const rows = [row('T01'), row('T02'), row('T03'), row('T04')];
const tests = [
  { fullName: 'T01, T02: both', status: 'passed', file: 'f' },
  { fullName: 'engine uws T02: one', status: 'failed', file: 'f' },
  { fullName: 'T03: skipped', status: 'skipped', file: 'g' },
  { fullName: 'T011: another', status: 'passed', file: 'f' },
];
const seen = [
  { id: 'T01', name: 'lost', value: '1' },
  { id: 'T01', name: 'lost', value: '0' },
  { test: 'x T01, T02: both', file: 'f', invariants: ['I3', 'I1'] },
  { test: '', file: 'g', invariants: ['I9'] },
];

test('a row holds when its tests passed, is failed by one, and is not shown by none', () => {
  const found = outcomes(rows, tests, seen);
  expect(found.map(({ passed, failed }) => [passed, failed])).toEqual([
    ...[
      [1, 0],
      [1, 1],
      [0, 1],
      [0, 0],
    ],
  ]);
  expect(found.map(holds)).toEqual([true, false, false, false]);
  expect(found[0]).toMatchObject({ figures: ['lost: 0'], invariants: ['I1', 'I3'] });
  const text = terminalTable(found);
  expect(text).toMatch(/^T01 {2}holds .*lost: 0$/m);
  expect(text).toMatch(/^T02 {2}FAILED +1 of 2 tests/m);
  expect(text).toMatch(/^T03 {2}FAILED/m);
  expect(text).toMatch(/^T04 {2}not shown/m);
  expect(found[2]).toMatchObject({ invariants: ['I9'] });
  const page = reliabilityPage(found, 'a machine', '| F01 |');
  expect(page).toContain('| T01 | does T01 | a \\| b |  | lost: 0 | 1 | I1 I3 | holds |');
  expect(page).toContain('## Failover scorecard');
  expect(reliabilityPage(found, 'a machine', '')).not.toContain('scorecard');
});

test('the battery has the rows that are asked for, once each', () => {
  const numbers = [...Array.from({ length: 23 }, (_, i) => i + 1)];
  for (let n = 33; n <= 47; n++) numbers.push(n);
  numbers.push(48, 49, 51, 52);
  expect(battery.map(({ id }) => id)).toEqual(numbers.map((n) => `T${String(n).padStart(2, '0')}`));
});

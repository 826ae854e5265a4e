import { expect, test } from 'vitest';
import { EdgeHead } from '../../../src/acceptor/edge-head.ts';
import {
  deadlineOf,
  hedgeOf,
  invalidHints,
  priorityOf,
} from '../../../src/acceptor/request-hints.ts';

const headWith = (name: string, value: string): EdgeHead => {
  const head = new EdgeHead();
  head.reset('POST', '/');
  head.add(name, value);
  return head;
};

test.each(['0', '7', '-7', '100', '-100'])('priority %s is taken', (value) => {
  const head = headWith('x-sluice-priority', value);
  expect(invalidHints(head)).toBe('');
  expect(priorityOf(head, undefined)).toBe(Number(value));
});

test.each(['101', '-101', '1.5', '+1', 'high', '1e1', ' 1', '0x1', '--1'])(
  'priority %s is refused',
  (value) => expect(invalidHints(headWith('x-sluice-priority', value))).toBe('x-sluice-priority'),
);

test.each(['1', '1500', '86400000'])('deadline %s is taken', (value) => {
  const head = headWith('x-sluice-deadline-ms', value);
  expect(invalidHints(head)).toBe('');
  expect(deadlineOf(head)).toBe(Number(value));
});

test.each(['0', '-1', '86400001', '999999999', '1s', '1.0'])('deadline %s is refused', (value) =>
  expect(invalidHints(headWith('x-sluice-deadline-ms', value))).toBe('x-sluice-deadline-ms'),
);

test.each([
  ['1', 0],
  ['true', 0],
  ['2', 2],
  ['250', 250],
  ['86400000', 86_400_000],
])('hedge %s is taken', (value, afterMs) => {
  const head = headWith('x-sluice-hedge', value);
  expect(invalidHints(head)).toBe('');
  expect(hedgeOf(head)).toBe(afterMs);
});

test('without the header no hedge is asked for', () => {
  expect(hedgeOf(headWith('x-other', '1'))).toBe(-1);
});

test.each(['0', 'false', 'TRUE', '01', '-1', '50ms', '1.5', '86400001', '999999999', '1, 1'])(
  'hedge %s is refused',
  (value) => expect(invalidHints(headWith('x-sluice-hedge', value))).toBe('x-sluice-hedge'),
);

test('an explanation is asked for with 1', () => {
  expect(invalidHints(headWith('x-sluice-explain', '1'))).toBe('');
});

test.each(['0', 'true', '2', '1, 1', '01', ' 1'])('explain %s is refused', (value) =>
  expect(invalidHints(headWith('x-sluice-explain', value))).toBe('x-sluice-explain'),
);

test.each(['large', 'small', ''])('cascade %j is taken', (value) => {
  expect(invalidHints(headWith('x-sluice-cascade', value))).toBe('');
});

test.each(['Large', 'huge', 'large ', '1'])('cascade %j is refused', (value) => {
  expect(invalidHints(headWith('x-sluice-cascade', value))).toBe('x-sluice-cascade');
});

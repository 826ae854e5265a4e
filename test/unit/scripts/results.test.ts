import { expect, test } from 'vitest';
import { countsLine, exitCodeOf, summarise } from '../../../scripts/test/results.ts';

const file = (name: string, status: string, tests: readonly string[], seconds = 1) => ({
  name,
  status,
  startTime: 0,
  endTime: seconds * 1000,
  assertionResults: tests.map((status, i) => ({ fullName: `${name} ${i}`, status })),
});

test('tests are counted by their status, pending and todo as skipped', () => {
  const report = {
    testResults: [
      file('a', 'passed', ['passed', 'passed', 'pending', 'skipped', 'todo'], 1),
      file('b', 'failed', ['passed', 'failed'], 3),
    ],
  };
  expect(summarise(report, 1)).toEqual({
    passed: 3,
    failed: 1,
    skipped: 3,
    files: [
      { name: 'b', seconds: 3 },
      { name: 'a', seconds: 1 },
    ],
    tests: report.testResults.flatMap(({ name, assertionResults }) =>
      assertionResults.map((of) => ({ ...of, file: name })),
    ),
  });
});

test('a file that did not load is a failure', () => {
  const report = { testResults: [file('a', 'passed', ['passed']), file('b', 'failed', [])] };
  expect(summarise(report, 1)).toMatchObject({ passed: 1, failed: 1 });
});

test('an exit status that no test explains is a failure', () => {
  const report = { testResults: [file('a', 'passed', ['passed'])] };
  expect(summarise(report, 1)).toMatchObject({ passed: 1, failed: 1 });
  expect(summarise(report, null)).toMatchObject({ passed: 1, failed: 1 });
  expect(summarise(report, 0)).toMatchObject({ passed: 1, failed: 0 });
});

test('the last line names skipped tests only when there are some', () => {
  expect(countsLine({ passed: 12, failed: 0, skipped: 0 })).toBe('12 passed, 0 failed');
  expect(countsLine({ passed: 1, failed: 2, skipped: 3 })).toBe('1 passed, 2 failed, 3 skipped');
});

test('an empty run and a failed run do not exit 0', () => {
  expect(exitCodeOf({ passed: 5, failed: 0, skipped: 1 })).toBe(0);
  expect(exitCodeOf({ passed: 5, failed: 1, skipped: 0 })).toBe(1);
  expect(exitCodeOf({ passed: 0, failed: 0, skipped: 9 })).toBe(1);
});

import { describe, expect, test } from 'vitest';
import { type BenchReport, type Figure, median, verdict } from '../../../scripts/bench/figures.ts';
import { compareReports, markdownReport, textReport } from '../../../scripts/bench/report.ts';

const latency: Figure = {
  name: 'p99',
  value: 0,
  unit: 'us',
  better: 'lower',
  floor: 1000,
  aim: 300,
};
const rate: Figure = { name: 'rate', value: 0, unit: 'x', better: 'higher', floor: 0.5, aim: 1 };

describe('a verdict', () => {
  test.each([
    [{ ...latency, value: 300 }, true, 'aim met'],
    [{ ...latency, value: 600 }, true, 'floor met, 2.00x from the aim'],
    [{ ...latency, value: 1500 }, false, 'floor MISSED by 1.50x'],
    [{ ...rate, value: 1.2 }, true, 'aim met'],
    [{ ...rate, value: 0.8 }, true, 'floor met, 1.25x from the aim'],
    [{ ...rate, value: 0.25 }, false, 'floor MISSED by 2.00x'],
    [{ ...latency, value: 3, floor: 0, aim: 0 }, false, 'floor MISSED by 3'],
  ])('%o', (figure, met, text) => {
    expect(verdict(figure)).toEqual({ met, text });
  });

  test('needs a floor', () => {
    expect(verdict({ name: 'CPU', value: 1, unit: 'us', better: 'lower' })).toBeUndefined();
  });
});

test('the median of an even count lies between the middle two', () => {
  expect(median([9, 1, 5])).toBe(5);
  expect(median([4, 1, 2, 100])).toBe(3);
  expect(() => median([])).toThrow();
});

function report(value: number, mode: 'smoke' | 'full' = 'full'): BenchReport {
  return {
    machine: { cpu: 'cpu', cores: 2, memoryGb: 8, os: 'Linux' },
    node: 'v22',
    commit: 'abc',
    seed: 1,
    mode,
    startedAt: '2026-01-01T00:00:00Z',
    scenarios: [
      {
        name: 'one',
        question: 'Why?',
        figures: [
          { ...latency, value },
          { ...rate, value: 0.9, detail: '9 over 10' },
        ],
        skipped: ['nginx: not installed'],
        data: {},
      },
      { name: 'two', question: 'How?', figures: [], skipped: [], data: {}, error: 'it broke' },
    ],
  };
}

test('text and Markdown show figures, limits, verdicts, what was skipped and what broke', () => {
  for (const page of [textReport(report(2000)), markdownReport(report(2000))]) {
    expect(page).toContain('2000 us');
    expect(page).toContain('floor MISSED by 2.00x');
    expect(page).toContain('9 over 10');
    expect(page).toContain('nginx: not installed');
    expect(page).toContain('it broke');
    expect(page).toContain('commit abc');
  }
});

test('a comparison gives ratios and says which way they point', () => {
  const text = compareReports(report(100), report(200));
  expect(text).toMatch(/one \/ p99 +100 us +200 us +2 +WORSE/);
  expect(text).toMatch(/one \/ rate +0\.900 x +0\.900 x +1 +same/);
  expect(compareReports(report(200), report(100))).toMatch(/one \/ p99 .* 0\.500 +better/);
  expect(compareReports(report(100), report(103))).toMatch(/within 5%/);
});

test('a comparison of unlike runs says so', () => {
  expect(compareReports(report(1, 'smoke'), report(1))).toContain('smoke run against a full run');
  const other = { ...report(1), machine: { ...report(1).machine, cores: 64 } };
  expect(compareReports(other, report(1))).toContain('two different machines');
});

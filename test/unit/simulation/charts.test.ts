import { expect, test } from 'vitest';
import { barChart } from '../../../src/simulation/charts/bar-chart.ts';
import { figureBars } from '../../../src/simulation/charts/figure-bars.ts';
import { lineChart } from '../../../src/simulation/charts/line-chart.ts';
import { colour, dashes, ticks } from '../../../src/simulation/charts/svg.ts';
import { statOf } from '../../../src/simulation/summary.ts';

const numbersIn = (svg: string, attribute: string): number[] =>
  [...svg.matchAll(new RegExp(` ${attribute}="(-?[\\d.]+)"`, 'g'))].map((match) =>
    Number(match[1]),
  );

test.each([
  [0, [0, 1]],
  [1, [0, 0.2, 0.4, 0.6, 0.8, 1]],
  [97, [0, 20, 40, 60, 80, 100]],
  [0.031, [0, 0.01, 0.02, 0.03, 0.04]],
  [12_000, [0, 2500, 5000, 7500, 10_000, 12_500]],
])('the axis up to %f has round marks', (max, marks) => {
  expect(ticks(max)).toEqual(marks);
});

test('bars are as long as their medians, and names are text', () => {
  const bars = [
    { name: 'a <b> & "c"', stat: statOf([40]), group: 0 },
    { name: 'twice', stat: statOf([70, 80, 90]), group: 1 },
  ];
  const svg = barChart('Goodput', '%', bars);
  const [short = 0, long = 0] = numbersIn(svg, 'width').filter((width) => width < 800);
  expect(long / short).toBeCloseTo(2, 2);
  expect(svg).toContain('a &#60;b&#62; &#38; &#34;c&#34;');
  expect(svg).not.toContain('<b>');
});

test('everything drawn is within the picture, and stays legible on light and dark', () => {
  const lines = Array.from({ length: 20 }, (_, i) => ({
    name: `policy_${i}`,
    points: [5, 6, 7].map((x) => ({ x, y: 10 ** (i % 5) * x })),
  }));
  for (const logarithmic of [true, false]) {
    const svg = lineChart({ title: 't', xLabel: 'x', yLabel: 'y', logarithmic, lines });
    const [, width = 0, height = 0] = /viewBox="0 0 (\d+) (\d+)"/.exec(svg)?.map(Number) ?? [];
    for (const x of [...numbersIn(svg, 'x'), ...numbersIn(svg, 'cx')]) {
      expect(x).toBeGreaterThanOrEqual(0);
      expect(x).toBeLessThanOrEqual(width);
    }
    for (const y of [...numbersIn(svg, 'y'), ...numbersIn(svg, 'cy')]) {
      expect(y).toBeGreaterThanOrEqual(0);
      expect(y).toBeLessThanOrEqual(height);
    }
    expect(svg).not.toMatch(/NaN|Infinity|fill="(?:black|white|#000|#fff)"/);
  }
});

test('no two of twenty lines look the same', () => {
  const looks = Array.from({ length: 20 }, (_, i) => `${colour(i)} ${dashes(i)}`);
  expect(new Set(looks).size).toBe(20);
});

test('a chart without figures is a chart', () => {
  expect(lineChart({ title: 't', xLabel: 'x', yLabel: 'y', lines: [] })).not.toMatch(
    /NaN|Infinity/,
  );
  expect(figureBars('t', 'goodput', [])).not.toMatch(/NaN|Infinity/);
});

/** Lines over a shared axis, with a legend; the vertical axis may be logarithmic. Pure. */
import { colour, dashes, document, element, gridLine, label, ticks } from './svg.ts';

export interface Line {
  readonly name: string;
  /** In ascending order of x. */
  readonly points: readonly { readonly x: number; readonly y: number }[];
}

export interface LineChart {
  readonly title: string;
  readonly xLabel: string;
  readonly yLabel: string;
  readonly logarithmic?: boolean;
  readonly lines: readonly Line[];
}

const width = 780;
const height = 420;
const left = 60;
const right = 230;
const top = 50;
const bottom = 370;
/** Labels of four digits that the width has room for. */
const labelsMax = 14;

export function lineChart(chart: LineChart): string {
  const points = chart.lines.flatMap((line) => line.points);
  const xs = points.map((point) => point.x);
  const [low, high] = [Math.min(...xs), Math.max(...xs)];
  const x = (value: number): number =>
    left + ((value - low) / (high - low || 1)) * (width - left - right);
  const ys = points.map((point) => point.y);
  const marks = chart.logarithmic ? decades(ys) : ticks(Math.max(...ys));
  const y = verticalScale(marks, chart.logarithmic === true);
  const parts = [
    ...marks.flatMap((mark) => [
      gridLine(left, y(mark), width - right, y(mark)),
      label(String(mark), left - 6, y(mark) + 4, { 'text-anchor': 'end' }),
    ]),
    ...horizontalMarks(xs, high).map((value) =>
      label(String(value), x(value), bottom + 18, { 'text-anchor': 'middle' }),
    ),
    label(chart.xLabel, (left + width - right) / 2, bottom + 38, { 'text-anchor': 'middle' }),
    label(chart.yLabel, 12, top - 12),
  ];
  chart.lines.forEach((line, i) => {
    const path = line.points.map((point) => `${at(x(point.x))},${at(y(point.y))}`).join(' ');
    const stroke = { stroke: colour(i), 'stroke-width': 2, 'stroke-dasharray': dashes(i) };
    const legendY = top + i * 18;
    const from = width - right + 14;
    parts.push(
      element('polyline', { points: path, fill: 'none', ...stroke }),
      ...line.points.map((point) =>
        element('circle', { cx: x(point.x), cy: y(point.y), r: 2.5, fill: colour(i) }),
      ),
      element('line', { x1: from, x2: from + 22, y1: legendY, y2: legendY, ...stroke }),
      label(line.name, from + 28, legendY + 4),
    );
  });
  return document(width, height, chart.title, parts);
}

/** The values themselves, or round ones where those would not stand side by side. */
function horizontalMarks(xs: readonly number[], high: number): number[] {
  const values = [...new Set(xs)];
  return values.length <= labelsMax ? values : ticks(high).filter((mark) => mark <= high);
}

function verticalScale(marks: readonly number[], logarithmic: boolean): (y: number) => number {
  const [low, high] = [marks[0] as number, marks.at(-1) as number];
  const place = logarithmic
    ? (y: number) => Math.log(Math.max(y, low) / low) / Math.log(high / low)
    : (y: number) => y / high;
  return (y) => bottom - place(y) * (bottom - top);
}

/** Powers of ten that enclose the values. */
function decades(values: readonly number[]): number[] {
  const positive = values.filter((value) => value > 0);
  const low = Math.floor(Math.log10(Math.min(...positive, 1e9)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...positive, 1e-9))));
  return Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i));
}

function at(value: number): string {
  return String(Math.round(value * 100) / 100);
}

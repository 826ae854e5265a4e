/** Horizontal bars, one a name, with the range over seeds as a line across the end. Pure. */
import type { Stat } from '../summary.ts';
import { colour, document, element, gridLine, label, ticks } from './svg.ts';

export interface Bar {
  readonly name: string;
  readonly stat: Stat;
  /** Bars of one group have one colour. */
  readonly group: number;
}

const width = 800;
const left = 250;
const right = 70;
const top = 40;
const barHeight = 14;
const pitch = 20;

export function barChart(title: string, unit: string, bars: readonly Bar[]): string {
  const marks = ticks(Math.max(...bars.map(({ stat }) => stat.max)));
  const max = marks.at(-1) as number;
  const bottom = top + bars.length * pitch;
  const x = (value: number): number => left + (value / max) * (width - left - right);
  const parts = marks.flatMap((mark) => [
    gridLine(x(mark), top - 4, x(mark), bottom),
    label(String(mark), x(mark), bottom + 16, { 'text-anchor': 'middle' }),
  ]);
  bars.forEach(({ name, stat, group }, i) => {
    const y = top + i * pitch;
    const middle = y + barHeight / 2;
    const fill = colour(group);
    const range = { y1: middle, y2: middle, stroke: fill, 'stroke-width': 2 };
    parts.push(
      label(name, left - 8, y + 11, { 'text-anchor': 'end' }),
      element('rect', {
        ...{ x: left, y, height: barHeight, fill, 'fill-opacity': 0.85 },
        width: Math.max(0.5, x(stat.median) - left),
      }),
      element('line', { x1: x(stat.min), x2: x(stat.max), ...range }),
      label(shortNumber(stat.median), x(stat.max) + 6, y + 11),
    );
  });
  parts.push(label(unit, width - right, bottom + 32, { 'text-anchor': 'end' }));
  return document(width, bottom + 40, title, parts);
}

/** Three digits are what a bar can show. */
function shortNumber(value: number): string {
  return value >= 1000 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

/**
 * SVG as text: escaping, elements, and the frame all charts share. Pure.
 *
 * The page it is shown on may be light or dark: text and grid are a grey that is legible on both, and
 * there is no background.
 */

/** Contrast of at least 4 to 1 against white and against #0d1117. */
const ink = '#7d8590';
const gridOpacity = 0.25;

/** Told apart by the common kinds of colour blindness (Okabe and Ito), legible on light and dark. */
const palette = [
  '#0072b2',
  '#e69f00',
  '#009e73',
  '#d55e00',
  '#cc79a7',
  '#56b4e9',
  '#a6761d',
] as const;

export function colour(index: number): string {
  return palette[index % palette.length] as string;
}

/** Lines beyond the palette's colours are dashed, so that no two look the same. */
export function dashes(index: number): string {
  const rounds = Math.floor(index / palette.length);
  return rounds === 0 ? 'none' : (['6 3', '2 3', '8 3 2 3'][(rounds - 1) % 3] as string);
}

function escapeText(text: string): string {
  return text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
}

export function element(
  name: string,
  attributes: Record<string, string | number>,
  inner = '',
): string {
  const pairs = Object.entries(attributes).map(([key, value]) => ` ${key}="${plain(value)}"`);
  return inner === ''
    ? `<${name}${pairs.join('')}/>`
    : `<${name}${pairs.join('')}>${inner}</${name}>`;
}

export function label(
  text: string,
  x: number,
  y: number,
  more: Record<string, string | number> = {},
): string {
  return element('text', { x, y, fill: ink, ...more }, escapeText(text));
}

export function gridLine(x1: number, y1: number, x2: number, y2: number): string {
  return element('line', { x1, y1, x2, y2, stroke: ink, 'stroke-opacity': gridOpacity });
}

export function document(
  width: number,
  height: number,
  title: string,
  parts: readonly string[],
): string {
  const attributes = {
    xmlns: 'http://www.w3.org/2000/svg',
    viewBox: `0 0 ${width} ${height}`,
    width,
    height,
    role: 'img',
    'font-family': 'system-ui, sans-serif',
    'font-size': 12,
  };
  const heading = label(title, 12, 20, { 'font-size': 14, 'font-weight': 600 });
  const inner = ['', element('title', {}, escapeText(title)), heading, ...parts, ''].join('\n');
  return `${element('svg', attributes, inner)}\n`;
}

/** Up to six round values from 0 to at least `max`. */
export function ticks(max: number): number[] {
  if (!(max > 0)) return [0, 1];
  const rough = max / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough) ?? 10 * power;
  const count = Math.ceil(max / step - 1e-9);
  return Array.from({ length: count + 1 }, (_, i) => Number((i * step).toPrecision(12)));
}

/** Two decimals are a hundredth of a pixel. */
function plain(value: string | number): string {
  return typeof value === 'number' ? String(Math.round(value * 100) / 100) : escapeText(value);
}

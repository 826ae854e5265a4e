/**
 * Durations and sizes of the config file: `30s` in, milliseconds out; `64KiB` in, bytes out.
 *
 * Pure; any thread. Both are zod rows with their bounds, so that a page, an editor schema and the
 * check come from one call. A bare number is refused: nobody can tell 30 ms from 30 s by looking.
 */
import { z } from 'zod';
import { assert } from '../lib/assert.ts';

const millisecondsPer: Readonly<Record<string, number>> = {
  us: 0.001,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
};
const bytesPer: Readonly<Record<string, number>> = {
  B: 1,
  KiB: 1024,
  MiB: 1024 ** 2,
  GiB: 1024 ** 3,
};

const durationPattern = /^(\d{1,12}(?:\.\d{1,6})?)(us|ms|s|m|h)$/;
const sizePattern = /^(\d{1,12}(?:\.\d{1,6})?)(B|KiB|MiB|GiB)$/;
const durationForm = 'must be a duration such as 500us, 5ms, 30s, 2m or 1h';
const sizeForm = 'must be a size such as 512B, 64KiB, 16MiB or 1GiB';

/** Milliseconds, or `undefined` when the text is no duration. */
export function parseDuration(text: string): number | undefined {
  return parseQuantity(text, durationPattern, millisecondsPer);
}

/** Bytes, or `undefined` when the text is no size or no whole number of bytes. */
export function parseSize(text: string): number | undefined {
  const bytes = parseQuantity(text, sizePattern, bytesPer);
  return bytes !== undefined && Number.isInteger(bytes) ? bytes : undefined;
}

/** The shortest exact text of a duration: 90000 is `90s`, 120000 is `2m`. */
export function formatDuration(milliseconds: number): string {
  return formatQuantity(milliseconds, millisecondsPer);
}

/** The shortest exact text of a size: 65536 is `64KiB`. */
export function formatSize(bytes: number): string {
  return formatQuantity(bytes, bytesPer);
}

/** A duration between two others, both included. The loaded value is in milliseconds. */
export function duration(min: string, max: string) {
  return quantity('duration', durationPattern, durationForm, parseDuration, min, max);
}

/** A size between two others, both included. The loaded value is in bytes. */
export function size(min: string, max: string) {
  return quantity('size', sizePattern, sizeForm, parseSize, min, max);
}

function quantity(
  kind: 'duration' | 'size',
  pattern: RegExp,
  form: string,
  parse: (text: string) => number | undefined,
  min: string,
  max: string,
) {
  const lowest = parse(min);
  const highest = parse(max);
  assert(lowest !== undefined && highest !== undefined, 'bounds are written in the same units');
  assert(lowest <= highest);
  return z
    .string({ error: form })
    .regex(pattern, { error: form })
    .meta({ quantity: kind, range: `${min} to ${max}` })
    .transform((text, context): number => {
      const value = parse(text);
      if (value !== undefined && value >= lowest && value <= highest) return value;
      const message = value === undefined ? form : `must be between ${min} and ${max}`;
      context.issues.push({ code: 'custom', message, input: text });
      return z.NEVER;
    });
}

function parseQuantity(
  text: string,
  pattern: RegExp,
  units: Readonly<Record<string, number>>,
): number | undefined {
  const match = pattern.exec(text);
  const unit = units[match?.[2] ?? ''];
  if (match === null || unit === undefined) return undefined;
  // Rounded to a nanosecond: 0.3 * 1000 must not become 299.99999999999994.
  return Math.round(Number(match[1]) * unit * 1e6) / 1e6;
}

function formatQuantity(value: number, units: Readonly<Record<string, number>>): string {
  const [smallest = ''] = Object.keys(units);
  if (value === 0) return `0${smallest}`;
  for (const [name, unit] of Object.entries(units).reverse()) {
    const count = Math.round((value / unit) * 1e6) / 1e6;
    if (Number.isInteger(count)) return `${count}${name}`;
  }
  return `${value / (units[smallest] ?? 1)}${smallest}`;
}

/**
 * The two rows with units: `30s` in, milliseconds out; `64KiB` in, bytes out.
 *
 * Pure; load and reload. Each is a zod row with its bounds, so that a page, an editor schema and the
 * check come from one call.
 */
import { z } from 'zod';
import { assert } from '../lib/assert.ts';
import { durationPattern, parseDuration, parseSize, sizePattern } from '../lib/quantity.ts';

/** A duration between two others, both included. The loaded value is in milliseconds. */
export function duration(min: string, max: string) {
  const form = 'must be a duration such as 500us, 5ms, 30s, 2m or 1h';
  return quantity('duration', durationPattern, form, parseDuration, min, max);
}

/** A size between two others, both included. The loaded value is in bytes. */
export function size(min: string, max: string) {
  const form = 'must be a size such as 512B, 64KiB, 16MiB or 1GiB';
  return quantity('size', sizePattern, form, parseSize, min, max);
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

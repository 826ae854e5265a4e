/**
 * The two rows with units: `30s` in, milliseconds out; `64KiB` in, bytes out.
 *
 * Pure; load and reload. Each is a zod row with its bounds, so that a page, an editor schema and the
 * check come from one call.
 */
import { z } from 'zod';
import { assert } from '../lib/assert.ts';
import { durationPattern, parseDuration, parseSize, sizePattern } from '../lib/quantity.ts';

/**
 * A duration between two others, both included, or one of the words. The loaded value is in
 * milliseconds; a word stays as it is.
 */
export function duration<W extends string = never>(min: string, max: string, ...words: W[]) {
  const form = 'must be a duration such as 500us, 5ms, 30s, 2m or 1h';
  return quantity('duration', durationPattern, form, parseDuration, min, max, words);
}

/** A size between two others, both included, or one of the words. The loaded value is in bytes. */
export function size<W extends string = never>(min: string, max: string, ...words: W[]) {
  const form = 'must be a size such as 512B, 64KiB, 16MiB or 1GiB';
  return quantity('size', sizePattern, form, parseSize, min, max, words);
}

function quantity<W extends string>(
  kind: 'duration' | 'size',
  ofNumbers: RegExp,
  formOfNumbers: string,
  parse: (text: string) => number | undefined,
  min: string,
  max: string,
  words: readonly W[],
) {
  const named = words.map((word) => `, or ${word}`).join('');
  const form = formOfNumbers + named;
  const pattern =
    words.length === 0 ? ofNumbers : new RegExp(`^(${words.join('|')})$|${ofNumbers.source}`);
  const wordOf = (text: string): W | undefined => words.find((word) => word === text);
  const lowest = parse(min);
  const highest = parse(max);
  assert(lowest !== undefined && highest !== undefined, 'bounds are written in the same units');
  assert(lowest <= highest);
  return z
    .string({ error: form })
    .regex(pattern, { error: form })
    .meta({ quantity: kind, range: `${min} to ${max}${named}` })
    .transform((text, context): number | W => {
      const word = wordOf(text);
      if (word !== undefined) return word;
      const value = parse(text);
      if (value !== undefined && value >= lowest && value <= highest) return value;
      const message = value === undefined ? form : `must be between ${min} and ${max}${named}`;
      context.issues.push({ code: 'custom', message, input: text });
      return z.NEVER;
    });
}

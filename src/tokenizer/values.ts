/**
 * How many values a JSON text holds: what it takes in memory once it is parsed, and again in the hands of a
 * template. Pure.
 *
 * A body of 16 MiB may hold five million empty lists. A thread that reaches its heap limit can take the
 * process with it, so what would come near it is counted first and left to an estimate.
 */
import { comma, openBrace, openBracket, quote, skipString } from '../protocol/json-skip.ts';

/** 100 to 200 MB once parsed; a prompt of a million ids has as many values. */
export const bodyValuesMax = 2_000_000;
/** A template's own objects around them take 200 bytes each. */
export const chatValuesMax = 300_000;

/** Counts a list and its first value once each. False as well for bytes that are no JSON in their texts; what else is no JSON the parser finds. */
export function holdsAtMost(bytes: Uint8Array, start: number, end: number, most: number): boolean {
  let values = 1;
  for (let p = start; p < end; ) {
    const c = bytes[p] as number;
    if (c === quote) {
      p = skipString(bytes, p + 1, end);
      if (p < 0) return false;
      continue;
    }
    const isValue = c === comma || c === openBrace || c === openBracket;
    if (isValue && ++values > most) return false;
    p++;
  }
  return true;
}

/** Of values that were parsed. */
export function hasAtMost(value: unknown, most: number): boolean {
  const open: unknown[] = [value];
  let left = most;
  while (open.length > 0) {
    const next = open.pop();
    if (typeof next !== 'object' || next === null) continue;
    const children = Object.values(next);
    left -= children.length;
    if (left < 0) return false;
    for (const child of children) if (typeof child === 'object') open.push(child);
  }
  return true;
}

/** Bytes with some ranges replaced: how a body or an event is changed without being parsed. Pure. */
import { Buffer } from 'node:buffer';

/** `bytes` in place of [start, end). */
export interface Edit {
  readonly start: number;
  readonly end: number;
  readonly bytes: Uint8Array;
}

export function edit(start: number, end: number, text: string | Uint8Array): Edit {
  return { start, end, bytes: typeof text === 'string' ? Buffer.from(text) : text };
}

/** A copy of source[start, end) with the edits made, which do not overlap. */
export function edited(
  source: Uint8Array,
  start: number,
  end: number,
  edits: readonly Edit[],
): Buffer {
  const parts: Uint8Array[] = [];
  let at = start;
  for (const { start: from, end: to, bytes } of [...edits].sort((a, b) => a.start - b.start)) {
    parts.push(source.subarray(at, from), bytes);
    at = to;
  }
  parts.push(source.subarray(at, end));
  return Buffer.concat(parts);
}

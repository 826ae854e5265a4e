/** Bytes with some ranges replaced: how a body or an event is changed without being parsed. Pure. */
import { Buffer } from 'node:buffer';

const nothing = new Uint8Array(0);
/** Up to here a loop is quicker than a view and a call into the runtime. */
const nearBytes = 48;

/** `bytes` in place of [start, end). */
export interface Edit {
  readonly start: number;
  readonly end: number;
  readonly bytes: Uint8Array;
}

export const noEdits: readonly Edit[] = [];

export function edit(start: number, end: number, text: string | Uint8Array): Edit {
  return { start, end, bytes: typeof text === 'string' ? Buffer.from(text) : text };
}

/** A copy of source[start, end) with the edits made, which do not overlap, and `tail` behind it. */
export function edited(
  source: Uint8Array,
  start: number,
  end: number,
  edits: readonly Edit[],
  tail: Uint8Array = nothing,
): Buffer {
  let length = end - start + tail.length;
  for (const { start: from, end: to, bytes } of edits) length += bytes.length - (to - from);
  const target = Buffer.allocUnsafe(length);
  const ordered = edits.length < 2 ? edits : [...edits].sort((a, b) => a.start - b.start);
  let at = start;
  let filled = 0;
  for (const { start: from, end: to, bytes } of ordered) {
    filled = put(target, filled, source, at, from);
    filled = put(target, filled, bytes, 0, bytes.length);
    at = to;
  }
  filled = put(target, filled, source, at, end);
  put(target, filled, tail, 0, tail.length);
  return target;
}

/** Copies source[start, end) to `at`, which may be further down in the same bytes; returns the position behind it. */
export function put(
  target: Uint8Array,
  at: number,
  source: Uint8Array,
  start: number,
  end: number,
): number {
  const length = end - start;
  if (length > nearBytes) target.set(source.subarray(start, end), at);
  else for (let i = 0; i < length; i++) target[at + i] = source[start + i] as number;
  return at + length;
}

/** Nothing takes the place of what goes. */
export function areCuts(edits: readonly Edit[]): boolean {
  for (const { bytes } of edits) if (bytes.length > 0) return false;
  return true;
}

/** Moves bytes[start, end) without `cuts`, which are in order, down to `at`; returns its new end. */
export function closeUp(
  bytes: Uint8Array,
  at: number,
  start: number,
  end: number,
  cuts: readonly Edit[],
): number {
  let to = at;
  let from = start;
  for (const cut of cuts) {
    to = moveDown(bytes, to, from, cut.start);
    from = cut.end;
  }
  return moveDown(bytes, to, from, end);
}

function moveDown(bytes: Uint8Array, to: number, start: number, end: number): number {
  if (to === start) return end;
  if (end - start > nearBytes) bytes.copyWithin(to, start, end);
  else put(bytes, to, bytes, start, end);
  return to + end - start;
}

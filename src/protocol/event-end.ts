/**
 * Whether a stream of events stands between two of them, from its last bytes. Pure.
 *
 * An event ends with an empty line; lines end with LF, CRLF or CR, and the LF of the last CRLF may be
 * still to come. Only there may an event of ours follow.
 */
const lf = 0x0a;
const cr = 0x0d;
const isLineEnd = (byte: number): boolean => byte === lf || byte === cr;

/** The last four bytes, packed, after `data[start, end)` has followed `tail`; 0 before the first. */
export function tailAfter(tail: number, data: Uint8Array, start: number, end: number): number {
  let packed = tail;
  for (let i = Math.max(start, end - 4); i < end; i++) packed = (packed << 8) | (data[i] as number);
  return packed;
}

export function isBetweenEvents(tail: number): boolean {
  if (tail === 0) return true;
  const last = tail & 0xff;
  const before = (tail >>> 8) & 0xff;
  if (!isLineEnd(last)) return false;
  const isPair = last === lf && before === cr;
  return isLineEnd(isPair ? (tail >>> 16) & 0xff : before);
}

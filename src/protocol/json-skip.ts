/**
 * JSON validator over bytes: skips one value and says where it ends, or why it is not JSON.
 * Pure; any thread; never blocks, never allocates, never recurses.
 *
 * Accepts exactly what JSON.parse accepts (RFC 8259), with a depth cap and a key budget on top.
 * Long strings are crossed eight bytes at a time: that is where the bytes of a prompt are. Bytes at
 * and after `end` are never looked at, so a view may be longer than its message. UTF-8 is not
 * checked here: `isUtf8` of node:buffer does that natively for a whole body.
 */

/** Why a value is not acceptable; all negative, so that a position is told apart by its sign. */
export const malformed = -1;
export const tooDeep = -2;
export const tooManyKeys = -3;

export const quote = 0x22;
export const comma = 0x2c;
export const colon = 0x3a;
export const openBracket = 0x5b;
export const closeBracket = 0x5d;
export const openBrace = 0x7b;
export const closeBrace = 0x7d;
const backslash = 0x5c;
const minus = 0x2d;
const zero = 0x30;

/** No caller may ask for more levels than the stack of open containers has. */
export const depthLimit = 1024;
const containers = new Uint8Array(depthLimit);

/** Keys that skipKey may still pass. One synchronous walk owns it at a time. */
let keysLeft = 0;

/** Sets how many keys the walk that follows may contain. */
export function allowKeys(count: number): void {
  keysLeft = count;
}

/** First position at or after `p` that is not JSON whitespace. */
export function skipSpace(bytes: Uint8Array, p: number, end: number): number {
  while (p < end) {
    const c = bytes[p] as number;
    if (c > 0x20 || (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09)) return p;
    p++;
  }
  return p;
}

/** Skips the value that starts at `p`, whitespace before it allowed; returns its end or a reason. */
export function skipValue(bytes: Uint8Array, p: number, end: number, depthMax: number): number {
  let depth = 0;
  value: for (;;) {
    p = skipSpace(bytes, p, end);
    if (p >= end) return malformed;
    const c = bytes[p] as number;
    if (c === quote) {
      p = skipString(bytes, p + 1, end);
      if (p < 0) return malformed;
    } else if (c === openBrace || c === openBracket) {
      if (depth >= depthMax) return tooDeep;
      containers[depth++] = c;
      p = skipSpace(bytes, p + 1, end);
      if (p >= end) return malformed;
      // The closing byte is the opening byte plus two, for braces and for brackets.
      if (bytes[p] === c + 2) {
        p++;
        depth--;
      } else if (c === openBracket) {
        continue;
      } else {
        p = skipKey(bytes, p, end);
        if (p < 0) return p;
        continue;
      }
    } else {
      p = skipScalar(bytes, p, end);
      if (p < 0) return malformed;
    }
    for (;;) {
      if (depth === 0) return p;
      p = skipSpace(bytes, p, end);
      if (p >= end) return malformed;
      const open = containers[depth - 1] as number;
      const next = bytes[p++] as number;
      if (next === comma) {
        if (open === openBracket) continue value;
        p = skipKey(bytes, skipSpace(bytes, p, end), end);
        if (p < 0) return p;
        continue value;
      }
      if (next !== open + 2) return malformed;
      depth--;
    }
  }
}

/** Skips `"key" :` at `p`; returns the position after the colon or a reason. */
export function skipKey(bytes: Uint8Array, p: number, end: number): number {
  if (p >= end || bytes[p] !== quote) return malformed;
  p = skipString(bytes, p + 1, end);
  if (p < 0) return malformed;
  if (keysLeft-- <= 0) return tooManyKeys;
  if (p < end && bytes[p] === colon) return p + 1;
  p = skipSpace(bytes, p, end);
  return p < end && bytes[p] === colon ? p + 1 : malformed;
}

/** Strings up to this length are crossed by the byte: most keys and small values. */
const nearBytes = 24;

/** Skips a string from after its opening quote; returns the position after the closing one. */
export function skipString(bytes: Uint8Array, p: number, end: number): number {
  const near = Math.min(p + nearBytes, end);
  while (p < near) {
    const c = bytes[p] as number;
    if (c === quote) return p + 1;
    if (c < 0x20) return malformed;
    if (c === backslash) {
      p = skipEscape(bytes, p, end);
      if (p < 0) return malformed;
    } else p++;
  }
  return p < end ? skipLongString(bytes, p, end) : malformed;
}

let lastBuffer: ArrayBufferLike = new ArrayBuffer(0);
let lastView: DataView = new DataView(lastBuffer);

/** A view over the whole buffer of `bytes`: the arena is one buffer, so it is made once. */
export function wordsOf(bytes: Uint8Array): DataView {
  const buffer = bytes.buffer;
  if (buffer !== lastBuffer) {
    lastBuffer = buffer;
    lastView = new DataView(buffer);
  }
  return lastView;
}

/**
 * Marks, in a word, every byte that a string may not simply contain. `hasless(x, n)` is
 * (x - n) & ~x & 0x80 per byte; flipping bit 1 moves the quote (0x22) to 0x20 and keeps the control
 * codes below it, so one comparison with 0x21 finds both. A borrow can mark a byte falsely only
 * above a true mark, and the lowest mark is the only one used.
 */
function marksOf(word: number): number {
  return (
    (((word ^ 0x02020202) - 0x21212121) | ((word ^ 0x5c5c5c5c) - 0x01010101)) & ~word & 0x80808080
  );
}

function skipLongString(bytes: Uint8Array, p: number, end: number): number {
  const words = wordsOf(bytes);
  const offset = bytes.byteOffset;
  for (;;) {
    let q = p + offset;
    const last = end + offset - 8;
    while (q <= last) {
      const low = marksOf(words.getInt32(q, true));
      const high = marksOf(words.getInt32(q + 4, true));
      if ((low | high) !== 0) {
        q += low !== 0 ? lowestByte(low) : 4 + lowestByte(high);
        break;
      }
      q += 8;
    }
    p = q - offset;
    for (;;) {
      if (p >= end) return malformed;
      const c = bytes[p] as number;
      if (c === quote) return p + 1;
      if (c < 0x20) return malformed;
      if (c === backslash) break;
      p++;
    }
    p = skipEscape(bytes, p, end);
    if (p < 0) return malformed;
  }
}

function lowestByte(marks: number): number {
  return (31 - Math.clz32(marks & -marks)) >> 3;
}

function skipEscape(bytes: Uint8Array, p: number, end: number): number {
  if (p + 1 >= end) return malformed;
  switch (bytes[p + 1]) {
    case 0x22: // "
    case 0x2f: // /
    case 0x5c: // backslash
    case 0x62: // b
    case 0x66: // f
    case 0x6e: // n
    case 0x72: // r
    case 0x74: // t
      return p + 2;
    case 0x75: // u
      if (p + 6 > end) return malformed;
      for (let i = p + 2; i < p + 6; i++) if (!isHex(bytes[i] as number)) return malformed;
      return p + 6;
    default:
      return malformed;
  }
}

function isHex(c: number): boolean {
  return isDigit(c) || ((c | 0x20) >= 0x61 && (c | 0x20) <= 0x66);
}

function isDigit(c: number): boolean {
  return c >= zero && c <= 0x39;
}

function skipScalar(bytes: Uint8Array, p: number, end: number): number {
  switch (bytes[p]) {
    case 0x74:
      return skipLiteral(bytes, p, end, 'true');
    case 0x66:
      return skipLiteral(bytes, p, end, 'false');
    case 0x6e:
      return skipLiteral(bytes, p, end, 'null');
    default:
      return skipNumber(bytes, p, end);
  }
}

function skipLiteral(bytes: Uint8Array, p: number, end: number, literal: string): number {
  if (p + literal.length > end) return malformed;
  for (let i = 0; i < literal.length; i++) {
    if (bytes[p + i] !== literal.charCodeAt(i)) return malformed;
  }
  return p + literal.length;
}

function skipNumber(bytes: Uint8Array, p: number, end: number): number {
  if (bytes[p] === minus) p++;
  if (p >= end) return malformed;
  if (bytes[p] === zero) p++;
  else {
    p = skipDigits(bytes, p, end);
    if (p < 0) return malformed;
  }
  if (p < end && bytes[p] === 0x2e) {
    p = skipDigits(bytes, p + 1, end);
    if (p < 0) return malformed;
  }
  if (p < end && ((bytes[p] as number) | 0x20) === 0x65) {
    p++;
    if (p < end && (bytes[p] === 0x2b || bytes[p] === minus)) p++;
    p = skipDigits(bytes, p, end);
  }
  return p;
}

function skipDigits(bytes: Uint8Array, p: number, end: number): number {
  const first = p;
  while (p < end && isDigit(bytes[p] as number)) p++;
  return p > first ? p : malformed;
}

/**
 * JSON validator over bytes: skips one value and says where it ends, or why it is not JSON.
 * Pure; any thread; never blocks, never allocates, never recurses.
 *
 * Accepts exactly what JSON.parse accepts (RFC 8259), with a depth cap and a key budget on top.
 * Long strings are crossed sixteen bytes at a time: that is where the bytes of a prompt are. Bytes at
 * and after `end` are never looked at, so a view may be longer than its message. UTF-8 is not
 * checked here: `isUtf8` of node:buffer does that natively for a whole body.
 */

/** Why a value is not acceptable; all negative, so that a position is told apart by its sign. */
export const malformed = -1;
export const tooDeep = -2;
export const tooManyKeys = -3;

export const quote = 0x22;
export const comma = 0x2c;
const colon = 0x3a;
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

let lastBytes: Uint8Array = new Uint8Array(0);
let lastBuffer: ArrayBufferLike = lastBytes.buffer;
let lastView: DataView = new DataView(lastBuffer);

/**
 * A view over the whole buffer of `bytes`: the arena is one buffer, so it is made once. Asking
 * a typed array for its buffer is a call into the runtime, so that is done once per array.
 */
export function wordsOf(bytes: Uint8Array): DataView {
  if (bytes === lastBytes) return lastView;
  lastBytes = bytes;
  const buffer = bytes.buffer;
  if (buffer !== lastBuffer) {
    lastBuffer = buffer;
    lastView = new DataView(buffer);
  }
  return lastView;
}

/** Escapes closer than this (code, JSON in JSON) are cheaper to find by the byte. */
const denseBytes = 12;

function skipLongString(bytes: Uint8Array, p: number, end: number): number {
  let lastEscape = p - denseBytes;
  for (;;) {
    const isDense = p - lastEscape < denseBytes;
    lastEscape = p;
    if (!isDense) p = skipPlainWords(bytes, p, end);
    for (;;) {
      if (p >= end) return malformed;
      const c = bytes[p] as number;
      if (c === quote) return p + 1;
      if (c < 0x20) return malformed;
      if (c === backslash) break;
      p++;
    }
    p = skipEscapes(bytes, p, end);
    if (p < 0) return malformed;
  }
}

/** Skips the escape at `p` and those right behind it: line breaks and quotes come in runs. */
function skipEscapes(bytes: Uint8Array, p: number, end: number): number {
  do {
    p = skipEscape(bytes, p, end);
  } while (p > 0 && p < end && bytes[p] === backslash);
  return p;
}

/**
 * Skips bytes that a string may simply contain; ends at the first other byte, or less than sixteen
 * bytes before `end`.
 *
 * `hasless(x, n)` is (x - n) & ~x & 0x80 per byte; flipping bit 1 moves the quote (0x22) to 0x20
 * and keeps the control codes below it, so one comparison with 0x21 finds both. A borrow can mark
 * a byte falsely only above a true mark, and the lowest mark is the only one used. The terms
 * are written out because a call that the compiler does not inline here doubles the cost of a scan.
 */
function skipPlainWords(bytes: Uint8Array, p: number, end: number): number {
  const words = wordsOf(bytes);
  const offset = bytes.byteOffset;
  let q = p + offset;
  const lastGroup = end + offset - 16;
  while (q <= lastGroup) {
    const a = words.getInt32(q, true);
    const b = words.getInt32(q + 4, true);
    const c = words.getInt32(q + 8, true);
    const d = words.getInt32(q + 12, true);
    const inA = (((a ^ 0x02020202) - 0x21212121) | ((a ^ 0x5c5c5c5c) - 0x01010101)) & ~a;
    const inB = (((b ^ 0x02020202) - 0x21212121) | ((b ^ 0x5c5c5c5c) - 0x01010101)) & ~b;
    const inC = (((c ^ 0x02020202) - 0x21212121) | ((c ^ 0x5c5c5c5c) - 0x01010101)) & ~c;
    const inD = (((d ^ 0x02020202) - 0x21212121) | ((d ^ 0x5c5c5c5c) - 0x01010101)) & ~d;
    if (((inA | inB | inC | inD) & 0x80808080) !== 0) {
      const marks =
        packMarks(inA) | (packMarks(inB) << 4) | (packMarks(inC) << 8) | (packMarks(inD) << 12);
      return q - offset + 31 - Math.clz32(marks & -marks);
    }
    q += 16;
  }
  return q - offset;
}

/** Gathers bits 7, 15, 23 and 31 into bits 0 to 3; no branch, for the branch would be a guess. */
function packMarks(word: number): number {
  return Math.imul((word & 0x80808080) >>> 7, 0x10204080) >>> 28;
}

/** What may follow a backslash: 1 alone, 2 with four hex digits. */
const escapeKinds = new Uint8Array(256);
for (const c of '"/\\bfnrt') escapeKinds[c.charCodeAt(0)] = 1;
escapeKinds[0x75] = 2;

/** 1 for hex digits. */
const hexDigits = new Uint8Array(256);
for (const c of '0123456789abcdefABCDEF') hexDigits[c.charCodeAt(0)] = 1;

function skipEscape(bytes: Uint8Array, p: number, end: number): number {
  if (p + 1 >= end) return malformed;
  const kind = escapeKinds[bytes[p + 1] as number] as number;
  if (kind === 1) return p + 2;
  if (kind === 0 || p + 6 > end) return malformed;
  const isHex =
    (hexDigits[bytes[p + 2] as number] as number) &
    (hexDigits[bytes[p + 3] as number] as number) &
    (hexDigits[bytes[p + 4] as number] as number) &
    (hexDigits[bytes[p + 5] as number] as number);
  return isHex === 1 ? p + 6 : malformed;
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

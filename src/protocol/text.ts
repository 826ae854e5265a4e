/**
 * Short strings out of bytes. Pure but for two small caches per thread; never blocks.
 *
 * Values that repeat (model names, finish reasons) are interned, so a request allocates no string for
 * them. The table is direct-mapped and bounded: an attacker's names only push others out.
 */
import { Buffer } from 'node:buffer';
import { equalsAscii, type JsonCursor } from './json-cursor.ts';

const internSlots = 256;
const internBytesMax = 128;
const interned: string[] = Array.from({ length: internSlots }, () => '');

let lastBuffer: ArrayBufferLike = new ArrayBuffer(0);
let lastView: Buffer = Buffer.from(lastBuffer);

/** The bytes as UTF-8 text. */
export function textOf(bytes: Uint8Array, start: number, end: number): string {
  return viewOf(bytes).toString('utf8', bytes.byteOffset + start, bytes.byteOffset + end);
}

/** The bytes as Latin-1 text. */
export function latin1Of(bytes: Uint8Array, start: number, end: number): string {
  return viewOf(bytes).toString('latin1', bytes.byteOffset + start, bytes.byteOffset + end);
}

function viewOf({ buffer }: Uint8Array): Buffer {
  if (buffer !== lastBuffer) {
    lastBuffer = buffer;
    lastView = Buffer.from(buffer);
  }
  return lastView;
}

/** The bytes as text, shared with earlier calls where the text is short and plain ASCII. */
export function internedText(bytes: Uint8Array, start: number, end: number): string {
  if (end - start > internBytesMax) return textOf(bytes, start, end);
  let hash = end - start;
  for (let i = start; i < end; i++) hash = Math.imul(hash ^ (bytes[i] as number), 0x01000193);
  const slot = (hash ^ (hash >>> 15)) & (internSlots - 1);
  const known = interned[slot] as string;
  if (equalsAscii(bytes, start, end, known)) return known;
  const text = textOf(bytes, start, end);
  interned[slot] = text;
  return text;
}

/** The text of a valid JSON string whose quotes are at `start` and `end - 1`. */
export function jsonText(bytes: Uint8Array, start: number, end: number): string {
  for (let i = start + 1; i < end - 1; i++) {
    if (bytes[i] === 0x5c) return JSON.parse(textOf(bytes, start, end)) as string;
  }
  return internedText(bytes, start + 1, end - 1);
}

/** True when the key that `cursor` is at is `name`, escaped or not. */
export function keyReads(cursor: JsonCursor, name: string): boolean {
  if (cursor.keyIs(name)) return true;
  const length = cursor.keyEnd - cursor.keyStart;
  if (length <= name.length || length > 6 * name.length) return false;
  return jsonText(cursor.bytes, cursor.keyStart - 1, cursor.keyEnd + 1) === name;
}

/** The value of a valid JSON number. */
export function jsonNumber(bytes: Uint8Array, start: number, end: number): number {
  if (end - start > 9) return Number(textOf(bytes, start, end));
  let value = 0;
  for (let i = start; i < end; i++) {
    const digit = (bytes[i] as number) - 0x30;
    if (digit < 0 || digit > 9) return Number(textOf(bytes, start, end));
    value = value * 10 + digit;
  }
  return value;
}

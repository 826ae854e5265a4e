/**
 * Header lists as bytes, to cross threads through shared memory. Pure; any thread; never blocks.
 *
 * Layout, little-endian: u16 number of strings, then per string u16 length and Latin-1 bytes. Strings
 * alternate name, value. What does not fit, or is not Latin-1, is a return value.
 */
import { assert } from '../lib/assert.ts';
import { internedText, latin1Of } from './text.ts';

const lengthMax = 0xffff;

/** Writes a flat list at `offset`; returns the bytes written, or -1 when it does not fit. */
export function encodeHeadersInto(
  target: Uint8Array,
  offset: number,
  list: readonly string[],
): number {
  assert(list.length % 2 === 0, 'names and values come in pairs');
  if (list.length > lengthMax || offset + 2 > target.length) return -1;
  let p = writeU16(target, offset, list.length);
  for (let i = 0; i < list.length; i++) {
    const text = list[i] as string;
    if (text.length > lengthMax || p + 2 + text.length > target.length) return -1;
    p = writeU16(target, p, text.length);
    for (let k = 0; k < text.length; k++) {
      const c = text.charCodeAt(k);
      if (c > 0xff) return -1;
      target[p++] = c;
    }
  }
  return p - offset;
}

/** The list as bytes of its own; undefined when it cannot be written. */
export function encodeHeaders(list: readonly string[]): Uint8Array | undefined {
  let size = 2;
  for (let i = 0; i < list.length; i++) size += 2 + (list[i] as string).length;
  const bytes = new Uint8Array(size);
  return encodeHeadersInto(bytes, 0, list) === size ? bytes : undefined;
}

/** Reads what encodeHeadersInto wrote into `list`, replacing its content; returns `list`. */
export function decodeHeaders(bytes: Uint8Array, offset = 0, list: string[] = []): string[] {
  list.length = 0;
  assert(offset + 2 <= bytes.length, 'a header list starts inside its bytes');
  const count = readU16(bytes, offset);
  const first = offset + 2;
  let end = first;
  for (let i = 0; i < count; i++) {
    assert(end + 2 <= bytes.length, 'a header list ends inside its bytes');
    end += 2 + readU16(bytes, end);
    assert(end <= bytes.length, 'a header ends inside its bytes');
  }
  // One call into native code for all values; names repeat, so they are interned.
  const text = latin1Of(bytes, first, end);
  for (let i = 0, p = first; i < count; i++) {
    const start = p + 2;
    p = start + readU16(bytes, p);
    const isName = i % 2 === 0;
    list.push(isName ? internedText(bytes, start, p) : text.slice(start - first, p - first));
  }
  return list;
}

function writeU16(target: Uint8Array, p: number, value: number): number {
  target[p] = value & 0xff;
  target[p + 1] = value >>> 8;
  return p + 2;
}

function readU16(bytes: Uint8Array, p: number): number {
  return (bytes[p] as number) | ((bytes[p + 1] as number) << 8);
}

/**
 * Chained 64-bit hashes of the head of a prompt, for prefix affinity. Pure; any thread; no allocation.
 *
 * Equal hashes at one depth mean equal bytes up to there. Four 32-bit lanes of multiply,
 * add and rotate keep the multiplier busy (0.15 ns a byte); the two halves of a result each mix all
 * four lanes. Not a cryptographic hash: a collision costs a cache miss on a
 * replica, never a wrong answer.
 */
import { mix32 } from '../lib/mix32.ts';
import { wordsOf } from './json-skip.ts';

/** Bytes of one block: a few hundred tokens, the grain of a shared system prompt. */
export const prefixBlockBytes = 2048;
/** Depths, in blocks, at which a hash is emitted. */
export const prefixDepths: readonly number[] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];

/** Writes one pair of int32 per depth that `bytes[start, end)` reaches; returns how many pairs. */
export function hashPrefix(
  bytes: Uint8Array,
  start: number,
  end: number,
  pairs: Int32Array,
): number {
  if (end - start < prefixBlockBytes) return 0;
  const words = wordsOf(bytes);
  let p = bytes.byteOffset + start;
  const base = p;
  let a = 0x243f6a88;
  let b = 0x85a308d3;
  let c = 0x13198a2e;
  let d = 0x03707344;
  for (let i = 0; i < prefixDepths.length; i++) {
    const blockEnd = base + (prefixDepths[i] as number) * prefixBlockBytes;
    if (blockEnd > bytes.byteOffset + end) return i;
    for (; p < blockEnd; p += 32) {
      a = Math.imul(a ^ words.getInt32(p, true), 0x9e3779b1) + words.getInt32(p + 4, true);
      a = (a << 13) | (a >>> 19);
      b = Math.imul(b ^ words.getInt32(p + 8, true), 0x85ebca6b) + words.getInt32(p + 12, true);
      b = (b << 15) | (b >>> 17);
      c = Math.imul(c ^ words.getInt32(p + 16, true), 0xc2b2ae35) + words.getInt32(p + 20, true);
      c = (c << 11) | (c >>> 21);
      d = Math.imul(d ^ words.getInt32(p + 24, true), 0x27d4eb2f) + words.getInt32(p + 28, true);
      d = (d << 17) | (d >>> 15);
    }
    pairs[2 * i] = mix32(mix32(mix32(mix32(a) ^ b) ^ c) ^ d);
    pairs[2 * i + 1] = mix32(mix32(mix32(mix32(d ^ 0x5bd1e995) ^ c) ^ b) ^ a);
  }
  return prefixDepths.length;
}

/** So much of the beginning of a prompt is its affinity key (System B). */
const headBytes = 64;
/** Where the text of the first message may begin: behind a role, a name and white space. */
const scaffoldBytesMax = 256;
const contentKey = [...'"content"'].map((char) => char.charCodeAt(0));

/**
 * Hash of the first 64 bytes of the text of a prompt, bytes[start, end) being the value as it came: a
 * string, or messages, of which the first `content` counts. Written as one pair of int32.
 */
export function hashHead(bytes: Uint8Array, start: number, end: number, pair: Int32Array): void {
  const from = textStart(bytes, start, end);
  let a = 0x243f6a88;
  let b = 0x85a308d3;
  for (let p = from; p < Math.min(end, from + headBytes); p++) {
    a = Math.imul(a ^ (bytes[p] as number), 0x9e3779b1);
    b = Math.imul(b ^ (bytes[p] as number), 0x85ebca6b) + ((a << 13) | (a >>> 19));
  }
  pair[0] = mix32(a);
  pair[1] = mix32(b);
}

function textStart(bytes: Uint8Array, start: number, end: number): number {
  if (bytes[start] === 0x22) return start + 1;
  const last = Math.min(end, start + scaffoldBytesMax) - contentKey.length;
  for (let p = start; p < last; p++) {
    if (bytes[p] !== 0x22 || !contentKey.every((code, i) => bytes[p + i] === code)) continue;
    for (p += contentKey.length; p < end; p++) {
      const byte = bytes[p] as number;
      if (byte > 0x20 && byte !== 0x3a) return byte === 0x22 ? p + 1 : p; // behind the colon and a quote
    }
  }
  return start;
}

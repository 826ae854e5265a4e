/**
 * The key under which a completion may be put together with others: a 64-bit hash of everything in its
 * body but the prompt. Pure; acceptor threads; no allocation.
 *
 * Equal model and sampling are equal bytes, so nothing is parsed. The hash only finds partners: whoever
 * merges bodies compares the bytes.
 */
import { mix32 } from '../lib/mix32.ts';
import type { RequestFacts } from './request-facts.ts';

/** A completion with one text as prompt and one choice, answered as a whole. */
export function isBatchable(facts: RequestFacts): boolean {
  return facts.hasTextPrompt && !facts.stream && facts.n <= 1 && facts.bestOf <= 1;
}

/** Writes the key of a batchable request as one pair of int32, never 0 0. */
export function batchKey(
  body: Uint8Array,
  length: number,
  { promptStart, promptBytes }: RequestFacts,
  pair: Int32Array,
): void {
  let a = 0x243f6a88 ^ promptStart;
  let b = 0x85a308d3 ^ (length - promptBytes);
  for (let p = 0; p < length; p++) {
    if (p === promptStart) p += promptBytes;
    a = Math.imul(a ^ (body[p] as number), 0x9e3779b1);
    b = Math.imul(b ^ (body[p] as number), 0x85ebca6b) + ((a << 13) | (a >>> 19));
  }
  pair[0] = mix32(a);
  pair[1] = mix32(b) || 1;
}

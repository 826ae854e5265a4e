/**
 * How much of a request body is media in base64, which is no text to a tokenizer. Pure; any thread; a few
 * native searches, without a walk through the body.
 *
 * Counted are texts that begin with `data:`, and those under a key `data` (`input_audio`, sources of the Messages
 * API). A text of another kind that is written so is not counted as text: an estimate is then too low, and
 * the engine has the last word.
 */
import { Buffer } from 'node:buffer';
import { quote, skipSpace } from './json-skip.ts';

const trace = '"data';
const urlTrace = 'url"';
const colon = 0x3a;
const backslash = 0x5c;
const space = 0x20;
const slash = 0x2f;

/** Bytes of `body[0, length)`, which is valid JSON, in such texts. */
export function mediaBytes(body: Uint8Array, length: number): number {
  const searched = Buffer.from(body.buffer, body.byteOffset, length);
  let sum = 0;
  for (let p = searched.indexOf(trace); p >= 0; p = searched.indexOf(trace, p)) {
    const isInText = p > 0 && body[p - 1] === backslash;
    p += trace.length;
    if (isInText) continue;
    const start = textFrom(body, p, length);
    if (start < 0) continue;
    const end = searched.indexOf('"', start);
    if (end < 0) break;
    const text = searched.subarray(start, end);
    // Base64 has no spaces and words have: a text is not taken for media by its first letters.
    if (!text.includes(space) && !hasEscape(text)) sum += end - start;
    p = end;
  }
  return sum;
}

/** Whether a text stands under a key that ends in `url`, as media to be fetched does in every API. */
export function hasMediaUrl(body: Uint8Array, length: number): boolean {
  const searched = Buffer.from(body.buffer, body.byteOffset, length);
  for (let p = searched.indexOf(urlTrace); p >= 0; p = searched.indexOf(urlTrace, p)) {
    p = skipSpace(body, p + urlTrace.length, length);
    if (p < length && body[p] === colon && body[skipSpace(body, p + 1, length)] === quote)
      return true;
  }
  return false;
}

/** Where the text begins whose first letters, or whose key, end before `p`; -1: it is no media. */
function textFrom(body: Uint8Array, p: number, length: number): number {
  if (body[p] === colon) return p;
  if (body[p] !== quote) return -1;
  const after = skipSpace(body, p + 1, length);
  if (body[after] !== colon) return -1;
  const value = skipSpace(body, after + 1, length);
  return body[value] === quote ? value + 1 : -1;
}

/** JSON may write a slash of base64 as `\/`; no other escape is in it. */
function hasEscape(text: Buffer): boolean {
  for (let p = text.indexOf(backslash); p >= 0; p = text.indexOf(backslash, p + 2)) {
    if (text[p + 1] !== slash) return true;
  }
  return false;
}

/**
 * Media that a replica would fetch: URLs in a request body that name an image, a video, audio or a
 * file. Pure; any thread; never blocks. An engine that follows them reaches whatever it can reach
 * (CVE-2025-6242), so only the domains of an allow-list and `data:` pass.
 *
 * Counted as media: a text under one of `mediaKeys` at any depth, and a text under `url` inside an
 * object under one of those or under `source` (the Messages API). The body is valid JSON already
 * (request-scanner.ts). A body that can hold none of the keys costs three native searches.
 */
import { Buffer } from 'node:buffer';
import {
  allowKeys,
  depthLimit,
  openBrace,
  quote,
  skipSpace,
  skipString,
  skipValue,
} from './json-skip.ts';
import { jsonText, textOf } from './text.ts';

const mediaKeys: ReadonlySet<string> = new Set(['image_url', 'video_url', 'audio_url', 'file_url']);
/** What must be somewhere in a body with such a key: its end, or an ASCII letter as an escape. */
const traces = ['_url"', 'source"', '\\u00'];

const urlBytesMax = 8 * 1024;
const colon = 0x3a;
const dataScheme = /^data:/i;
/** What two readers of one URL may take for another host. */
const ambiguous = /[\\@\s\p{Cc}]/u;

/** Whether `body[0, length)` names media outside the domains, which are in lower case. */
export function hasForeignMedia(
  body: Uint8Array,
  length: number,
  domains: ReadonlySet<string>,
): boolean {
  const bytes = Buffer.from(body.buffer, body.byteOffset, length);
  if (!traces.some((trace) => bytes.includes(trace))) return false;
  allowKeys(length); // they have been counted
  let holderEnd = 0;
  for (let p = bytes.indexOf(quote); p >= 0; p = bytes.indexOf(quote, p)) {
    const end = skipString(bytes, p + 1, length);
    const after = skipSpace(bytes, end, length);
    if (bytes[after] !== colon) {
      p = end;
      continue;
    }
    const key = keyOf(bytes, p, end);
    const isMedia = mediaKeys.has(key);
    const value = skipSpace(bytes, after + 1, length);
    if (bytes[value] === openBrace && (isMedia || key === 'source')) {
      if (value >= holderEnd) holderEnd = skipValue(bytes, value, length, depthLimit);
    } else if (bytes[value] === quote && (isMedia || (key === 'url' && value < holderEnd))) {
      const valueEnd = skipString(bytes, value + 1, length);
      if (!isAllowed(bytes, value, valueEnd, domains)) return true;
    }
    p = value;
  }
  return false;
}

/** '' for one that is too long to be of interest, whatever its escapes spell. */
function keyOf(bytes: Uint8Array, start: number, end: number): string {
  return end - start > 64 ? '' : jsonText(bytes, start, end);
}

function isAllowed(
  bytes: Uint8Array,
  start: number,
  end: number,
  domains: ReadonlySet<string>,
): boolean {
  if (dataScheme.test(textOf(bytes, start + 1, Math.min(start + 6, end)))) return true;
  if (end - start > urlBytesMax) return false;
  const text = jsonText(bytes, start, end);
  const url = URL.parse(text);
  if (url === null || ambiguous.test(text)) return false;
  if (url.protocol === 'data:') return true;
  return (url.protocol === 'https:' || url.protocol === 'http:') && domains.has(url.hostname);
}

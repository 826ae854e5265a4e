/**
 * Media that a replica would fetch: URLs in a request that name an image, a video, audio or a file.
 * Pure; any thread; never blocks. An engine that follows them reaches whatever it can reach
 * (CVE-2025-6242), and SGLang opens what is the path of a file, so only the domains of an allow-list pass,
 * `data:`, and base64 that is too long for a path.
 *
 * Counted as media: a text under one of `mediaKeys` at any depth, or of `shortKeys` in an input, and a text
 * under `url` inside an object under one of those or under `source` (the Messages API, where `type` says what it is; an engine
 * may look at the URL alone, so it is not asked). The body is valid JSON already (request-scanner.ts).
 * A body that can hold none of the keys costs a few native searches, any other one walk more.
 */
import { Buffer } from 'node:buffer';
import {
  closeBrace,
  closeBracket,
  openBrace,
  openBracket,
  quote,
  skipSpace,
  skipString,
} from './json-skip.ts';
import { jsonText, textOf } from './text.ts';

const mediaKeys: ReadonlySet<string> = new Set(['image_url', 'video_url', 'audio_url', 'file_url']);
/** Of inputs of embeddings, rerankers and images; in messages they are arguments of tools (`"image":"nginx"`). */
const shortKeys: ReadonlySet<string> = new Set(['image', 'video', 'audio']);
/** At the top: where they are media at any depth. */
const inputKeys: ReadonlySet<string> = new Set([
  ...['input', 'query', 'queries', 'documents', 'items'],
  ...['text_1', 'text_2', 'data_1', 'data_2', ...shortKeys],
]);
/** What must be somewhere in a body with such a key: its end, or an ASCII letter as an escape. */
const traces = ['_url"', 'source"', 'image"', 'video"', 'audio"', '\\u00'];

/** Of a URL that is no `data:`. */
export const urlBytesMax = 8 * 1024;
/** PATH_MAX of Linux: nothing as long is a file to whoever is asked for it. */
const pathBytesMax = 4096;
const colon = 0x3a;
const backslash = 0x5c;
const slash = 0x2f;
/** 1 for the letters of base64, of both alphabets. */
const base64Letters = new Uint8Array(256);
for (const c of 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_') {
  base64Letters[c.charCodeAt(0)] = 1;
}
const dataScheme = /^data:/i;
/** What two readers of one URL may take for another host. */
const ambiguous = /[\\@\s\p{Cc}]/u;

/** Whether `body[0, length)` names media outside the domains, which are in lower case. */
export function hasForeignMedia(
  body: Uint8Array,
  length: number,
  domains: ReadonlySet<string>,
): boolean {
  const searched = Buffer.from(body.buffer, body.byteOffset, length);
  if (!traces.some((trace) => searched.includes(trace))) return false;
  let depth = 0;
  /** Depth of the outermost object whose `url` is media; 0: we are in none. */
  let holder = 0;
  let isInput = false;
  for (let p = 0; p < length; ) {
    const c = body[p] as number;
    if (c === quote) {
      const end = skipString(body, p + 1, length);
      const after = skipSpace(body, end, length);
      if (body[after] !== colon) {
        p = end;
        continue;
      }
      // Only a key has a colon behind it.
      const key = keyOf(body, p, end);
      p = skipSpace(body, after + 1, length);
      if (depth === 1) isInput = inputKeys.has(key);
      const isMedia = mediaKeys.has(key) || (isInput && shortKeys.has(key));
      if (body[p] === openBrace) {
        if (holder === 0 && (isMedia || key === 'source')) holder = depth + 1;
      } else if (body[p] === quote && (isMedia || (key === 'url' && holder > 0))) {
        const valueEnd = skipString(body, p + 1, length);
        if (!isAllowed(body, p, valueEnd, domains)) return true;
        p = valueEnd;
      }
      continue;
    }
    if (c === openBrace || c === openBracket) depth++;
    else if (c === closeBrace || c === closeBracket) {
      if (depth === holder) holder = 0;
      depth--;
    }
    p++;
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
  if (isLongBase64(bytes, start + 1, end - 1)) return true;
  return end - start <= urlBytesMax && isAllowedMedia(jsonText(bytes, start, end), domains);
}

/** JSON may write a slash as `\/`. */
function isLongBase64(bytes: Uint8Array, start: number, end: number): boolean {
  let letters = 0;
  for (let p = start; p < end; p++, letters++) {
    if (bytes[p] === backslash && bytes[p + 1] === slash) p++;
    if (base64Letters[bytes[p] as number] === 0) return false;
  }
  return letters > pathBytesMax;
}

/** Whether a replica may be told to fetch this. */
export function isAllowedMedia(text: string, domains: ReadonlySet<string>): boolean {
  if (dataScheme.test(text)) return true;
  const url = URL.parse(text);
  if (url === null || ambiguous.test(text)) return false;
  if (url.protocol === 'data:') return true;
  return (url.protocol === 'https:' || url.protocol === 'http:') && domains.has(url.hostname);
}

/**
 * Finds the `model` field of a multipart form (audio and image routes), and fields that clients may not use.
 * Runs on acceptors; never blocks.
 *
 * Every part is visited, so that a second `model` cannot hide behind a file, but the content of
 * a part is only searched natively for the boundary. Work is bounded: parts, header bytes and field
 * bytes have caps, and one search is linear. What two parsers could read differently is refused.
 */
import { Buffer } from 'node:buffer';
import { errors } from '../errors/catalogue.ts';
import { lookAlikeMessage } from './known-keys.ts';
import { urlBytesMax } from './media-urls.ts';
import { type RestrictedKey, restrictedBit, restrictedKeys } from './request-caps.ts';
import { type RequestFacts, resetRequestFacts } from './request-facts.ts';

const partsMax = 128;
const partHeaderBytesMax = 4096;
const modelBytesMax = 512;
const charset = String.raw`\s*;\s*(charset)=(?:utf-?8|"utf-?8")`;
const quotedBoundary = `"([0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-])"`;
const boundaryPattern = new RegExp(
  `^multipart/form-data(?:${charset})?` +
    String.raw`\s*;\s*boundary=(?:${quotedBoundary}|([0-9A-Za-z'+_.-]{1,70}))(?:${charset})?\s*$`,
  'i',
);

/**
 * The boundary of a content type; '' when it is no usable multipart/form-data. One charset may stand beside
 * it, and must be UTF-8: in any other an engine would read other names than we do.
 */
export function multipartBoundary(contentType: string): string {
  const [, before, quoted, plain, behind] = boundaryPattern.exec(contentType) ?? [];
  return before !== undefined && behind !== undefined ? '' : (quoted ?? plain ?? '');
}

const restrictedNames: ReadonlySet<string> = new Set(restrictedKeys);
/** Fields of a form whose text names media that a replica would fetch; lists have brackets. */
const urlField = /^(?:url|image_url|video_url|audio_url|file_url)(?:\[\d*\])?$/;

/**
 * Sets `facts.model` and where it is, `facts.stream`, `facts.restricted`, and `urls` to what the form names as
 * media, the beginning of those that are too long. 0 when fine, else the number of an entry of errors/.
 */
export function scanMultipartModel(
  body: Uint8Array,
  length: number,
  contentType: string,
  facts: RequestFacts,
  urls: string[] = [],
): number {
  resetRequestFacts(facts);
  urls.length = 0;
  const boundary = multipartBoundary(contentType);
  if (boundary === '') {
    facts.errorParam = 'content-type';
    return errors.BAD_MULTIPART.number;
  }
  const bytes = Buffer.from(body.buffer, body.byteOffset, length);
  const delimiter = Buffer.from(`\r\n--${boundary}`, 'latin1');
  // At the very start, with its line break or without: of text before it each parser has its own idea.
  let at = startsWith(bytes, delimiter, 2) ? -2 : 0;
  if (at === 0 && !startsWith(bytes, delimiter, 0)) return errors.BAD_MULTIPART.number;
  let seenModel = false;
  for (let parts = 0; parts <= partsMax; parts++) {
    const line = at + delimiter.length;
    if (bytes[line] === 0x2d && bytes[line + 1] === 0x2d) return 0;
    if (parts === partsMax || bytes[line] !== 0x0d || bytes[line + 1] !== 0x0a) break;
    const next = bytes.indexOf(delimiter, line);
    if (next < 0) break;
    const contentStart = endOfPartHeaders(bytes, line, next);
    if (contentStart < 0) break;
    const name = fieldName(bytes.toString('latin1', line + 2, contentStart - 2));
    if (name === undefined) break;
    if (name === 'model') {
      if (seenModel) {
        facts.errorParam = 'model';
        return errors.DUPLICATE_KEY.number;
      }
      if (next - contentStart > modelBytesMax) break;
      seenModel = true;
      facts.model = bytes.toString('utf8', contentStart, next);
      facts.modelStart = contentStart;
      facts.modelBytes = next - contentStart;
    } else if (name.toLowerCase() === 'model') {
      facts.errorParam = name;
      facts.errorMessage = lookAlikeMessage(name, 'model');
      return errors.UNKNOWN_PARAM.number;
    } else if (restrictedNames.has(name)) {
      facts.restricted |= restrictedBit(name as RestrictedKey);
    } else if (name === 'stream') {
      const text = next - contentStart <= 5 ? bytes.toString('latin1', contentStart, next) : '';
      facts.stream = text.toLowerCase() === 'true' || text === '1';
    } else if (next > contentStart && urlField.test(name)) {
      const isLong = next - contentStart > urlBytesMax;
      urls.push(bytes.toString('utf8', contentStart, isLong ? contentStart + 5 : next));
    }
    at = next;
  }
  return errors.BAD_MULTIPART.number;
}

const startsWith = (bytes: Buffer, delimiter: Buffer, from: number): boolean =>
  bytes.subarray(0, delimiter.length - from).equals(delimiter.subarray(from));

/** Position of a part's content, after the blank line; -1 when its headers are out of bounds. */
function endOfPartHeaders(bytes: Buffer, start: number, end: number): number {
  const limit = Math.min(end + 2, start + partHeaderBytesMax);
  const blank = bytes.subarray(start, limit).indexOf('\r\n\r\n', 0, 'latin1');
  return blank < 0 ? -1 : start + blank + 4;
}

const dispositionPattern = /^content-disposition[ \t]*:[ \t]*form-data[ \t]*((?:;.*)?)$/i;
const parameterPattern =
  /;[ \t]*([a-z*]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s;",]+))[ \t]*/giy;

/** The `name` of a part; undefined when its headers can be read in more than one way. */
function fieldName(headers: string): string | undefined {
  let name: string | undefined;
  for (const line of headers.split('\r\n')) {
    if (!/^content-disposition/i.test(line)) continue;
    const parameters = dispositionPattern.exec(line)?.[1];
    if (parameters === undefined || name !== undefined) return undefined;
    parameterPattern.lastIndex = 0;
    let end = 0;
    for (;;) {
      const match = parameterPattern.exec(parameters);
      if (match === null) break;
      end = parameterPattern.lastIndex;
      const key = (match[1] as string).toLowerCase();
      if (key === 'name*' || (key === 'name' && name !== undefined)) return undefined;
      if (key === 'name') name = match[2] ?? match[3];
    }
    if (end !== parameters.length) return undefined;
  }
  return name?.includes('\\') ? undefined : name;
}

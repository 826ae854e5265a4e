/**
 * What a simulated replica says: token k of a request is a pure function of the prompt and k.
 *
 *   token k = ` NONCE:k:HASH8`     NONCE is the request's own (`nonce=XXXX` in the prompt), else `w`
 *
 * Loss, duplication, reorder and cross-talk therefore show in the bytes alone, and a client computes
 * the expected text with the same functions. A prompt that ends in delivered tokens continues at the
 * right k, whether it came as text, as chat or as token ids. Pure; runs anywhere.
 */
import { crc32 } from 'node:zlib';
import { assert } from '../lib/assert.ts';

export interface TokenSeries {
  readonly hash: number;
  readonly nonce: string;
  /** Multi-byte tail of every token, asked for by `[[utf8]]`; else empty. */
  readonly suffix: string;
}

/** Where a prompt's own text ends and how much of the answer it already carries. */
export interface Continuation {
  readonly series: TokenSeries;
  /** Whole tokens already delivered. */
  readonly position: number;
  /** Characters of token `position` already delivered. */
  readonly partial: number;
}

const UTF8_SUFFIX = 'é漢🙂';
const NONCE = /nonce=([A-Za-z0-9_-]{1,64})/;
const NATURAL_MIN = 16;
const NATURAL_SPAN = 49;
/** Ids of generated tokens start here; ids of prompt text are all below. */
const GENERATED_ID = 2 ** 30;
const POSITION_MASK = 0xfffff;
const BYTES_PER_PROMPT_TOKEN = 3;

/** The tokens of one choice of one prompt. `prompt` is the text before any delivered token. */
export function tokenSeries(prompt: string, choice = 0): TokenSeries {
  const nonce = prompt.includes('nonce=') ? (NONCE.exec(prompt)?.[1] ?? 'w') : 'w';
  const suffix = prompt.includes('[[utf8]]') ? UTF8_SUFFIX : '';
  return { hash: mix(crc32(prompt), choice), nonce, suffix };
}

export function tokenText(series: TokenSeries, k: number): string {
  const check = mix(series.hash, k);
  const hex = byteHex(check >>> 24) + byteHex(check >>> 16) + byteHex(check >>> 8) + byteHex(check);
  return ` ${series.nonce}:${k}:${hex}${series.suffix}`;
}

/** Tokens [from, to) as one text. */
export function tokensText(series: TokenSeries, from: number, to: number): string {
  let text = '';
  for (let k = from; k < to; k++) text += tokenText(series, k);
  return text;
}

/** How many tokens the answer has when nothing cuts it: 16 to 64, from the prompt. */
export function naturalLength(series: TokenSeries): number {
  return NATURAL_MIN + (series.hash % NATURAL_SPAN);
}

/** Table look-ups: three times faster than toString(16), and tokens are most of a stream's work. */
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'));

interface ChatMessage {
  readonly role?: unknown;
  readonly content?: unknown;
}

/** The prompt text of a chat, up to and including the assistant's opening mark. */
export function renderChat(messages: readonly ChatMessage[]): string {
  let text = '';
  for (const { role, content } of messages) text += `<|${String(role)}|>${contentText(content)}\n`;
  return `${text}<|assistant|>`;
}

/** The text of a message content: a string, or the parts of a list. Media count by their checksum. */
export function contentText(content: unknown): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) return '';
  return content.map(partText).join('');
}

/** Continues `delivered` after `prompt`; undefined when `delivered` is not this prompt's answer. */
export function continueAfter(prompt: string, delivered: string): Continuation | undefined {
  const series = tokenSeries(prompt);
  let at = 0;
  let position = 0;
  while (at < delivered.length) {
    const text = tokenText(series, position);
    if (delivered.startsWith(text, at)) {
      at += text.length;
      position++;
    } else if (text.startsWith(delivered.slice(at))) {
      return { series, position, partial: delivered.length - at };
    } else {
      return undefined;
    }
  }
  return { series, position, partial: 0 };
}

/** Finds the point of a plain-text prompt after which it is exactly its own answer. */
export function findContinuation(prompt: string): Continuation {
  const first = ` ${tokenSeries(prompt).nonce}:0:`;
  let at = prompt.indexOf(first);
  // A hostile prompt may repeat the mark; sixteen tries bound the work.
  for (let tries = 0; at >= 0 && tries < 16; tries++) {
    const found = continueAfter(prompt.slice(0, at), prompt.slice(at));
    if (found !== undefined) return found;
    at = prompt.indexOf(first, at + 1);
  }
  return { series: tokenSeries(prompt), position: 0, partial: 0 };
}

export function tokenId(series: TokenSeries, k: number): number {
  assert(k <= POSITION_MASK);
  return GENERATED_ID + (((mix(series.hash, k) & 0x3ff) << 20) | k);
}

/** How many tokens a prompt text has. */
export function promptTokenCount(prompt: string): number {
  return Math.ceil(Buffer.byteLength(prompt) / BYTES_PER_PROMPT_TOKEN);
}

/** Reversible: an id is 1 to 3 UTF-8 bytes and their count. */
export function promptTokenIds(prompt: string): number[] {
  const bytes = Buffer.from(prompt);
  const ids: number[] = [];
  for (let at = 0; at < bytes.length; at += BYTES_PER_PROMPT_TOKEN) {
    const length = Math.min(BYTES_PER_PROMPT_TOKEN, bytes.length - at);
    ids.push(length * 2 ** 24 + bytes.readUIntBE(at, length));
  }
  return ids;
}

/** The text of leading prompt ids; undefined when one of `ids` is no prompt id. */
export function textOfPromptIds(ids: readonly number[]): string | undefined {
  const bytes = Buffer.allocUnsafe(ids.length * BYTES_PER_PROMPT_TOKEN);
  let at = 0;
  for (const id of ids) {
    const length = Math.floor(id / 2 ** 24);
    const value = id % 2 ** 24;
    if (!Number.isInteger(id) || length < 1 || length > BYTES_PER_PROMPT_TOKEN) return undefined;
    if (value >= 256 ** length) return undefined;
    at = bytes.writeUIntBE(value, at, length);
  }
  return bytes.toString('utf8', 0, at);
}

/** Continues a prompt of ids; undefined when the ids are no prompt and its own answer. */
export function continueIds(
  ids: readonly number[],
): (Continuation & { prompt: string }) | undefined {
  const firstGenerated = ids.findIndex((id) => id >= GENERATED_ID);
  const end = firstGenerated < 0 ? ids.length : firstGenerated;
  const prompt = textOfPromptIds(ids.slice(0, end));
  if (prompt === undefined) return undefined;
  const { series, position: inText, partial } = findContinuation(prompt);
  for (let i = end; i < ids.length; i++) {
    if (ids[i] !== tokenId(series, inText + i - end)) return undefined;
  }
  return { prompt, series, position: inText + ids.length - end, partial };
}

/** Murmur3's finaliser over both words: every bit of the hash depends on every bit of k. */
export function mix(hash: number, k: number): number {
  let h = hash ^ Math.imul(k + 1, 0x9e3779b1);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

function byteHex(value: number): string {
  return HEX[value & 0xff] ?? '';
}

function partText(part: unknown): string {
  if (typeof part !== 'object' || part === null) return '';
  if ('text' in part && typeof part.text === 'string') return part.text;
  return `<media:${crc32(JSON.stringify(part)).toString(16)}>`;
}

/**
 * The top-level keys of a request body that the gateway reads, and how one is told from its bytes. Pure; any
 * thread; no allocation unless a key has an escape or a letter outside ASCII.
 *
 * Engines written in Go take `Model` for `model`, and the last of the two: a name that is one of these in
 * other letters is told apart (`isLookAlike`), for its value would get past every rule on the key.
 */
import { equalsAscii } from './json-cursor.ts';
import { restrictedKeys } from './request-caps.ts';
import { jsonText } from './text.ts';

/** What a model may be given to read; raw bytes of their values are the measure of a prompt (estimates.ts). */
const textKeys = [
  'messages',
  'prompt',
  'input',
  'system',
  'instructions',
  'tools',
  'documents',
  'query',
  'queries',
  'items',
  'text_1',
  'text_2',
  'data_1',
  'data_2',
] as const;

export const keyNames = [
  ...textKeys,
  'model',
  'stream',
  'max_tokens',
  'max_completion_tokens',
  'max_output_tokens',
  'n_predict',
  'n',
  'n_cmpl',
  'best_of',
  'session_id',
  'prompt_cache_key',
  'user',
  'stream_options',
  'logprobs',
  'top_logprobs',
  'prompt_logprobs',
  'n_probs',
  'stop',
  'stop_sequences',
  'truncate_prompt_tokens',
  'store',
  'previous_response_id',
  'request_id',
  'background',
  ...restrictedKeys,
] as const;
export type KeyName = (typeof keyNames)[number];

export const isTextKey = (key: number): boolean => key < textKeys.length;

/** Of a key that is none of these. */
export const unknownKey = -1;
/** What `findKey` has for a name of ours in other letters: the key behind all keys. */
export const isLookAlike = (key: number): boolean => key >= keyNames.length;
export const nameOf = (key: number): KeyName => keyNames[key % keyNames.length] as KeyName;

/** Of the 400 for such a name. */
export const lookAlikeMessage = (text: string, name: string): string =>
  `Unknown parameter: '${text}'. Did you mean '${name}'?`;

const keyByName = new Map<string, number>(keyNames.map((name, index) => [name, index]));
const keyBytesMax = Math.max(...keyNames.map((name) => name.length));
const keysByLength: number[][] = Array.from({ length: keyBytesMax + 1 }, (_, length) =>
  keyNames.flatMap((name, index) => (name.length === length ? [index] : [])),
);
/** An escape writes one character as six bytes at most. */
const escapedKeyBytesMax = 6 * keyBytesMax;

const backslash = 0x5c;
const upperBit = 0x20;

/** Index in `keyNames` of the key between quotes at `start - 1` and `end`; `unknownKey`, or a look-alike. */
export function findKey(bytes: Uint8Array, start: number, end: number): number {
  const length = end - start;
  if (length > escapedKeyBytesMax) return unknownKey;
  const candidates = length <= keyBytesMax ? (keysByLength[length] as number[]) : [];
  for (let i = 0; i < candidates.length; i++) {
    const key = candidates[i] as number;
    if (equalsAscii(bytes, start, end, keyNames[key] as string)) return key;
  }
  let hasCapital = false;
  for (let p = start; p < end; p++) {
    const c = bytes[p] as number;
    if (c === backslash || c > 0x7f) return keyOfText(jsonText(bytes, start - 1, end + 1));
    if (isCapital(c)) hasCapital = true;
  }
  return hasCapital ? lookAlikeOf(bytes, start, candidates) : unknownKey;
}

const isCapital = (c: number): boolean => c >= 0x41 && c <= 0x5a;

function lookAlikeOf(bytes: Uint8Array, start: number, candidates: readonly number[]): number {
  for (let i = 0; i < candidates.length; i++) {
    const key = candidates[i] as number;
    const name = keyNames[key] as string;
    let p = 0;
    for (; p < name.length; p++) {
      const c = bytes[start + p] as number;
      if ((isCapital(c) ? c | upperBit : c) !== name.charCodeAt(p)) break;
    }
    if (p === name.length) return keyNames.length + key;
  }
  return unknownKey;
}

/** Go takes the long s and the sign of the kelvin for letters of ASCII too. */
function keyOfText(text: string): number {
  const exact = keyByName.get(text);
  if (exact !== undefined) return exact;
  const folded = keyByName.get(text.replaceAll('\u017f', 's').toLowerCase());
  return folded === undefined ? unknownKey : keyNames.length + folded;
}

/**
 * Reads the few keys of a JSON request body that the gateway needs, and validates all of it.
 * Runs on acceptors; never blocks; allocates only the strings it returns.
 *
 * The body is one pass of bytes and stays as it is: the replica gets the same bytes. Accepted is what
 * JSON.parse accepts of valid UTF-8, minus: a top level that is no object, nesting over `limits.depth`,
 * more than `limits.keys` keys (`topKeys` at the top), and a second top-level key of those below (a parser that keeps the
 * first and one that keeps the last would see two different requests). Only top-level keys count, and
 * `stream_options.include_usage`; keys are compared after decoding their escapes.
 */
import { isUtf8 } from 'node:buffer';
import { errors } from '../errors/catalogue.ts';
import { equalsAscii, JsonCursor } from './json-cursor.ts';
import { openBrace, openBracket, quote, tooDeep, tooManyKeys } from './json-skip.ts';
import { hashHead, hashPrefix, prefixDepths } from './prefix-hash.ts';
import { countPrompts } from './prompt-count.ts';
import { jsonNumber, jsonText, textOf } from './text.ts';

export interface ScanLimits {
  readonly depth: number;
  readonly keys: number;
  readonly topKeys: number;
}

/**
 * 128 levels: JSON schemas of tools reach 30. 250,000 keys: 100,000 chat messages have 200,000, and a
 * body made of keys alone would cost a replica's parser most of a second. 1,024 keys at the top: no
 * API has a hundred, and each is compared with the names the scanner knows.
 */
const defaultScanLimits: ScanLimits = Object.freeze({
  depth: 128,
  keys: 250_000,
  topKeys: 1024,
});

/** What a scan found. One record per acceptor, overwritten by each scan. */
export interface RequestFacts {
  /** '' when the body names no model. */
  model: string;
  /** Where its value is, with the quotes it has in JSON; 0 0 without one. */
  modelStart: number;
  modelBytes: number;
  stream: boolean;
  /** Largest of the max_tokens family, at most 2^31 - 1; 0 when absent or not positive. */
  maxTokens: number;
  n: number;
  bestOf: number;
  includeUsage: boolean;
  /** session_id, else prompt_cache_key, else ''. */
  sessionKey: string;
  /** Pairs of int32, one per depth of `prefixDepths`. */
  readonly prefixHashes: Int32Array;
  prefixCount: number;
  /** Of the first 64 characters of the prompt; 0 0 without one. */
  readonly headHash: Int32Array;
  /** Where the value of messages, else prompt, else input begins, and its raw bytes. */
  promptStart: number;
  promptBytes: number;
  /** That value is of `prompt` and one text. */
  hasTextPrompt: boolean;
  /** Prompts of the `prompt` key: each is answered with `n` choices. At least 1. */
  prompts: number;
  /** The key an error is about; '' otherwise. */
  errorParam: string;
  /** Where the scan stopped when it failed. */
  errorPosition: number;
}

export function createRequestFacts(): RequestFacts {
  return {
    model: '',
    modelStart: 0,
    modelBytes: 0,
    stream: false,
    maxTokens: 0,
    n: 1,
    bestOf: 0,
    includeUsage: false,
    sessionKey: '',
    prefixHashes: new Int32Array(2 * prefixDepths.length),
    prefixCount: 0,
    headHash: new Int32Array(2),
    promptStart: 0,
    promptBytes: 0,
    hasTextPrompt: false,
    prompts: 1,
    errorParam: '',
    errorPosition: 0,
  };
}

export function resetRequestFacts(facts: RequestFacts): void {
  facts.model = '';
  facts.modelStart = 0;
  facts.modelBytes = 0;
  facts.stream = false;
  facts.maxTokens = 0;
  facts.n = 1;
  facts.bestOf = 0;
  facts.includeUsage = false;
  facts.sessionKey = '';
  facts.prefixCount = 0;
  facts.headHash.fill(0);
  facts.promptStart = 0;
  facts.promptBytes = 0;
  facts.hasTextPrompt = false;
  facts.prompts = 1;
  facts.errorParam = '';
  facts.errorPosition = 0;
}

const keyNames = [
  'model',
  'stream',
  'max_tokens',
  'max_completion_tokens',
  'max_output_tokens',
  'n',
  'best_of',
  'messages',
  'prompt',
  'input',
  'session_id',
  'prompt_cache_key',
  'user',
  'stream_options',
  'tools',
] as const;
type KeyName = (typeof keyNames)[number];

const promptKey = keyNames.indexOf('prompt');
const keyByName = new Map<string, number>(keyNames.map((name, index) => [name, index]));
const keyBytesMax = Math.max(...keyNames.map((name) => name.length));
const keysByLength: number[][] = Array.from({ length: keyBytesMax + 1 }, (_, length) =>
  keyNames.flatMap((name, index) => (name.length === length ? [index] : [])),
);
/** An escape writes one character as six bytes at most. */
const escapedKeyBytesMax = 6 * keyBytesMax;

/** Longer names are nobody's model; longer session keys are used raw and cut. */
const modelBytesMax = 512;
const sessionBytesMax = 1024;
const countMax = 2 ** 31 - 1;

const letterN = 0x6e;
const letterT = 0x74;
const letterF = 0x66;

const cursor = new JsonCursor();
/** Which key the prompt of the scan at hand came from: lower wins. */
let promptRank = 0;
let sessionRank = 0;

/** Scans `body[0, length)` into `facts`. 0 when fine, else the number of an entry of errors/. */
export function scanRequest(
  body: Uint8Array,
  length: number,
  facts: RequestFacts,
  limits: ScanLimits = defaultScanLimits,
): number {
  resetRequestFacts(facts);
  promptRank = keyNames.length;
  sessionRank = keyNames.length;
  cursor.reset(body, 0, length, limits.depth, limits.keys);
  const problem = scanTopLevel(facts, limits.topKeys);
  if (problem !== 0) {
    facts.errorPosition = cursor.position;
    return problem;
  }
  if (!isUtf8(length === body.length ? body : body.subarray(0, length))) {
    return errors.NOT_UTF8.number;
  }
  if (facts.promptBytes > 0) {
    const { promptStart } = facts;
    const promptEnd = promptStart + facts.promptBytes;
    facts.prefixCount = hashPrefix(body, promptStart, promptEnd, facts.prefixHashes);
    hashHead(body, promptStart, promptEnd, facts.headHash);
  }
  return 0;
}

function scanTopLevel(facts: RequestFacts, keysMax: number): number {
  let seen = 0;
  let keys = 0;
  if (!cursor.enterObject()) return failureNumber();
  while (cursor.nextMember()) {
    if (++keys > keysMax) return errors.JSON_TOO_MANY_KEYS.number;
    const key = keyAtCursor();
    if (key < 0) {
      if (!cursor.skip()) return failureNumber();
      continue;
    }
    const name = keyNames[key] as KeyName;
    if ((seen & (1 << key)) !== 0) {
      facts.errorParam = name;
      return errors.DUPLICATE_KEY.number;
    }
    seen |= 1 << key;
    if (!takeValue(name, key, facts)) {
      if (cursor.failure !== 0) return failureNumber();
      facts.errorParam = facts.errorParam || name;
      return errors.INVALID_PARAM.number;
    }
  }
  return cursor.finished() ? 0 : failureNumber();
}

function failureNumber(): number {
  if (cursor.failure === tooDeep) return errors.JSON_TOO_DEEP.number;
  if (cursor.failure === tooManyKeys) return errors.JSON_TOO_MANY_KEYS.number;
  return errors.BAD_JSON.number;
}

/** Index in `keyNames` of the key at the cursor; -1 for every other key. */
function keyAtCursor(): number {
  const { bytes, keyStart, keyEnd } = cursor;
  const length = keyEnd - keyStart;
  if (length <= keyBytesMax) {
    const candidates = keysByLength[length] as number[];
    for (let i = 0; i < candidates.length; i++) {
      const key = candidates[i] as number;
      if (equalsAscii(bytes, keyStart, keyEnd, keyNames[key] as string)) return key;
    }
  } else if (length > escapedKeyBytesMax) return -1;
  for (let p = keyStart; p < keyEnd; p++) {
    if (bytes[p] === 0x5c) return keyByName.get(jsonText(bytes, keyStart - 1, keyEnd + 1)) ?? -1;
  }
  return -1;
}

/** Takes the value at the cursor; false when it is no JSON or has the wrong type for its key. */
function takeValue(name: KeyName, key: number, facts: RequestFacts): boolean {
  const first = cursor.peek();
  if (name === 'stream_options') return takeStreamOptions(first, facts);
  if (!cursor.skip()) return false;
  switch (name) {
    case 'model':
      return takeModel(first, facts);
    case 'stream':
      facts.stream = first === letterT;
      return first === letterT || first === letterF || first === letterN;
    case 'max_tokens':
    case 'max_completion_tokens':
    case 'max_output_tokens':
      facts.maxTokens = Math.max(facts.maxTokens, countAtCursor(first));
      return isNumber(first) || first === letterN;
    case 'n':
      facts.n = Math.max(1, countAtCursor(first));
      return isNumber(first) || first === letterN;
    case 'best_of':
      facts.bestOf = countAtCursor(first);
      return isNumber(first) || first === letterN;
    case 'messages':
      takePrompt(key, facts);
      return first === openBracket;
    case 'prompt':
      takePrompt(key, facts);
      facts.prompts = countPrompts(cursor.bytes, cursor.valueStart, cursor.valueEnd);
      return first === quote || first === openBracket || first === letterN;
    case 'input':
      takePrompt(key, facts);
      return first === quote || first === openBracket || first === openBrace;
    case 'session_id':
    case 'prompt_cache_key':
      return takeSession(key, first, facts);
    case 'user':
      return first === quote || first === letterN;
    case 'tools':
      return first === openBracket || first === letterN;
  }
}

function isNumber(first: number): boolean {
  return first === 0x2d || (first >= 0x30 && first <= 0x39);
}

function countAtCursor(first: number): number {
  if (!isNumber(first)) return 0;
  const value = Math.floor(jsonNumber(cursor.bytes, cursor.valueStart, cursor.valueEnd));
  return value > 0 ? Math.min(value, countMax) : 0;
}

function takeModel(first: number, facts: RequestFacts): boolean {
  if (first !== quote || cursor.valueEnd - cursor.valueStart > modelBytesMax) return false;
  facts.model = jsonText(cursor.bytes, cursor.valueStart, cursor.valueEnd);
  facts.modelStart = cursor.valueStart;
  facts.modelBytes = cursor.valueEnd - cursor.valueStart;
  return true;
}

function takePrompt(key: number, facts: RequestFacts): void {
  if (key > promptRank) return;
  promptRank = key;
  facts.promptStart = cursor.valueStart;
  facts.promptBytes = cursor.valueEnd - cursor.valueStart;
  facts.hasTextPrompt = key === promptKey && cursor.bytes[cursor.valueStart] === quote;
}

/** A number is a session key too: its digits count. */
function takeSession(key: number, first: number, facts: RequestFacts): boolean {
  if (first === letterN) return true;
  if (first !== quote && !isNumber(first)) return false;
  const { bytes, valueStart, valueEnd } = cursor;
  const isLong = valueEnd - valueStart > sessionBytesMax;
  const isText = first === quote && !isLong;
  const text = isText
    ? jsonText(bytes, valueStart, valueEnd)
    : textOf(bytes, valueStart, isLong ? valueStart + sessionBytesMax : valueEnd);
  if (key > sessionRank || text === '') return true;
  sessionRank = key;
  facts.sessionKey = text;
  return true;
}

function takeStreamOptions(first: number, facts: RequestFacts): boolean {
  if (first === letterN) return cursor.skip();
  if (first !== openBrace || !cursor.enterObject()) return false;
  while (cursor.nextMember()) {
    const isUsage = isIncludeUsage();
    const value = cursor.peek();
    if (!cursor.skip()) return false;
    if (!isUsage) continue;
    if (value !== letterT && value !== letterF && value !== letterN) {
      facts.errorParam = 'stream_options.include_usage';
      return false;
    }
    facts.includeUsage = value === letterT;
  }
  return cursor.failure === 0;
}

const includeUsage = 'include_usage';

function isIncludeUsage(): boolean {
  if (cursor.keyIs(includeUsage)) return true;
  const length = cursor.keyEnd - cursor.keyStart;
  if (length <= includeUsage.length || length > 6 * includeUsage.length) return false;
  return jsonText(cursor.bytes, cursor.keyStart - 1, cursor.keyEnd + 1) === includeUsage;
}

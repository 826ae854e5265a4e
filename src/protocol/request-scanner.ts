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
import { JsonCursor } from './json-cursor.ts';
import { openBrace, openBracket, quote, tooDeep, tooManyKeys } from './json-skip.ts';
import {
  findKey,
  isLookAlike,
  isTextKey,
  type KeyName,
  keyNames,
  lookAlikeMessage,
  nameOf,
  unknownKey,
} from './known-keys.ts';
import { hasMediaUrl, mediaBytes } from './media-bytes.ts';
import { hashHead, hashPrefix } from './prefix-hash.ts';
import { countPrompts } from './prompt-count.ts';
import { restrictedBit } from './request-caps.ts';
import { type RequestFacts, resetRequestFacts } from './request-facts.ts';
import { saysNothing } from './says-nothing.ts';
import { jsonNumber, jsonText, keyReads, textOf } from './text.ts';

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

const promptKey = keyNames.indexOf('prompt');
/** Media of a shorter body is too little to matter. */
const mediaFromBytes = 1024;

/** Longer names are nobody's model; longer session keys are used raw and cut. */
const modelBytesMax = 512;
const sessionBytesMax = 1024;
const countMax = 2 ** 31 - 1;

const letterN = 0x6e;
const letterT = 0x74;
const letterF = 0x66;
const minus = 0x2d;

/** What a model reads beside the text, and is no media. */
const unread = restrictedBit('prompt_embeds') | restrictedBit('input_ids');
/** Of restricted keys: the number that an engine has without them. */
const neutralNumbers: Partial<Record<KeyName, string>> = { id_slot: '-1', priority: '0' };
const neutralBytesMax = 16;

const cursor = new JsonCursor();
/** 1 for each key that the scan at hand has met. */
const seen = new Uint8Array(keyNames.length);
/** Which key the prompt of the scan at hand came from: lower wins. */
let promptRank = 0;
/** That of a prompt that is an object: what stands beside it says more. */
const lastRank = keyNames.length;
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
  if (facts.textBytes === 0) facts.textBytes = length;
  facts.mediaBytes = length < mediaFromBytes ? 0 : mediaBytes(body, length);
  facts.textBytes = Math.max(0, facts.textBytes - facts.mediaBytes);
  facts.readsMore ||= facts.mediaBytes > 0 || (facts.restricted & unread) !== 0;
  facts.readsMore ||= hasMediaUrl(body, length);
  if (facts.promptBytes > 0) {
    const { promptStart } = facts;
    const promptEnd = promptStart + facts.promptBytes;
    facts.prefixCount = hashPrefix(body, promptStart, promptEnd, facts.prefixHashes);
    hashHead(body, promptStart, promptEnd, facts.headHash);
  }
  return 0;
}

function scanTopLevel(facts: RequestFacts, keysMax: number): number {
  let keys = 0;
  seen.fill(0);
  if (!cursor.enterObject()) return failureNumber();
  while (cursor.nextMember()) {
    if (++keys > keysMax) return errors.JSON_TOO_MANY_KEYS.number;
    const key = findKey(cursor.bytes, cursor.keyStart, cursor.keyEnd);
    if (key === unknownKey) {
      if (!cursor.skip()) return failureNumber();
      continue;
    }
    const name = nameOf(key);
    if (isLookAlike(key)) return lookAlike(name, facts);
    if (seen[key] !== 0) {
      facts.errorParam = name;
      return errors.DUPLICATE_KEY.number;
    }
    seen[key] = 1;
    if (!takeValue(name, key, facts)) {
      if (cursor.failure !== 0) return failureNumber();
      facts.errorParam = facts.errorParam || name;
      return errors.INVALID_PARAM.number;
    }
  }
  return cursor.finished() ? 0 : failureNumber();
}

function lookAlike(name: KeyName, facts: RequestFacts): number {
  facts.errorParam = jsonText(cursor.bytes, cursor.keyStart - 1, cursor.keyEnd + 1);
  facts.errorMessage = lookAlikeMessage(facts.errorParam, name);
  return errors.UNKNOWN_PARAM.number;
}

function failureNumber(): number {
  if (cursor.failure === tooDeep) return errors.JSON_TOO_DEEP.number;
  if (cursor.failure === tooManyKeys) return errors.JSON_TOO_MANY_KEYS.number;
  return errors.BAD_JSON.number;
}

/** Takes the value at the cursor; false when it is no JSON or has the wrong type for its key. */
function takeValue(name: KeyName, key: number, facts: RequestFacts): boolean {
  const first = cursor.peek();
  if (name === 'stream_options') return takeStreamOptions(first, facts);
  if (name === 'chat_template_kwargs') return takeTemplateArguments(first, facts);
  if (!cursor.skip()) return false;
  if (isTextKey(key) && first !== letterN) {
    facts.textBytes += cursor.valueEnd - cursor.valueStart;
  }
  switch (name) {
    case 'model':
      return takeModel(first, facts);
    case 'stream':
      facts.stream = first === letterT;
      return first === letterT || first === letterF || first === letterN;
    case 'max_tokens':
    case 'max_completion_tokens':
    case 'max_output_tokens':
    case 'n_predict':
      takeMaxTokens(name, countAtCursor(first), facts);
      return isNumber(first) || first === letterN;
    case 'n':
      facts.n = Math.max(1, countAtCursor(first));
      return isNumber(first) || first === letterN;
    // llama.cpp reads n_cmpl before n; any other engine reads n, which says how many choices must come.
    case 'best_of':
    case 'n_cmpl':
      takeBestOf(name, countAtCursor(first), facts);
      return isNumber(first) || first === letterN;
    case 'messages':
      takePrompt(key, facts);
      return first === openBracket;
    // An object is a stored prompt (Responses API) or one with media (llama.cpp).
    case 'prompt':
      takePrompt(first === openBrace ? lastRank : key, facts);
      if (first === openBrace) facts.readsMore = true;
      facts.prompts = countPrompts(cursor.bytes, cursor.valueStart, cursor.valueEnd);
      return isNested(first) || first === quote || first === letterN;
    case 'input':
      takePrompt(key, facts);
      facts.inputStart = cursor.valueStart;
      facts.inputEnd = cursor.valueEnd;
      return isNested(first) || first === quote || first === letterN;
    case 'session_id':
    case 'prompt_cache_key':
      return takeSession(key, first, facts);
    case 'user':
      return first === quote || first === letterN;
    case 'tools':
      return first === openBracket || first === letterN;
    case 'system':
    case 'instructions':
    case 'documents':
    case 'query':
    case 'queries':
    case 'items':
    case 'text_1':
    case 'text_2':
    case 'data_1':
    case 'data_2':
      return true;
    case 'logprobs':
    case 'top_logprobs':
    case 'prompt_logprobs':
    case 'n_probs':
      takeLogprobs(name, first, facts);
      return isNumber(first) || first === letterT || first === letterF || first === letterN;
    case 'stop':
    case 'stop_sequences':
      takeStop(name, first, facts);
      return first === quote || first === openBracket || first === letterN;
    case 'truncate_prompt_tokens':
      facts.truncatesPrompt = isNumber(first);
      return isNumber(first) || first === letterN;
    case 'store':
      facts.isUnstored = first === letterF;
      return true;
    case 'previous_response_id':
      if (first === quote) facts.previousResponse = shortTextAtCursor();
      facts.readsMore ||= first === quote;
      return true;
    case 'background':
      facts.isBackground = first === letterT;
      return true;
    case 'request_id':
      facts.hasRequestId = first !== letterN;
      return true;
    default:
      if (!isNeutral(name)) facts.restricted |= restrictedBit(name);
      return true;
  }
}

/** Clients send what changes nothing, too. An empty `lora` does: it turns those off that the server has on. */
function isNeutral(name: KeyName): boolean {
  const { bytes, valueStart, valueEnd } = cursor;
  if (valueEnd - valueStart > neutralBytesMax) return false;
  const value = textOf(bytes, valueStart, valueEnd);
  if (name === 'lora') return value === 'null';
  return saysNothing(value) || value === neutralNumbers[name];
}

const isNested = (first: number): boolean => first === openBrace || first === openBracket;

function isNumber(first: number): boolean {
  return first === minus || (first >= 0x30 && first <= 0x39);
}

function countAtCursor(first: number): number {
  if (!isNumber(first)) return 0;
  const value = Math.floor(jsonNumber(cursor.bytes, cursor.valueStart, cursor.valueEnd));
  return value > 0 ? Math.min(value, countMax) : 0;
}

function takeMaxTokens(name: KeyName, count: number, facts: RequestFacts): void {
  if (count <= facts.maxTokens) return;
  facts.maxTokens = count;
  facts.maxTokensKey = name;
}

function takeBestOf(name: KeyName, count: number, facts: RequestFacts): void {
  if (count <= facts.bestOf) return;
  facts.bestOf = count;
  facts.bestOfKey = name;
}

/** A negative number asks for the whole vocabulary. */
function takeLogprobs(name: KeyName, first: number, facts: RequestFacts): void {
  const count = first === minus ? countMax : countAtCursor(first);
  if (count <= facts.logprobs) return;
  facts.logprobs = count;
  facts.logprobsKey = name;
}

function takeStop(name: KeyName, first: number, facts: RequestFacts): void {
  if (first !== openBracket) return;
  const count = countPrompts(cursor.bytes, cursor.valueStart, cursor.valueEnd);
  if (count <= facts.stops) return;
  facts.stops = count;
  facts.stopKey = name;
}

function takeModel(first: number, facts: RequestFacts): boolean {
  if (first !== quote || cursor.valueEnd - cursor.valueStart > modelBytesMax) return false;
  facts.model = jsonText(cursor.bytes, cursor.valueStart, cursor.valueEnd);
  facts.modelStart = cursor.valueStart;
  facts.modelBytes = cursor.valueEnd - cursor.valueStart;
  return true;
}

function takePrompt(rank: number, facts: RequestFacts): void {
  if (rank > promptRank || cursor.bytes[cursor.valueStart] === letterN) return;
  promptRank = rank;
  facts.promptStart = cursor.valueStart;
  facts.promptBytes = cursor.valueEnd - cursor.valueStart;
  facts.hasTextPrompt = rank === promptKey && cursor.bytes[cursor.valueStart] === quote;
}

/** Of a longer text its beginning, as it stands: no id is as long. */
function shortTextAtCursor(): string {
  const { bytes, valueStart, valueEnd } = cursor;
  const isLong = valueEnd - valueStart > sessionBytesMax;
  return isLong
    ? textOf(bytes, valueStart, valueStart + sessionBytesMax)
    : jsonText(bytes, valueStart, valueEnd);
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
    const isUsage = keyReads(cursor, 'include_usage');
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

/**
 * Arguments of the template are harmless; a template among them, or a switch of what is done with it, is
 * what `chat_template` is (CVE-2025-62426).
 */
function takeTemplateArguments(first: number, facts: RequestFacts): boolean {
  if (first === letterN) return cursor.skip();
  if (first !== openBrace || !cursor.enterObject()) return false;
  while (cursor.nextMember()) {
    facts.restricted |= restrictedBit('chat_template_kwargs');
    if (keyReads(cursor, 'chat_template') || keyReads(cursor, 'tokenize')) {
      facts.restricted |= restrictedBit('chat_template');
    }
    if (!cursor.skip()) return false;
  }
  return cursor.failure === 0;
}

/**
 * Whether a stream can be continued by another replica, and where its body must be changed for that.
 * Pure; forwarder threads, for models with `continuation`.
 *
 * A plan is made from one walk over the top-level keys of a body that the acceptor has validated. What
 * decides about a token must be in what went before alone: tools, grammars, penalties, stop strings,
 * bans of words, logprobs and several choices are not. With token ids images are not either: their
 * place among the ids says nothing of what they show.
 */
import { JsonCursor } from './json-cursor.ts';
import { closeBracket, openBrace, openBracket, quote, skipSpace } from './json-skip.ts';
import type { AnswerShape } from './routes.ts';
import { saysNothing } from './says-nothing.ts';
import { Asks } from './stream-options.ts';
import { jsonNumber, keyReads, textOf } from './text.ts';

/** What another replica is to go on behind. */
export type ContinuationMode = 'text' | 'token_ids';
/** `usage`: nobody goes on behind it, its usage alone is wanted. */
export type DeliveryMode = ContinuationMode | 'usage';

export interface Span {
  readonly start: number;
  readonly end: number;
}

export interface Limit extends Span {
  readonly tokens: number;
}

export interface StreamOptions extends Span {
  /** Members that are none of ours. */
  readonly others: readonly Span[];
}

export interface ContinuationPlan {
  readonly shape: AnswerShape;
  readonly mode: DeliveryMode;
  /** What of the usage is wanted of the replica. */
  readonly asks: Asks;
  /** The messages or the prompt, with the key. */
  readonly prompt: Span;
  /** Where delivered text goes: the end of the messages, or of the prompt inside its quotes. */
  readonly textAt: number;
  /** The brace that closes the body. */
  readonly endAt: number;
  /** max_tokens and max_completion_tokens, those that are there: one number. */
  readonly maxima: readonly Limit[];
  /** The value of max_tokens, `null` too. */
  readonly maxTokens: Span | undefined;
  readonly minimum: Limit | undefined;
  readonly streamOptions: StreamOptions | undefined;
  /** The client asked for the usage at the end, and in every chunk. */
  readonly wantsUsage: boolean;
  readonly wantsContinuousUsage: boolean;
  /** The value of return_token_ids, and whether it asks for them. */
  readonly returnIds: Span | undefined;
  readonly wantsIds: boolean;
  /** A value that says nothing in a chat and something in a completion. */
  readonly logprobs: Span | undefined;
}

/** The limits of the request scanner, which has accepted the body. */
const depthMax = 128;
const keysMax = 250_000;

/** Any value but one that says nothing refuses. */
const refusing: ReadonlySet<string> = new Set([
  ...['tools', 'functions', 'function_call', 'logprobs', 'prompt_logprobs', 'echo', 'suffix'],
  ...['prompt_embeds', 'stop', 'use_beam_search', 'truncate_prompt_tokens', 'audio'],
  ...['structured_outputs', 'structural_tag', 'grammar', 'json_schema', 'regex', 'ebnf'],
  ...['return_token_ids', 'return_tokens_as_token_ids', 'continue_final_message', 'input_ids'],
  // llama.cpp reads them before their like in OpenAI's API, which is what would be changed.
  ...['n_predict', 'n_probs', 'n_cmpl'],
  // What remembers the tokens so far, and may.
  ...['bad_words', 'stop_regex', 'logits_processors', 'custom_logit_processor', 'vllm_xargs'],
]);
const refusingStarts = ['guided_', 'dry_'];
/** The value that says nothing. */
const neutral: ReadonlyMap<string, number> = new Map([
  ['presence_penalty', 0],
  ['frequency_penalty', 0],
  ['repetition_penalty', 1],
  ['repeat_penalty', 1],
  ['no_repeat_ngram_size', 0],
  ['dry_multiplier', 0],
  ['mirostat', 0],
  ['top_logprobs', 0],
  ['n', 1],
  ['best_of', 1],
]);
const textFormat = /^(?:null|\{\s*"type"\s*:\s*"text"\s*\})$/;
/** Longer values than this are none of the above. */
const shortBytes = 64;

const cursor = new JsonCursor();
const messageCursor = new JsonCursor();

type Draft = { -readonly [K in keyof ContinuationPlan]: ContinuationPlan[K] } & { maxima: Limit[] };

/**
 * The plan to have the usage of a stream told, which is possible for every body; undefined where its client
 * has asked for as much.
 */
export function planUsage(
  body: Uint8Array,
  shape: AnswerShape,
  asks: Asks,
): ContinuationPlan | undefined {
  const draft: Draft = { ...emptyDraft(shape, 'usage'), asks };
  cursor.reset(body, 0, body.length, depthMax, keysMax);
  if (!cursor.enterObject()) return undefined;
  while (cursor.nextMember()) {
    if (!keyReads(cursor, 'stream_options')) cursor.skip();
    else if (!takeStreamOptions(cursor.peek(), draft)) return undefined;
  }
  if (cursor.failure !== 0) return undefined;
  draft.endAt = cursor.position - 1;
  return addsOptions(draft) ? draft : undefined;
}

/** More of the usage is wanted than the client asks for. */
export function addsOptions(plan: ContinuationPlan): boolean {
  const { asks, wantsUsage, wantsContinuousUsage } = plan;
  return asks === Asks.usageAlways ? !wantsContinuousUsage : asks !== Asks.nothing && !wantsUsage;
}

const emptyDraft = (shape: AnswerShape, mode: DeliveryMode): Draft => ({
  ...{ shape, mode, prompt: { start: -1, end: -1 }, textAt: -1, endAt: -1, maxima: [] },
  ...{ maxTokens: undefined, minimum: undefined, streamOptions: undefined },
  ...{ wantsUsage: false, wantsContinuousUsage: false, asks: Asks.usageAlways },
  ...{ returnIds: undefined, wantsIds: false, logprobs: undefined },
});

/** The plan for a body, or the key that makes it impossible. */
export function planContinuation(
  body: Uint8Array,
  shape: AnswerShape,
  mode: ContinuationMode = 'text',
): ContinuationPlan | string {
  const draft = emptyDraft(shape, mode);
  cursor.reset(body, 0, body.length, depthMax, keysMax);
  if (!cursor.enterObject()) return 'body';
  while (cursor.nextMember()) {
    const { keyStart, keyEnd } = cursor;
    const key = keyEnd - keyStart > shortBytes ? '' : textOf(body, keyStart, keyEnd);
    const isTaken = key.includes('\\') ? false : takeMember(key, draft);
    if (!isTaken) return key;
  }
  if (cursor.failure !== 0) return 'body';
  const isChat = shape === 'openai-chat';
  if (draft.textAt < 0) return isChat ? 'messages' : 'prompt';
  // The default of a completion is its engine's, and would be allowed once more behind a break.
  if (!isChat && draft.maxTokens === undefined) return 'max_tokens';
  // Engines do not agree which of the two holds.
  if (draft.maxima.some(({ tokens }) => tokens !== draft.maxima[0]?.tokens)) return 'max_tokens';
  draft.endAt = cursor.position - 1;
  return draft;
}

/** False: the request cannot be continued because of this member. */
function takeMember(key: string, draft: Draft): boolean {
  const first = cursor.peek();
  if (key === 'stream_options') return takeStreamOptions(first, draft);
  if (!cursor.skip()) return false;
  if (key === 'messages' || key === 'prompt') return takePrompt(key, first, draft);
  if (key === 'max_tokens') draft.maxTokens = valueSpan();
  if (key === 'max_tokens' || key === 'max_completion_tokens') return takeLimit(draft.maxima);
  if (key === 'min_tokens') {
    const minima: Limit[] = [];
    if (draft.minimum !== undefined || !takeLimit(minima)) return false;
    draft.minimum = minima[0];
    return true;
  }
  if (key === 'return_token_ids' && draft.mode === 'token_ids') {
    draft.returnIds = valueSpan();
    draft.wantsIds = shortValue() === 'true';
    return true;
  }
  if (key === 'logprobs') draft.logprobs = valueSpan();
  if (key === 'response_format') return textFormat.test(shortValue());
  if (key === 'add_generation_prompt') return shortValue() === 'null';
  const value = neutral.get(key);
  if (value !== undefined) return shortValue() === 'null' || Number(shortValue()) === value;
  const isRefusing = refusing.has(key) || refusingStarts.some((start) => key.startsWith(start));
  return !isRefusing || saysNothing(shortValue());
}

const valueSpan = (): Span => ({ start: cursor.valueStart, end: cursor.valueEnd });

/** The value just skipped, if it is short; else something that is no value. */
function shortValue(): string {
  const { bytes, valueStart, valueEnd } = cursor;
  return valueEnd - valueStart > shortBytes ? '?' : textOf(bytes, valueStart, valueEnd);
}

function takePrompt(key: string, first: number, draft: Draft): boolean {
  const { bytes, keyStart, valueStart, valueEnd } = cursor;
  const isOfIds = draft.mode === 'token_ids';
  // A chat that goes on as a completion has one prompt.
  if (key !== (draft.shape === 'openai-chat' ? 'messages' : 'prompt')) {
    return !isOfIds || key === 'messages';
  }
  draft.textAt = valueEnd - 1;
  draft.prompt = { start: keyStart - 1, end: valueEnd };
  const second = bytes[skipSpace(bytes, valueStart + 1, valueEnd)] as number;
  if (key === 'prompt')
    return first === quote || (isOfIds && first === openBracket && isDigit(second));
  if (first !== openBracket || second === closeBracket) return false;
  return !isOfIds || isAllText(bytes, valueStart, valueEnd);
}

const isDigit = (byte: number): boolean => byte >= 0x30 && byte <= 0x39;

/** The messages hold no image, no sound and no file. */
function isAllText(bytes: Uint8Array, start: number, end: number): boolean {
  const walk = messageCursor;
  walk.reset(bytes, start, end, depthMax, keysMax);
  walk.enterArray();
  while (walk.nextElement()) {
    if (walk.peek() !== openBrace) return false;
    walk.enterObject();
    while (walk.nextMember()) {
      const isParts = walk.keyIs('content') && walk.peek() === openBracket;
      if (isParts ? !arePartsText(walk) : !walk.skip()) return false;
    }
  }
  return walk.failure === 0;
}

function arePartsText(walk: JsonCursor): boolean {
  walk.enterArray();
  while (walk.nextElement()) {
    if (walk.peek() !== openBrace) return false;
    let isText = false;
    walk.enterObject();
    while (walk.nextMember()) {
      const isType = walk.keyIs('type');
      if (!walk.skip()) return false;
      if (isType) isText = textOf(walk.bytes, walk.valueStart, walk.valueEnd) === '"text"';
    }
    if (!isText) return false;
  }
  return walk.failure === 0;
}

function takeLimit(limits: Limit[]): boolean {
  const { bytes, valueStart: start, valueEnd: end } = cursor;
  if (shortValue() === 'null') return true;
  const tokens = jsonNumber(bytes, start, end);
  if (!Number.isSafeInteger(tokens)) return false;
  limits.push({ start, end, tokens });
  return true;
}

function takeStreamOptions(first: number, draft: Draft): boolean {
  const { position: start } = cursor;
  const others: Span[] = [];
  if (first !== openBrace) {
    if (!cursor.skip()) return false;
  } else {
    cursor.enterObject();
    while (cursor.nextMember()) {
      const memberStart = cursor.keyStart - 1;
      const isAtEnd = keyReads(cursor, 'include_usage');
      const isAlways = keyReads(cursor, 'continuous_usage_stats');
      if (!cursor.skip()) return false;
      const isTrue = shortValue() === 'true';
      if (isAtEnd) draft.wantsUsage = isTrue;
      else if (isAlways) draft.wantsContinuousUsage = isTrue;
      else others.push({ start: memberStart, end: cursor.valueEnd });
    }
  }
  draft.wantsContinuousUsage &&= draft.wantsUsage;
  draft.streamOptions = { start, end: cursor.position, others };
  return cursor.failure === 0;
}

/** Output tokens that are left when `tokens` have been delivered; Infinity without a limit. */
export function tokensLeft({ maxima }: ContinuationPlan, tokens: number): number {
  return Math.min(...maxima.map((limit) => limit.tokens - tokens), Number.POSITIVE_INFINITY);
}

/**
 * Whether the text of a stream can be continued by another replica, and the body that asks for it.
 * Pure; forwarder threads, for models with `continuation`.
 *
 * A plan is made from one walk over the top-level keys of a body that the acceptor has validated. The
 * bodies are the client's bytes with a few ranges replaced. What decides about a token must be in the
 * text alone: tools, grammars, penalties, stop strings, logprobs and several choices are not.
 */
import { type Edit, edit, edited } from './byte-edits.ts';
import { JsonCursor } from './json-cursor.ts';
import { closeBracket, openBrace, openBracket, quote, skipSpace } from './json-skip.ts';
import type { AnswerShape } from './routes.ts';
import { jsonNumber, textOf } from './text.ts';

interface Span {
  readonly start: number;
  readonly end: number;
}

interface Limit extends Span {
  readonly tokens: number;
}

interface StreamOptions extends Span {
  /** Members that are none of ours. */
  readonly others: readonly Span[];
}

export interface ContinuationPlan {
  readonly shape: AnswerShape;
  /** Where delivered text goes: the end of the messages, or of the prompt inside its quotes. */
  readonly textAt: number;
  /** The brace that closes the body. */
  readonly endAt: number;
  /** max_tokens and max_completion_tokens, those that are there. */
  readonly maxima: readonly Limit[];
  readonly minimum: Limit | undefined;
  readonly streamOptions: StreamOptions | undefined;
  /** The client asked for the usage at the end, and in every chunk. */
  readonly wantsUsage: boolean;
  readonly wantsContinuousUsage: boolean;
}

/** The limits of the request scanner, which has accepted the body. */
const depthMax = 128;
const keysMax = 250_000;

/** Any value but one that says nothing refuses. */
const refusing: ReadonlySet<string> = new Set([
  ...['tools', 'functions', 'function_call', 'logprobs', 'prompt_logprobs', 'echo', 'suffix'],
  ...['prompt_embeds', 'stop', 'use_beam_search', 'truncate_prompt_tokens', 'audio'],
  ...['structured_outputs', 'structural_tag', 'grammar', 'json_schema', 'regex', 'ebnf'],
  ...['return_token_ids', 'return_tokens_as_token_ids', 'continue_final_message'],
]);
/** The value that says nothing. */
const neutral: ReadonlyMap<string, number> = new Map([
  ['presence_penalty', 0],
  ['frequency_penalty', 0],
  ['repetition_penalty', 1],
  ['repeat_penalty', 1],
  ['top_logprobs', 0],
  ['n', 1],
  ['best_of', 1],
]);
const saysNothing = /^(?:null|false|""|\[\s*\]|\{\s*\})$/;
const textFormat = /^(?:null|\{\s*"type"\s*:\s*"text"\s*\})$/;
/** Longer values than this are none of the above. */
const shortBytes = 64;

const cursor = new JsonCursor();

type Draft = { -readonly [K in keyof ContinuationPlan]: ContinuationPlan[K] } & { maxima: Limit[] };

/** The plan for a body, or the key that makes it impossible. */
export function planContinuation(body: Uint8Array, shape: AnswerShape): ContinuationPlan | string {
  const draft: Draft = {
    ...{ shape, textAt: -1, endAt: -1, maxima: [] },
    ...{ minimum: undefined, streamOptions: undefined },
    ...{ wantsUsage: false, wantsContinuousUsage: false },
  };
  cursor.reset(body, 0, body.length, depthMax, keysMax);
  if (!cursor.enterObject()) return 'body';
  while (cursor.nextMember()) {
    const { keyStart, keyEnd } = cursor;
    const key = keyEnd - keyStart > shortBytes ? '' : textOf(body, keyStart, keyEnd);
    const isTaken = key.includes('\\') ? false : takeMember(key, draft);
    if (!isTaken) return key;
  }
  if (cursor.failure !== 0) return 'body';
  if (draft.textAt < 0) return shape === 'openai-chat' ? 'messages' : 'prompt';
  draft.endAt = cursor.position - 1;
  return draft;
}

/** False: the request cannot be continued because of this member. */
function takeMember(key: string, draft: Draft): boolean {
  const first = cursor.peek();
  if (key === 'stream_options') return takeStreamOptions(first, draft);
  if (!cursor.skip()) return false;
  if (key === 'messages' || key === 'prompt') return takePrompt(key, first, draft);
  if (key === 'max_tokens' || key === 'max_completion_tokens') return takeLimit(draft.maxima);
  if (key === 'min_tokens') {
    const minima: Limit[] = [];
    if (draft.minimum !== undefined || !takeLimit(minima)) return false;
    draft.minimum = minima[0];
    return true;
  }
  if (key === 'response_format') return textFormat.test(shortValue());
  if (key === 'add_generation_prompt') return shortValue() === 'null';
  if (refusing.has(key) || key.startsWith('guided_')) return saysNothing.test(shortValue());
  const value = neutral.get(key);
  return value === undefined || shortValue() === 'null' || Number(shortValue()) === value;
}

/** The value just skipped, if it is short; else something that is no value. */
function shortValue(): string {
  const { bytes, valueStart, valueEnd } = cursor;
  return valueEnd - valueStart > shortBytes ? '?' : textOf(bytes, valueStart, valueEnd);
}

function takePrompt(key: string, first: number, draft: Draft): boolean {
  const { bytes, valueStart, valueEnd } = cursor;
  if (key !== (draft.shape === 'openai-chat' ? 'messages' : 'prompt')) return true;
  draft.textAt = valueEnd - 1;
  if (key === 'prompt') return first === quote;
  return (
    first === openBracket && bytes[skipSpace(bytes, valueStart + 1, valueEnd)] !== closeBracket
  );
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
  const { bytes, position: start } = cursor;
  const others: Span[] = [];
  if (first !== openBrace) {
    if (!cursor.skip()) return false;
  } else {
    cursor.enterObject();
    while (cursor.nextMember()) {
      const memberStart = cursor.keyStart - 1;
      const key = textOf(bytes, cursor.keyStart, cursor.keyEnd);
      if (!cursor.skip() || key.includes('\\')) return false;
      const isTrue = shortValue() === 'true';
      if (key === 'include_usage') draft.wantsUsage = isTrue;
      else if (key === 'continuous_usage_stats') draft.wantsContinuousUsage = isTrue;
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

/** The body of a first attempt: the client's, that asks for the usage of every chunk. */
export function observedBody(body: Buffer, plan: ContinuationPlan): Buffer {
  if (plan.wantsContinuousUsage) return body;
  const inPlace = streamOptionsEdit(body, plan);
  const edits = inPlace ?? [edit(plan.endAt, plan.endAt, `,${streamOptionsMember}`)];
  return edited(body, 0, body.length, edits);
}

/** The body that continues behind `text`, which is the inside of a JSON string, of `tokens` tokens. */
export function continuedBody(
  body: Buffer,
  plan: ContinuationPlan,
  text: Uint8Array,
  tokens: number,
): Buffer {
  if (text.length === 0) return observedBody(body, plan);
  const { shape, textAt, endAt, maxima, minimum } = plan;
  const isChat = shape === 'openai-chat';
  const edits: Edit[] = maxima.map((limit) => reduced(limit, tokens));
  if (minimum !== undefined) edits.push(reduced(minimum, tokens));
  edits.push(
    edit(textAt, textAt, isChat ? Buffer.concat([messageOpen, text, messageClose]) : text),
  );
  const options = streamOptionsEdit(body, plan);
  edits.push(...(options ?? []));
  const added = [
    ...(isChat ? ['"continue_final_message":true,"add_generation_prompt":false'] : []),
    ...(options === undefined ? [streamOptionsMember] : []),
  ];
  if (added.length > 0) edits.push(edit(endAt, endAt, `,${added.join(',')}`));
  return edited(body, 0, body.length, edits);
}

const messageOpen = Buffer.from(',{"role":"assistant","content":"');
const messageClose = Buffer.from('"}');
const usageOptions = '"include_usage":true,"continuous_usage_stats":true';
const streamOptionsMember = `"stream_options":{${usageOptions}}`;

const reduced = ({ start, end, tokens }: Limit, by: number): Edit =>
  edit(start, end, String(Math.max(0, tokens - by)));

/** Undefined: there is no member to change. */
function streamOptionsEdit(body: Buffer, plan: ContinuationPlan): Edit[] | undefined {
  const { streamOptions, wantsContinuousUsage } = plan;
  if (streamOptions === undefined) return undefined;
  if (wantsContinuousUsage) return [];
  const { start, end, others } = streamOptions;
  const kept = others.map((other) => `,${body.toString('utf8', other.start, other.end)}`);
  return [edit(start, end, `{${usageOptions}${kept.join('')}}`)];
}

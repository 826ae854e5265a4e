/**
 * Splits the answer to a completion of several prompts into one answer for each. Pure; forwarder
 * threads.
 *
 * Each part is the answer with one choice, of which only `index` is changed, to 0. A replica reports
 * `usage` of the whole call alone: it is apportioned, prompt tokens by the bytes of the prompts,
 * completion tokens by those of the texts, cached tokens by the prompt tokens, so that the sums over
 * all parts are exact. Whatever leaves a doubt about which choice is whose gives no parts at all.
 */
import { Buffer } from 'node:buffer';
import { CompletionObserver, Observed, type Usage } from './completion-observer.ts';
import { JsonCursor } from './json-cursor.ts';
import { openBrace, openBracket, quote } from './json-skip.ts';
import { jsonNumber } from './text.ts';

export interface AnswerPart {
  /** The bytes of the answer, in order. */
  readonly body: readonly Uint8Array[];
  readonly usage: Usage;
}

/** Why there are no parts. */
export const NoParts = { error: 1, malformed: 2 } as const;
export type NoParts = (typeof NoParts)[keyof typeof NoParts];

/** A value of the answer, as positions of its bytes. */
interface Span {
  readonly start: number;
  readonly end: number;
}

interface FoundChoice extends Span {
  readonly index: Span;
  readonly textBytes: number;
}

const cursor = new JsonCursor();
const observer = new CompletionObserver();
const depthMax = 64;
const keysMax = 1_000_000;
const backslash = 0x5c;
/** A count past this is a mistake. */
const tokensMax = 2 ** 31 - 1;
const zero = Buffer.from('0');
const open = Buffer.from('[');
const close = Buffer.from(']');

/** `promptBytes` are those of the prompts in their order; as many choices must be there. */
export function splitAnswer(
  body: Uint8Array,
  promptBytes: readonly number[],
): readonly AnswerPart[] | NoParts {
  observer.reset('openai-completions', promptBytes.length);
  const flags = observer.onBody(body, 0, body.length);
  if ((flags & Observed.error) !== 0) return NoParts.error;
  const usage = { ...observer.usage };
  const found = findSpans(body);
  if (found === undefined) return NoParts.malformed;
  const choices = inOrder(body, found.choices, promptBytes.length);
  if (choices === undefined) return NoParts.malformed;
  const texts = choices.map(({ textBytes }) => textBytes);
  const usages = apportionUsage(usage, promptBytes, texts);
  return choices.map((choice, i) => {
    const own = usages[i] as Usage;
    return { usage: own, body: partOf(body, found, choice, own) };
  });
}

interface Found {
  readonly list: Span;
  readonly choices: readonly FoundChoice[];
  /** Undefined: the answer has none, or not as an object. */
  readonly usage: Span | undefined;
}

function findSpans(body: Uint8Array): Found | undefined {
  let list: Span | undefined;
  let usage: Span | undefined;
  let choices: readonly FoundChoice[] = [];
  cursor.reset(body, 0, body.length, depthMax, keysMax);
  if (!cursor.enterObject()) return undefined;
  while (cursor.nextMember()) {
    const start = cursor.position;
    const first = cursor.peek();
    if (isEscaped()) return undefined;
    if (cursor.keyIs('choices')) {
      if (list !== undefined || first !== openBracket) return undefined;
      const walked = walkChoices();
      if (walked === undefined) return undefined;
      choices = walked;
      list = { start, end: cursor.position };
    } else if (cursor.keyIs('usage') && first === openBrace) {
      if (usage !== undefined) return undefined;
      if (!cursor.skip()) return undefined;
      usage = { start, end: cursor.valueEnd };
    } else if (!cursor.skip()) return undefined;
  }
  return cursor.finished() && list !== undefined ? { list, choices, usage } : undefined;
}

/** A key that is written with escapes may be one of ours by another spelling. */
function isEscaped(): boolean {
  const { bytes, keyStart, keyEnd } = cursor;
  return bytes.subarray(keyStart, keyEnd).includes(backslash);
}

function walkChoices(): readonly FoundChoice[] | undefined {
  const choices: FoundChoice[] = [];
  if (!cursor.enterArray()) return undefined;
  while (cursor.nextElement()) {
    const start = cursor.position;
    const choice = walkChoice();
    if (choice === undefined) return undefined;
    choices.push({ ...choice, start, end: cursor.position });
  }
  return cursor.failure === 0 ? choices : undefined;
}

function walkChoice(): Omit<FoundChoice, keyof Span> | undefined {
  let index: Span | undefined;
  let textBytes = 0;
  if (!cursor.enterObject()) return undefined;
  while (cursor.nextMember()) {
    const isIndex = cursor.keyIs('index');
    const isText = cursor.keyIs('text') && cursor.peek() === quote;
    if (isEscaped() || (isIndex && index !== undefined) || !cursor.skip()) return undefined;
    if (isIndex) index = { start: cursor.valueStart, end: cursor.valueEnd };
    if (isText) textBytes = cursor.valueEnd - cursor.valueStart - 2;
  }
  return cursor.failure === 0 && index !== undefined ? { index, textBytes } : undefined;
}

/** The choices by their index; undefined unless each index below `count` is there once. */
function inOrder(
  body: Uint8Array,
  found: readonly FoundChoice[],
  count: number,
): readonly FoundChoice[] | undefined {
  const choices = new Map<number, FoundChoice>();
  for (const choice of found) {
    const index = jsonNumber(body, choice.index.start, choice.index.end);
    if (!Number.isInteger(index) || index < 0 || index >= count) return undefined;
    choices.set(index, choice);
  }
  if (found.length !== count || choices.size !== count) return undefined;
  return Array.from({ length: count }, (_, index) => choices.get(index) as FoundChoice);
}

/** The answer with `choice` as its only one, and `own` in place of the usage of all. */
function partOf(
  body: Uint8Array,
  { list, usage }: Found,
  choice: FoundChoice,
  own: Usage,
): readonly Uint8Array[] {
  const before = body.subarray(choice.start, choice.index.start);
  const behind = body.subarray(choice.index.end, choice.end);
  const inPlaceOfList = [open, before, zero, behind, close];
  if (usage === undefined) {
    return [body.subarray(0, list.start), ...inPlaceOfList, body.subarray(list.end)];
  }
  const inPlaceOfUsage = [usageBytes(own)];
  const isListFirst = list.start < usage.start;
  const [one, other] = isListFirst ? [list, usage] : [usage, list];
  return [
    body.subarray(0, one.start),
    ...(isListFirst ? inPlaceOfList : inPlaceOfUsage),
    body.subarray(one.end, other.start),
    ...(isListFirst ? inPlaceOfUsage : inPlaceOfList),
    body.subarray(other.end),
  ];
}

/** Counts that the replica did not report are left out. */
function usageBytes({ prompt, completion, cached }: Usage): Uint8Array {
  const known = {
    ...(prompt < 0 ? {} : { prompt_tokens: prompt }),
    ...(prompt < 0 || completion < 0 ? {} : { total_tokens: prompt + completion }),
    ...(completion < 0 ? {} : { completion_tokens: completion }),
    ...(cached < 0 ? {} : { prompt_tokens_details: { cached_tokens: cached } }),
  };
  return Buffer.from(JSON.stringify(known));
}

function apportionUsage(
  { prompt, completion, cached }: Usage,
  promptBytes: readonly number[],
  textBytes: readonly number[],
): readonly Usage[] {
  const prompts = apportion(prompt, promptBytes);
  const completions = apportion(completion, textBytes);
  const isCachedPart = cached <= prompt;
  const caches = apportion(isCachedPart ? cached : -1, prompts);
  return promptBytes.map((_, i) => ({
    prompt: prompts[i] as number,
    completion: completions[i] as number,
    cached: caches[i] as number,
  }));
}

/** Whole parts of `total` by weight, largest remainders first; their sum is `total`. -1: not known. */
function apportion(total: number, weights: readonly number[]): readonly number[] {
  if (total < 0 || total > tokensMax) return weights.map(() => -1);
  const sum = weights.reduce((all, weight) => all + weight, 0);
  if (sum <= 0) {
    return total === 0
      ? weights.map(() => 0)
      : apportion(
          total,
          weights.map(() => 1),
        );
  }
  // Products of two int32 are past what a double holds exactly.
  const exact = weights.map((weight) => BigInt(total) * BigInt(weight));
  const parts = exact.map((product) => Number(product / BigInt(sum)));
  const left = total - parts.reduce((all, part) => all + part, 0);
  const byRemainder = exact
    .map((product, i) => ({ i, remainder: Number(product % BigInt(sum)) }))
    .sort((a, b) => b.remainder - a.remainder || a.i - b.i);
  for (const { i } of byRemainder.slice(0, left)) parts[i] = (parts[i] as number) + 1;
  return parts;
}

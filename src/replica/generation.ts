/**
 * What one generation request asks for: which tokens, how many, in which shape. Pure.
 *
 * The body is parsed JSON and may hold anything; what cannot be read is a message for a 400.
 */
import type { Profile } from './profile.ts';
import {
  type Continuation,
  contentText,
  continueAfter,
  continueIds,
  findContinuation,
  naturalLength,
  promptTokenCount,
  renderChat,
  type TokenSeries,
  tokenSeries,
} from './tokens.ts';

export type Api = 'chat' | 'completions' | 'responses' | 'messages';

export const generationRoutes: ReadonlyMap<string, Api> = new Map<string, Api>([
  ['/v1/chat/completions', 'chat'],
  ['/v1/completions', 'completions'],
  ['/v1/responses', 'responses'],
  ['/v1/messages', 'messages'],
]);

/** One prompt and where its answer goes on. */
export interface Prompt extends Continuation {
  /** Text before any delivered token. */
  readonly text: string;
  /** All of it, delivered tokens too: its text, or its token ids when it came as such. */
  readonly content: string | readonly number[];
  readonly tokens: number;
  readonly mismatch: boolean;
}

/** One answer text: tokens [start, start + length) of a series. */
export interface Choice {
  readonly prompt: Prompt;
  readonly series: TokenSeries;
  readonly start: number;
  /** Characters of the first token that the client already has. */
  readonly partial: number;
  readonly length: number;
  readonly finish: 'stop' | 'length' | 'content_filter';
}

export interface Generation {
  readonly api: Api;
  readonly model: string;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  readonly continuousUsage: boolean;
  readonly returnTokenIds: boolean;
  /** Function the answer must call, when the request forces one. */
  readonly tool: string | undefined;
  /** Its tokens are those of a refusal, where its API has a place for one. */
  readonly refuses: boolean;
  /** It has `low_confidence`. */
  readonly isUnsure: boolean;
  /** Of each token of a whole answer; absent: it has none. */
  readonly logprob?: number | undefined;
  /** Text of the first prompt: where the nonce is. */
  readonly prompt: string;
  /** Text of all prompts: a tag in any of them is for the whole call. */
  readonly tagged: string;
  readonly promptTokens: number;
  readonly choices: readonly Choice[];
  /** The longest choice. */
  readonly steps: number;
  readonly continuation: boolean;
  /** Asked to continue a text that is not this prompt's answer. */
  readonly mismatch: boolean;
  /** Id of the response that it goes on with; undefined for none. */
  readonly previous: string | undefined;
  /** Set with an engine, which fills it in when it admits the prompts. */
  readonly cached: { tokens: number } | undefined;
}

export type Body = Readonly<Record<string, unknown>>;

const CHOICES_MAX = 128;
const ANSWER_TOKENS_MAX = 1_000_000;
const LENGTH_TAG = /\[\[len=(\d{1,7})\]\]/;

/** The same without a token: a filter has let nothing pass. */
export const filtered = (generation: Generation): Generation => ({
  ...generation,
  choices: generation.choices.map((choice) => ({
    ...choice,
    length: 0,
    finish: 'content_filter',
  })),
  steps: 1,
});

/** The generation a body asks for, or why there is none. */
export function readGeneration(api: Api, body: Body, profile: Profile): Generation | string {
  const prompts = readPrompts(api, body);
  if (typeof prompts === 'string') return prompts;
  const first = prompts[0];
  if (first === undefined) return 'the prompt is empty';
  const n = api === 'chat' || api === 'completions' ? count(body.n, 1) : 1;
  const limit = outputLimit(api, body);
  if (n === undefined || n < 1 || n * prompts.length > CHOICES_MAX) return 'bad value of n';
  if (limit === undefined) return 'the token limit must be a positive integer';
  const choices: Choice[] = [];
  let promptTokens = 0;
  for (const prompt of prompts) {
    promptTokens += prompt.tokens;
    for (let i = 0; i < n; i++) choices.push(choiceOf(prompt, i, limit, body, profile));
  }
  const options = record(body.stream_options);
  return {
    api,
    previous: typeof body.previous_response_id === 'string' ? body.previous_response_id : undefined,
    model: typeof body.model === 'string' ? body.model : '',
    stream: body.stream === true,
    includeUsage: options.include_usage === true,
    continuousUsage: options.continuous_usage_stats === true,
    returnTokenIds: body.return_token_ids === true,
    tool: forcedTool(api, body),
    refuses: false,
    isUnsure: false,
    prompt: first.text,
    tagged: prompts.length === 1 ? first.text : prompts.map(({ text }) => text).join('\n'),
    promptTokens,
    choices,
    steps: choices.reduce((most, choice) => Math.max(most, choice.length), 1),
    continuation: prompts.some(({ position, partial }) => position + partial > 0),
    mismatch: prompts.some((prompt) => prompt.mismatch),
    cached: profile.engine === undefined ? undefined : { tokens: 0 },
  };
}

function readPrompts(api: Api, body: Body): Prompt[] | string {
  if (api === 'completions') return readCompletionPrompts(body.prompt);
  if (api === 'responses') return readResponsesInput(body);
  if (!Array.isArray(body.messages) || body.messages.length === 0) {
    return 'messages must be a list that is not empty';
  }
  const system = api === 'messages' && body.system !== undefined;
  const messages: unknown[] = system
    ? [{ role: 'system', content: body.system }, ...body.messages]
    : body.messages;
  const records = messages.map(record);
  const last = records.at(-1);
  // The Anthropic API continues a final assistant message without being told.
  const continues = api === 'messages' || body.continue_final_message === true;
  if (!continues || last?.role !== 'assistant') return [freshPrompt(renderChat(records))];
  if (body.add_generation_prompt === true) {
    return 'continue_final_message and add_generation_prompt exclude each other';
  }
  return [chatContinuation(renderChat(records.slice(0, -1)), contentText(last.content))];
}

function chatContinuation(prompt: string, delivered: string): Prompt {
  const found = continueAfter(prompt, delivered);
  const content = prompt + delivered;
  if (found === undefined) return { ...freshPrompt(content), mismatch: true };
  const tokens = promptTokenCount(content);
  return { ...found, text: prompt, content, tokens, mismatch: false };
}

function readCompletionPrompts(prompt: unknown): Prompt[] | string {
  if (typeof prompt === 'string') return [textPrompt(prompt)];
  if (!Array.isArray(prompt) || prompt.length === 0) return 'prompt must be a text or a list';
  if (prompt.length > CHOICES_MAX && typeof prompt[0] !== 'number') return 'too many prompts';
  const prompts: Prompt[] = [];
  for (const item of typeof prompt[0] === 'number' ? [prompt] : prompt) {
    const read = typeof item === 'string' ? textPrompt(item) : idsPrompt(item);
    if (read === undefined) return 'a prompt must be a text or a list of token ids';
    prompts.push(read);
  }
  return prompts;
}

function readResponsesInput(body: Body): Prompt[] | string {
  const { input } = body;
  if (typeof input === 'string')
    return [freshPrompt(renderChat([{ role: 'user', content: input }]))];
  if (!Array.isArray(input) || input.length === 0) return 'input must be a text or a list';
  return [freshPrompt(renderChat(input.map(record)))];
}

function freshPrompt(text: string): Prompt {
  return promptOf({ series: tokenSeries(text), position: 0, partial: 0 }, text);
}

function textPrompt(text: string): Prompt {
  return promptOf(findContinuation(text), text);
}

function promptOf(found: Continuation, text: string): Prompt {
  return { ...found, text, content: text, tokens: promptTokenCount(text), mismatch: false };
}

function idsPrompt(ids: unknown): Prompt | undefined {
  if (!Array.isArray(ids) || !ids.every((id): id is number => typeof id === 'number')) {
    return undefined;
  }
  const found = continueIds(ids);
  const tokens = ids.length;
  const { series, position, partial } = found ?? freshPrompt(JSON.stringify(ids));
  const text = found?.prompt ?? JSON.stringify(ids);
  return { series, position, partial, text, content: ids, tokens, mismatch: found === undefined };
}

function choiceOf(
  prompt: Prompt,
  index: number,
  limit: number,
  body: Body,
  profile: Profile,
): Choice {
  const { position: start, partial } = prompt;
  const series = index === 0 ? prompt.series : tokenSeries(prompt.text, index);
  const tagged = prompt.text.includes('[[len=') ? LENGTH_TAG.exec(prompt.text)?.[1] : undefined;
  let end = tagged !== undefined ? Number(tagged) : profile.naturalLength || naturalLength(series);
  end = Math.min(end, ANSWER_TOKENS_MAX);
  if (body.ignore_eos === true) end = start + Math.min(limit, ANSWER_TOKENS_MAX - start);
  const minimum = count(body.min_tokens, 0) ?? 0;
  const natural = Math.max(0, end - start, Math.min(minimum, limit));
  const length = Math.min(natural, limit, ANSWER_TOKENS_MAX);
  const cut = length < natural || (body.ignore_eos === true && length === limit);
  return { prompt, series, start, partial, length, finish: cut ? 'length' : 'stop' };
}

function outputLimit(api: Api, body: Body): number | undefined {
  const key =
    api === 'responses'
      ? body.max_output_tokens
      : ((api === 'chat' ? body.max_completion_tokens : undefined) ?? body.max_tokens);
  const limit = count(key, ANSWER_TOKENS_MAX);
  return limit === undefined || limit < 1 ? undefined : limit;
}

/** The function that `tool_choice` makes the answer call, in the words of either API. */
function forcedTool(api: Api, body: Body): string | undefined {
  if (!Array.isArray(body.tools) || body.tools.length === 0) return undefined;
  const tool = record(body.tools[0]);
  const choice = record(body.tool_choice);
  const isAny = api === 'messages' ? choice.type === 'any' : body.tool_choice === 'required';
  let name: unknown;
  if (api === 'chat') name = isAny ? record(tool.function).name : record(choice.function).name;
  else if (api === 'messages') name = isAny ? tool.name : choice.name;
  if (typeof name === 'string') return name;
  return isAny ? 'function' : undefined;
}

/** A value that should be an object; what is none reads as an empty one. */
export function record(value: unknown): Body {
  return typeof value === 'object' && value !== null ? (value as Body) : {};
}

function count(value: unknown, absent: number): number | undefined {
  if (value === undefined || value === null) return absent;
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : undefined;
}

/**
 * One task of the pool: from the bytes of a request body to its answer. Threads of the pool.
 *
 * The body has passed the scan of its acceptor, but its bytes may be another request's by now
 * (shm/token-tasks.ts): whatever they are, the answer is a value.
 */
import type { AnswerShape } from '../protocol/routes.ts';
import type { NoCount, TokenAnswer, TokenTask } from '../shm/token-tasks.ts';
import { anthropicChat, type Chat, openAiChat, responsesChat } from './chat.ts';
import type { ModelTokenizer } from './model-tokenizer.ts';
import { chatValuesMax, hasAtMost } from './values.ts';

type Body = Readonly<Record<string, unknown>>;

/** A text, with what the post-processor adds or without; or so many ids. */
type Prompt = { readonly text: string; readonly withSpecial: boolean } | number;

/** An answer of ours is at most a few MB; replicas answer for longer texts. */
const answeredCharsMax = 262_144;

const encoder = new TextEncoder();
const none = (reason: NoCount): TokenAnswer => ({ kind: 'none', reason });
const json = (value: object): TokenAnswer => ({
  kind: 'body',
  body: encoder.encode(JSON.stringify(value)),
});

export function answerTask(tokenizer: ModelTokenizer, task: TokenTask, text: string): TokenAnswer {
  const body: unknown = JSON.parse(text);
  if (typeof body !== 'object' || body === null) return none('uncountable');
  switch (task.want) {
    case 'count':
      return largest(tokenizer, task, promptsOf(tokenizer, task.shape, body as Body));
    case 'count_tokens':
      return countTokens(tokenizer, task, body as Body);
    case 'tokenize':
      return tokenize(tokenizer, task, body as Body);
  }
}

function largest(
  tokenizer: ModelTokenizer,
  { room, deadlineMs }: TokenTask,
  prompts: readonly Prompt[] | undefined,
): TokenAnswer {
  if (prompts === undefined) return none('uncountable');
  let most = 0;
  for (const prompt of prompts) {
    const { tokens, isWhole } =
      typeof prompt === 'number'
        ? { tokens: prompt, isWhole: true }
        : tokenizer.count(prompt.text, prompt.withSpecial, room, deadlineMs);
    if (tokens < 0) return none('late');
    if (tokens > room) return { kind: 'count', tokens, isWhole };
    most = Math.max(most, tokens);
  }
  return { kind: 'count', tokens: most, isWhole: true };
}

function promptsOf(
  tokenizer: ModelTokenizer,
  shape: AnswerShape,
  body: Body,
): readonly Prompt[] | undefined {
  if (shape === 'openai-completions') return completionPrompts(body);
  const chat = chatOf(tokenizer, shape, body);
  const text = chat && rendered(tokenizer, chat, body);
  return text === undefined ? undefined : [{ text, withSpecial: body.add_special_tokens === true }];
}

function chatOf(tokenizer: ModelTokenizer, shape: AnswerShape, body: Body): Chat | undefined {
  if (shape === 'anthropic') return anthropicChat(body);
  return shape === 'responses' ? responsesChat(body) : openAiChat(body, tokenizer.keepsParts);
}

function rendered(tokenizer: ModelTokenizer, chat: Chat, body: Body): string | undefined {
  if (typeof body.chat_template === 'string') return undefined; // not ours to run
  const { chat_template_kwargs: own, documents, add_generation_prompt: opens = true } = body;
  const more = typeof own === 'object' && own !== null ? own : {};
  if (!hasAtMost([chat, own, documents], chatValuesMax)) return undefined;
  return tokenizer.render(chat, { ...more, documents, add_generation_prompt: opens });
}

/** A text, a list of texts, a list of ids, a list of such lists. */
function completionPrompts({ prompt, add_special_tokens: special = true }: Body) {
  const withSpecial = special === true;
  const one = (value: unknown): Prompt | undefined => {
    if (typeof value === 'string') return { text: value, withSpecial };
    return Array.isArray(value) && typeof value[0] === 'number' ? value.length : undefined;
  };
  const isList = Array.isArray(prompt) && typeof prompt[0] !== 'number';
  const prompts = (isList ? prompt : [prompt]).map(one);
  return prompts.every((each) => each !== undefined) ? prompts : undefined;
}

/** Of the Messages API. */
function countTokens(tokenizer: ModelTokenizer, task: TokenTask, body: Body): TokenAnswer {
  const chat = anthropicChat(body);
  const text = chat && rendered(tokenizer, chat, body);
  if (text === undefined || text.length > answeredCharsMax) return none('uncountable');
  const ids = tokenizer.ids(text, false, task.deadlineMs);
  return ids === undefined ? none('late') : json({ input_tokens: ids.length });
}

/** As vLLM answers `/tokenize`. */
function tokenize(tokenizer: ModelTokenizer, task: TokenTask, body: Body): TokenAnswer {
  const isPrompt = typeof body.prompt === 'string';
  const chat = isPrompt ? undefined : openAiChat(body, tokenizer.keepsParts);
  const text = isPrompt ? (body.prompt as string) : chat && rendered(tokenizer, chat, body);
  if (text === undefined || text.length > answeredCharsMax) return none('uncountable');
  const { add_special_tokens: special = isPrompt, return_token_strs: wantsTexts } = body;
  const tokens = tokenizer.ids(text, special === true, task.deadlineMs);
  if (tokens === undefined) return none('late');
  return json({
    count: tokens.length,
    max_model_len: task.maxContext === 0 ? null : task.maxContext,
    tokens,
    token_strs: wantsTexts === true ? tokens.map((id) => tokenizer.tokenOf(id)) : null,
  });
}

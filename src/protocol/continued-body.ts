/**
 * The bodies of attempts whose streams may be continued, and of those that continue them: the bytes of
 * the client with a few ranges replaced. Pure; forwarder threads, for models with `continuation`.
 *
 * Behind a text a chat is asked again with one more message and a completion with a longer prompt.
 * Behind token ids both are a completion of all ids so far: nothing is tokenised a second time.
 */
import { type Edit, edit, edited, noEdits } from './byte-edits.ts';
import { addsOptions, type ContinuationPlan, type Limit, tokensLeft } from './continuation.ts';
import { Asks } from './stream-options.ts';

/** What every attempt asks for: edits of members that are there, and members that are not. */
interface Asked {
  readonly edits: Edit[];
  readonly added: string[];
}

/**
 * The body of a first attempt: the client's, that asks for the usage, as often as the plan says, and for
 * the ids. `more` is changed in it as well, apart from all that.
 */
export function observedBody(
  body: Buffer,
  plan: ContinuationPlan,
  more: readonly Edit[] = noEdits,
): Buffer {
  const { edits, added } = observing(body, plan, more);
  return changed(body, plan, edits, added);
}

/** The body that continues behind `text`, which is the inside of a JSON string, of `tokens` tokens. */
export function continuedBody(
  body: Buffer,
  plan: ContinuationPlan,
  text: Uint8Array,
  tokens: number,
  more: readonly Edit[] = noEdits,
): Buffer {
  if (text.length === 0) return observedBody(body, plan, more);
  const { shape, textAt } = plan;
  const isChat = shape === 'openai-chat';
  const { edits, added } = observing(body, plan, more);
  edits.push(...reducedLimits(plan, tokens));
  edits.push(
    edit(textAt, textAt, isChat ? Buffer.concat([messageOpen, text, messageClose]) : text),
  );
  if (isChat) added.unshift('"continue_final_message":true,"add_generation_prompt":false');
  return changed(body, plan, edits, added);
}

/** The completion of `ids`, a JSON list of the prompt and the `tokens` tokens behind it. */
export function completionBody(
  body: Buffer,
  plan: ContinuationPlan,
  ids: Uint8Array,
  tokens: number,
  more: readonly Edit[] = noEdits,
): Buffer {
  const { prompt, maxima, maxTokens, logprobs } = plan;
  const { edits, added } = observing(body, plan, more);
  edits.push(...reducedLimits(plan, tokens));
  edits.push(edit(prompt.start, prompt.end, Buffer.concat([promptKey, ids])));
  if (logprobs !== undefined) edits.push(edit(logprobs.start, logprobs.end, 'null'));
  // Without a limit a chat goes on to its end, and a completion for 16 tokens.
  const left = tokensLeft(plan, tokens);
  const limit = left === Number.POSITIVE_INFINITY ? 'null' : String(Math.max(0, left));
  if (maxTokens === undefined) added.push(`"max_tokens":${limit}`);
  else if (!maxima.some(({ start }) => start === maxTokens.start)) {
    edits.push(edit(maxTokens.start, maxTokens.end, limit));
  }
  return changed(body, plan, edits, added);
}

/** Where a chat is continued as a completion. */
export function completionPath(path: string): string {
  return path.replace(/\/chat\/completions(?=$|\?)/, '/completions');
}

const messageOpen = Buffer.from(',{"role":"assistant","content":"');
const messageClose = Buffer.from('"}');
const promptKey = Buffer.from('"prompt":');
const usageAtEnd = '"include_usage":true';
const usageAlways = `${usageAtEnd},"continuous_usage_stats":true`;

function changed(
  body: Buffer,
  { endAt }: ContinuationPlan,
  edits: Edit[],
  added: readonly string[],
): Buffer {
  if (added.length > 0) edits.push(edit(endAt, endAt, `,${added.join(',')}`));
  return edits.length === 0 ? body : edited(body, 0, body.length, edits);
}

function reducedLimits({ maxima, minimum }: ContinuationPlan, by: number): Edit[] {
  const limits = minimum === undefined ? maxima : [...maxima, minimum];
  return limits.map(({ start, end, tokens }: Limit) =>
    edit(start, end, String(Math.max(0, tokens - by))),
  );
}

function observing(body: Buffer, plan: ContinuationPlan, more: readonly Edit[]): Asked {
  const { asks, streamOptions, mode, returnIds, wantsIds } = plan;
  const usageOptions = asks === Asks.usageAlways ? usageAlways : usageAtEnd;
  const edits: Edit[] = [...more];
  const added: string[] = [];
  if (addsOptions(plan)) {
    if (streamOptions === undefined) added.push(`"stream_options":{${usageOptions}}`);
    else {
      const { start, end, others } = streamOptions;
      const kept = others.map((other) => `,${body.toString('utf8', other.start, other.end)}`);
      edits.push(edit(start, end, `{${usageOptions}${kept.join('')}}`));
    }
  }
  if (mode !== 'token_ids' || wantsIds) return { edits, added };
  if (returnIds === undefined) added.push('"return_token_ids":true');
  else edits.push(edit(returnIds.start, returnIds.end, 'true'));
  return { edits, added };
}

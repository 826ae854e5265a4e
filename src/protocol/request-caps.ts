/**
 * What a request may ask of an engine: caps on its numbers, and keys that change more than one request.
 * Pure; acceptor threads; no allocation unless a request is refused.
 *
 * Read off what the one pass of the scanner has found (request-scanner.ts), which refuses a second key of
 * the same name: what is judged here is what the replica reads. A refused request is answered with the
 * codes and the sentences that OpenAI uses. Keys are refused and not taken out: an answer that silently
 * ignores what was asked for is worse than a 400.
 */
import { errors } from '../errors/catalogue.ts';
import { assert } from '../lib/assert.ts';
import { smallerLimit } from '../lib/smaller-limit.ts';
import { countPrompts } from './prompt-count.ts';
import type { RequestFacts } from './request-facts.ts';
import type { AnswerShape } from './routes.ts';

/** Keys of engines that a client may not use unless it is allowed; the order is that of the bits. */
export const restrictedKeys = [
  'prompt_embeds',
  'chat_template',
  'chat_template_kwargs',
  'mm_processor_kwargs',
  'priority',
  'cache_salt',
  // vLLM
  'kv_transfer_params',
  'ec_transfer_params',
  'media_io_kwargs',
  'vllm_xargs',
  'logits_processors',
  // SGLang
  'input_ids',
  'lora_path',
  'session_params',
  'custom_logit_processor',
  'rid',
  'bootstrap_host',
  'bootstrap_port',
  'bootstrap_room',
  'data_parallel_rank',
  'routed_dp_rank',
  'disagg_prefill_dp_rank',
  // llama.cpp
  'lora',
  'id_slot',
  'chat_parser',
  // TensorRT-LLM
  'lora_request',
  'disaggregated_params',
] as const;
assert(restrictedKeys.length <= 32, 'a bit of an int32 for each');
export type RestrictedKey = (typeof restrictedKeys)[number];

/** 0 of a number: no cap. */
export interface RequestCaps {
  readonly n: number;
  readonly maxTokens: number;
  readonly logprobs: number;
  readonly stop: number;
  readonly prompts: number;
  /** Bits of restrictedKeys. */
  readonly refused: number;
}

export const noCaps: RequestCaps = Object.freeze({
  ...{ n: 0, maxTokens: 0, logprobs: 0, stop: 0, prompts: 0, refused: 0 },
});

export const restrictedBit = (key: RestrictedKey): number => 1 << restrictedKeys.indexOf(key);

/** Bits of all keys but those. */
export function refusedBits(allowed: readonly RestrictedKey[]): number {
  return restrictedKeys.reduce(
    (bits, key) => (allowed.includes(key) ? bits : bits | restrictedBit(key)),
    0,
  );
}

/**
 * 0, or the number of the error, whose key and sentence are then in `facts`, which are those of `body`. `n`: a
 * cap of the one who asks, beside that of all: on n, and in a completion on the sequences of all its prompts
 * together; 0: none. `shape`: of its answer; the `input` of /v1/responses is one conversation.
 */
export function capProblem(
  body: Uint8Array,
  facts: RequestFacts,
  caps: RequestCaps,
  n: number,
  shape: AnswerShape,
): number {
  const refused = facts.restricted & caps.refused;
  if (refused !== 0) return notAllowed(facts, refused);
  const most = smallerLimit(n, caps.n);
  if (isOver(facts.n, most)) return tooLarge(facts, 'n', facts.n, most);
  if (isOver(facts.bestOf, most)) return tooLarge(facts, facts.bestOfKey, facts.bestOf, most);
  if (isOver(facts.maxTokens, caps.maxTokens)) {
    return tooLarge(facts, facts.maxTokensKey, facts.maxTokens, caps.maxTokens);
  }
  if (isOver(facts.logprobs, caps.logprobs)) {
    return tooLarge(facts, facts.logprobsKey, facts.logprobs, caps.logprobs);
  }
  if (isOver(facts.stops, caps.stop)) return tooLong(facts, facts.stopKey, facts.stops, caps.stop);
  if (isOver(facts.prompts, caps.prompts)) {
    return tooLong(facts, 'prompt', facts.prompts, caps.prompts);
  }
  const sequences = Math.max(facts.n, facts.bestOf) * facts.prompts;
  if (shape === 'openai-completions' && isOver(sequences, n)) return tooMany(facts, sequences, n);
  // Counted only here: a long list is one more walk.
  if (caps.prompts === 0 || shape === 'responses') return 0;
  const inputs = countPrompts(body, facts.inputStart, facts.inputEnd);
  return isOver(inputs, caps.prompts) ? tooLong(facts, 'input', inputs, caps.prompts) : 0;
}

const isOver = (value: number, cap: number): boolean => cap > 0 && value > cap;

function notAllowed(facts: RequestFacts, refused: number): number {
  const key = restrictedKeys.find((name) => (restrictedBit(name) & refused) !== 0) ?? '';
  facts.errorParam = key;
  facts.errorMessage = `Unsupported parameter: '${key}' is not allowed by this gateway.`;
  return errors.PARAM_NOT_ALLOWED.number;
}

function tooLarge(facts: RequestFacts, key: string, value: number, cap: number): number {
  facts.errorParam = key;
  facts.errorMessage =
    `Invalid '${key}': integer above maximum value. ` +
    `Expected a value <= ${cap}, but got ${value} instead.`;
  return errors.PARAM_TOO_LARGE.number;
}

function tooMany(facts: RequestFacts, sequences: number, cap: number): number {
  facts.errorParam = 'prompt';
  facts.errorMessage =
    `Invalid 'prompt': its ${facts.prompts} prompts ask for ${sequences} completions together ` +
    `('n' or 'best_of' for each). Expected at most ${cap}.`;
  return errors.PARAM_TOO_LONG.number;
}

function tooLong(facts: RequestFacts, key: string, length: number, cap: number): number {
  facts.errorParam = key;
  facts.errorMessage =
    `Invalid '${key}': array too long. Expected an array with maximum length ${cap}, ` +
    `but got an array with length ${length} instead.`;
  return errors.PARAM_TOO_LONG.number;
}

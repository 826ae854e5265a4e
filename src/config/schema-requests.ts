/** The config of what requests may ask for, whoever sends them. Pure; see schema.ts. */
import { z } from 'zod';
import { type RequestCaps, refusedBits, restrictedKeys } from '../protocol/request-caps.ts';
import type { Config } from './schema.ts';
import { duration } from './units.ts';
import { integer } from './values.ts';

const countMax = 2_000_000_000;

export const Requests = z.strictObject({
  max_n: integer(0, 65_536)
    .prefault(128)
    .describe('Largest `n`, `best_of` and `n_cmpl`; a request with more is a 400. 0: no cap.'),
  max_tokens_cap: integer(0, countMax)
    .prefault(0)
    .describe(
      'Largest `max_tokens`, `max_completion_tokens`, `max_output_tokens` and `n_predict`. A request without any of them passes: its engine has a limit of its own. 0: no cap.',
    ),
  max_logprobs: integer(0, countMax)
    .prefault(0)
    .describe(
      'Largest `logprobs`, `top_logprobs`, `prompt_logprobs` and `n_probs`; -1 of a request is the whole vocabulary. 0: no cap.',
    ),
  max_stop: integer(0, countMax)
    .prefault(0)
    .describe('Most texts in `stop` and `stop_sequences`. 0: no cap.'),
  max_prompts: integer(0, 65_536)
    .prefault(2048)
    .describe(
      'Most prompts in the list of one completion, and texts in the `input` of one call for embeddings (2048 there is the limit of OpenAI). 0: no cap.',
    ),
  allow: z
    .array(z.enum(restrictedKeys))
    .max(restrictedKeys.length)
    .prefault(['chat_template_kwargs', 'cache_salt'])
    .describe(
      `Parameters of engines that clients may use, of ${restrictedKeys.map((key) => `\`${key}\``).join(', ')}; the others are a 400 (docs/adr/0012).`,
    ),
});

export const Tokenizers = z.strictObject({
  threads: integer(1, 64)
    .prefault(1)
    .describe('Threads that count; each holds every tokenizer in its memory.'),
  queue: integer(1, 65_536)
    .prefault(64)
    .describe('Prompts that may wait to be counted; one more is decided by an estimate.'),
  timeout: duration('10ms', '30s')
    .prefault('1s')
    .describe('A prompt that is not counted by then is decided by an estimate.'),
});

/** As the scan is judged by them. */
export function capsOf(requests: Config['requests']): RequestCaps {
  return {
    n: requests.max_n,
    maxTokens: requests.max_tokens_cap,
    logprobs: requests.max_logprobs,
    stop: requests.max_stop,
    prompts: requests.max_prompts,
    refused: refusedBits(requests.allow),
  };
}

/** The config of a model and of its replicas. Pure; see schema.ts. */
import { z } from 'zod';
import { adaptersMax, fallbacksMax, replicasMax } from './capacities.ts';
import { checkKeyHeader, keyHeader, replicaHeaders } from './replica-headers.ts';
import { replicaUrl } from './replica-url.ts';
import { duration, size } from './units.ts';
import { file, integer, secret } from './values.ts';

const policyNames = [
  'round_robin',
  'random',
  'least_in_flight',
  'power_of_two',
  'weighted_least_connections',
  'prefix_affinity',
  'cache_aware',
  'lmetric',
  'min_ttft',
  'marginal_cost',
] as const;

const modelName = () =>
  z.string().regex(/^[\x21-\x7e]{1,256}$/, { error: 'must be 1 to 256 visible ASCII characters' });

const mediaDomainText =
  'must be a host in lower case without scheme or port, as a URL has it, or *';
const mediaDomain = () =>
  z
    .string()
    .regex(/^(?:\*|[a-z0-9]([a-z0-9.-]{0,252}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])$/, {
      error: mediaDomainText,
      abort: true,
    })
    // `010.0.0.1` and `[0:0::1]` are spelled otherwise in a URL that was read: they would match nothing.
    .refine((host) => host === '*' || URL.parse(`http://${host}`)?.hostname === host, {
      error: mediaDomainText,
      abort: true,
    })
    .refine((host) => !host.includes('..'), { error: mediaDomainText });

const Batching = z.strictObject({
  window: duration('10us', '10s')
    .prefault('500us')
    .describe('Longest wait of a request for others to go with.'),
  max_items: integer(2, 256).prefault(16).describe('Requests in one call.'),
  max_bytes: size('1KiB', '16MiB')
    .prefault('1MiB')
    .describe('Bytes of their prompts together; a larger one goes alone.'),
});

const RateLimits = z.strictObject({
  requests_per_minute: integer(0, 1_000_000_000)
    .prefault(0)
    .describe('Requests it may be given. 0: no limit.'),
  tokens_per_minute: integer(0, 1_000_000_000_000)
    .prefault(0)
    .describe(
      'Tokens of prompts and answers: as expected when a request goes there, as counted when it is over. 0: no limit.',
    ),
  burst: duration('1s', '60s')
    .prefault('10s')
    .describe('So long a time of each rate may come at once, and one request in any case.'),
});

const Tokenizer = z.strictObject({
  file: file().describe(
    'Path of tokenizer.json, or of its folder, as Hugging Face has it; relative to the config file. tokenizer_config.json beside it is read as well. A reload reads files that have changed.',
  ),
  chat_template: file()
    .optional()
    .describe(
      'Path of the chat template (Jinja). Default: chat_template.jinja beside the file, else what tokenizer_config.json has.',
    ),
});

const Lora = z.strictObject({
  engine: z
    .enum(['vllm', 'sglang'])
    .prefault('vllm')
    .describe(
      'Whose API loads adapters: `/v1/load_lora_adapter` of vLLM, which runs with VLLM_ALLOW_RUNTIME_LORA_UPDATING, or `/load_lora_adapter` of SGLang, where every adapter is asked for as `model:adapter`.',
    ),
  adapters: z
    .array(
      z.strictObject({
        name: modelName().describe('Name that clients send in `model`.'),
        path: z
          .string()
          .regex(/^[^\p{Cc}]{1,4096}$/u, { error: 'must be 1 to 4096 characters' })
          .describe('Where the replicas find it, as their `lora_path` has it.'),
      }),
    )
    .max(adaptersMax)
    .prefault([])
    .describe('Adapters that any replica of the model can load.'),
  max_loaded: integer(1, adaptersMax)
    .prefault(8)
    .describe(
      'How many of them a replica has at one time, `replicas[].adapters` not counted; for another one it gives up the one that was used longest ago. Not above its `--max-cpu-loras` (vLLM) or `--max-loaded-loras` (SGLang).',
    ),
  load_timeout: duration('100ms', '30m')
    .prefault('20s')
    .describe(
      'Longest time that a replica may take to load or give up one, and that requests which still run for the latter are waited for.',
    ),
  retry_after: duration('1s', '1h')
    .prefault('30s')
    .describe('So long a replica that refused to load an adapter is not asked for it again.'),
});

const ReplicaKeys = z.strictObject({
  url: replicaUrl.describe(
    'Address of the replica: scheme, host, port, and the base path of its API where that is not `/v1`, as `https://api.example.com/openai/v1` (docs/models.md).',
  ),
  name: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, {
      error: 'must be 1 to 64 letters, digits, dots, dashes or underscores',
    })
    .optional()
    .describe(
      'Name in metrics, headers and admin paths; unique over all models. Default: the first free one of r1, r2, …',
    ),
  weight: z
    .number()
    .min(0)
    .max(1000)
    .prefault(1)
    .describe('Share of the traffic relative to the other replicas; 0 takes no requests.'),
  max_in_flight: integer(1, 65_536)
    .prefault(256)
    .describe('Requests this replica may hold at one time; when all are full, requests queue.'),
  api_key: secret()
    .prefault('')
    .describe(
      'Sent to the replica instead of the key of the client, as a bearer token unless `api_key_header` says otherwise.',
    ),
  api_key_header: keyHeader()
    .prefault('authorization')
    .describe(
      'The header that carries `api_key`: `authorization` as `Bearer KEY`, any other as the key alone (`api-key` of Azure, `x-api-key` of Anthropic).',
    ),
  headers: replicaHeaders()
    .prefault({})
    .describe(
      'Headers sent to the replica with every request, probes too, in place of the same ones of a client; their values are treated as secrets. At most 32; those of a connection, of the framing and of single requests cannot be set. An empty value: not sent.',
    ),
  served_model_name: modelName()
    .optional()
    .describe(
      'Name of the model at this replica, as its `--served-model-name` or a provider has it: `model` of a request is replaced by it. Absent: the name the request came with. Names of adapters stay.',
    ),
  prefill_us: z
    .number()
    .min(0.01)
    .max(100_000)
    .prefault(21.2)
    .describe(
      'Microseconds per prompt token of prefill; the default is an 8B model on one H100. Between equal replicas only the ratio to resident_us matters.',
    ),
  resident_us: z
    .number()
    .min(0)
    .max(1000)
    .prefault(0.06)
    .describe('Microseconds per token in the KV cache and decode step; the default as above.'),
  kv_tokens: integer(0, 2_000_000_000)
    .prefault(0)
    .describe(
      'Tokens the KV cache may hold: requests wait instead of filling more than 95 % of it, what prompts in flight there have in common (in blocks of 2 KiB) counted once. 0: no limit; the engine queues or preempts.',
    ),
  adapters: z
    .array(modelName())
    .max(adaptersMax)
    .prefault([])
    .describe(
      'LoRA adapters the replica has loaded and keeps, by the names that clients send in `model`; requests for one go to the replicas that have it.',
    ),
  limits: RateLimits.optional().describe(
    'What the replica may be given, as a provider limits the key: it is no candidate while that is used up. With every replica of the model so, and for more than a moment, requests go on to a fallback or are a 429 with retry-after.',
  ),
  batching: Batching.optional().describe(
    'Completions that do not stream and are equal but for a prompt of one text wait for each other and reach the replica as one call with a list of prompts.',
  ),
});
export const Replica = ReplicaKeys.superRefine(checkKeyHeader);

const OnReply = z.strictObject({
  refusal: z
    .boolean()
    .prefault(false)
    .describe(
      'A refusal in the words of its protocol: `refusal` of a chat message, a `refusal` part of a response, `stop_reason: refusal` of a message, the finish reason `content_filter`.',
    ),
  finish_reasons: z
    .array(z.string().regex(/^[\x21-\x7e]{1,64}$/, { error: 'must be 1 to 64 visible characters' }))
    .max(16)
    .prefault([])
    .describe('Other finish reasons, or stop reasons, that count as a refusal.'),
  header: z
    .string()
    .regex(/^[a-z0-9][a-z0-9-]{0,63}$/, {
      error: 'must be the name of a header in lower case',
    })
    .optional()
    .describe(
      'A header that a replica sets on an answer of low confidence, to anything but 0, false, no or nothing.',
    ),
  field: z
    .string()
    .regex(/^[\x21\x23-\x5b\x5d-\x7e]{1,64}$/, {
      error: 'must be 1 to 64 visible characters without quotes and backslashes',
    })
    .optional()
    .describe(
      'The same as a field of the JSON of a whole answer, or of an event of a stream up to the first with content.',
    ),
  mean_logprob_below: z
    .number()
    .min(-20)
    .max(0)
    .optional()
    .describe(
      'The tokens of a whole answer have a lower logprob on the mean, where the client has asked for logprobs.',
    ),
});

const Cascade = z.strictObject({
  model: z.string().min(1).max(256).describe('The larger model, or an adapter of one.'),
  prompt_bytes: size('0B', '64MiB')
    .prefault('0B')
    .describe(
      'Prompts of so many bytes and more go to it, some four for each token; 0B: only requests that ask for it, with `x-sluice-cascade: large` or by `cascade` of their tenant. With `small` a request stays.',
    ),
  on_reply: OnReply.optional().describe(
    'Replies of this model that are discarded before a byte of them reaches the client, and the larger model is asked: those for which any of the following is true.',
  ),
});

const perMillion = () => z.number().min(0).max(1_000_000_000);

const Price = z.strictObject({
  input: perMillion().prefault(0).describe('A million tokens of prompts.'),
  cached_input: perMillion()
    .optional()
    .describe('A million of those that the replica had in its cache; absent: as others.'),
  output: perMillion().prefault(0).describe('A million tokens of answers.'),
});

export const Model = z.strictObject({
  name: modelName().describe('Name that clients send in `model`.'),
  aliases: z
    .array(modelName())
    .max(64)
    .prefault([])
    .describe(
      'Other names for the same model; the replica is asked for the model by its own name.',
    ),
  fallbacks: z
    .array(z.string().min(1).max(256))
    .max(fallbacksMax)
    .prefault([])
    .describe(
      'Models (or adapters of them) that are asked in this order, before the first byte of an answer, when this one has no replica or none that answers, all are busy, or its queue is full or too slow. A fallback of a fallback is not asked.',
    ),
  context_window_fallbacks: z
    .array(z.string().min(1).max(256))
    .max(fallbacksMax)
    .prefault([])
    .describe(
      'Models that are asked in this order when a replica says that the prompt is longer than the context of the model.',
    ),
  cascade: Cascade.optional().describe(
    'A larger model for what this one is too small for: decided when a request comes, or by the reply of this one.',
  ),
  policy: z
    .enum(policyNames)
    .prefault('marginal_cost')
    .describe('How a replica is picked; see docs/architecture.md.'),
  session_affinity: z
    .boolean()
    .prefault(true)
    .describe(
      'Requests with the same x-session-id, session_id or prompt_cache_key go to the same replica while it is not overloaded.',
    ),
  continuation: z
    .enum(['off', 'text', 'token_ids'])
    .prefault('off')
    .describe(
      'What becomes of a stream that breaks in its middle: off ends it with an error event; text has another replica go on behind the text that the client has, token_ids behind its tokens, where the request allows it (docs/operations.md).',
    ),
  continuation_max: size('1KiB', '16MiB')
    .prefault('64KiB')
    .describe(
      'Bytes that are remembered of a stream: of its delivered text, or 4 for each token of prompt and answer; a longer one is not continued.',
    ),
  stream_usage: z
    .enum(['auto', 'off', 'end', 'continuous'])
    .prefault('auto')
    .describe(
      'Whether replicas are asked for the usage of streams whose clients did not ask: `end` for that of the last chunk, `continuous` for that of every chunk too, which is exact also where a client leaves. `auto` is `end` where somebody is billed or limited by it: the model has a price and `usage.file` is set, or a limit of the tenant counts tokens. The client does not see it, nor what an engine puts beside it (`timings` of llama.cpp). An engine that does not know `stream_options`, or for `continuous` one other than vLLM and SGLang, may refuse it: then it is asked for less, or for none (docs/operations.md). Without it events with tokens are counted, and prompts estimated.',
    ),
  allowed_media_domains: z
    .array(mediaDomain())
    .max(256)
    .prefault([])
    .describe(
      'Hosts that images, video, audio and files in a request may be on; others are a 400, since the replica would fetch them. `data:` URLs always pass, paths of files never do; `*`: no check.',
    ),
  price: Price.optional().describe(
    'What tokens cost, in `usage.currency`; usage events then have a `cost`.',
  ),
  max_context: integer(0, 2_000_000_000)
    .prefault(0)
    .describe(
      'Tokens of prompt and answer together: a request that asks for more is a 400 `context_length_exceeded` and reaches no replica. What cannot be more by its bytes passes at once; the rest is counted by `tokenizer`, else only what an estimate has at more than twice as much is refused. With `context_window_fallbacks` the largest of them all counts, 0 among them as no limit. 0: the engine is asked.',
    ),
  tokenizer: Tokenizer.optional().describe(
    'Files of the tokenizer of the model: prompts near `max_context` are counted exactly, and `/tokenize` and `/v1/messages/count_tokens` are answered without a replica.',
  ),
  lora: Lora.optional().describe(
    'LoRA adapters that replicas load when requests ask for them (docs/models.md).',
  ),
  replicas: z.array(Replica).min(1).max(replicasMax).describe('The servers of this model.'),
});

const Share = z.strictObject({
  model: z.string().min(1).max(256).describe('Name, alias or adapter of a model; no split.'),
  weight: z
    .number()
    .min(0)
    .max(1_000_000)
    .prefault(1)
    .describe('Share of the requests relative to the others; 0 takes none.'),
});

export const Split = z.strictObject({
  name: modelName().describe('Name that clients send in `model`.'),
  aliases: z.array(modelName()).max(64).prefault([]).describe('Other names for the same split.'),
  models: z
    .array(Share)
    .min(1)
    .max(16)
    .describe(
      'Who serves the requests, by weight: those of one session (x-session-id, session_id, prompt_cache_key) all one of them. `model` of a request is replaced by the name of the one that serves, and `x-sluice-model` tells it.',
    ),
});

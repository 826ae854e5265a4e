/** The config of tenants and of their keys. Pure; see schema.ts. */
import { z } from 'zod';
import { keysMax, priorityMax, tenantsMax } from './capacities.ts';
import { failureMode } from './schema-limits.ts';
import { duration } from './units.ts';
import { integer, share } from './values.ts';

const shortName = () =>
  z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, {
    error: 'must be 1 to 64 letters, digits, dots, dashes or underscores',
  });

const digestText = () =>
  z.string().regex(/^[0-9a-f]{64}$/, {
    error: 'must be the SHA-256 of a key as 64 hex digits; `sluice key new` prints both',
  });

const instant = () =>
  z.iso
    .datetime({
      offset: true,
      error: 'must be a date with time and zone, such as 2027-01-31T00:00:00Z',
    })
    .transform((text) => Date.parse(text));

const modelNames = () => z.array(z.string().min(1).max(256)).max(64).optional();

export const Key = z.strictObject({
  id: shortName().describe('Names the key in logs, usage and admin paths; unique in its tenant.'),
  sha256: digestText().describe(
    'SHA-256 of the key in hex. The key itself is nowhere: `sluice key new` prints both.',
  ),
  expires: instant().optional().describe('The key is refused from then on.'),
  disabled: z.boolean().prefault(false).describe('The key is refused.'),
  priority: integer(-priorityMax, priorityMax)
    .prefault(0)
    .describe('Added to the priority of its tenant; the sum is kept within -100 and 100.'),
  models: modelNames().describe(
    'Models the key may use, of those of its tenant, by name, alias or adapter; absent: all of them.',
  ),
});

/** 0: no limit. */
const perMinute = () => integer(0, 1_000_000_000_000).prefault(0);

const Limits = z.strictObject({
  requests_per_minute: perMinute().describe('Requests it may begin; over it: 429. 0: no limit.'),
  input_tokens_per_minute: perMinute().describe(
    'Prompt tokens, as estimated when a request comes and as counted when it is over. 0: no limit.',
  ),
  output_tokens_per_minute: perMinute().describe(
    'Output tokens: `max_tokens` is set aside when a request comes, or what answers of the model have without one, and what was not used comes back. 0: no limit.',
  ),
  burst: duration('1s', '24h')
    .prefault('60s')
    .describe(
      'What a full bucket holds: so long a time of each rate may come at once. A request that is larger than that passes a full one.',
    ),
  concurrency: integer(0, 262_144)
    .prefault(0)
    .describe(
      'Requests in the gateway at one time; over it: 429. Several gateways each allow as many. 0: no limit.',
    ),
  max_n: integer(0, 65_536)
    .prefault(0)
    .describe(
      'Largest `n` and `best_of`, where it is below `requests.max_n`; and most completions that one call may ask for with a list of prompts, each counted `n` times. 0: as for all.',
    ),
  max_context: integer(0, 2_000_000_000)
    .prefault(0)
    .describe(
      'Tokens of prompt and answer together, where it is below `max_context` of the model. 0: as for all.',
    ),
});

/** 0: no limit. */
const amount = () => z.number().min(0).max(1_000_000_000).prefault(0);

const Budget = z.strictObject({
  day: amount().describe('What it may spend in a day of UTC. 0: no limit.'),
  month: amount().describe('What it may spend in a month of UTC. 0: no limit.'),
});

const Tenant = z.strictObject({
  name: shortName().describe('Name in logs, metrics and usage; unique.'),
  models: modelNames().describe(
    'Models the tenant may use, by name, alias or adapter; others are a 403. Absent: all.',
  ),
  priority: integer(-priorityMax, priorityMax).prefault(0).describe('Priority of its requests.'),
  priority_header: z
    .boolean()
    .prefault(false)
    .describe('Its requests may ask for more or less (`x-sluice-priority`), which is added.'),
  cascade: z
    .enum(['auto', 'large', 'small'])
    .prefault('auto')
    .describe(
      'Where a model has a `cascade`: its requests go to the larger one at once, or stay whatever their length and the reply, unless they say otherwise in `x-sluice-cascade`.',
    ),
  log_sample: share()
    .optional()
    .describe(
      'Share of its successful requests in the access log, in place of `log.sample`; failed and slow ones all are.',
    ),
  limits: Limits.prefault({}).describe('Over all of its requests.'),
  model_limits: z
    .record(z.string().min(1).max(256), Limits)
    .prefault({})
    .describe(
      'Limits for one model each, by its name and with the keys of `limits`, beside those over all of its requests; of `max_n` and `max_context` the smaller of the two holds. They are of the requests that come for the model, by whichever name or split; one that a model hands on (`fallbacks`) stays with the limits of the model it came for.',
    ),
  failure_mode: failureMode().optional().describe('As `limits.failure_mode`, for this tenant.'),
  budget: Budget.prefault({}).describe(
    'By `price` of the models and in `usage.currency`. Once it is spent, requests are a 429 `insufficient_quota` until the day or the month is over; those that run go on. Shared by gateways with `limits.store: redis`.',
  ),
  keys: z.array(Key).max(keysMax).prefault([]).describe('Keys that its clients send.'),
});

export const Auth = z.strictObject({
  keys: z
    .enum(['auto', 'required', 'off'])
    .prefault('auto')
    .describe(
      'Whether requests need a key (`Authorization: Bearer` or `x-api-key`): `auto` when there are tenants; `required` also while there are none, so that nobody is let in; `off` asks for none, and the keys that clients send go on to the replica.',
    ),
});

export const tenants = () => z.array(Tenant).max(tenantsMax);

/**
 * The config: one row per key. Type, default, validation, the reference page and the editor schema
 * all come from the row; the inferred types are the only config types there are.
 *
 * Pure; any thread may import the types, only load and reload run the schema. Keys are snake_case in
 * the file and stay so in the loaded object: one name per key in file, docs, messages and code.
 * Durations are loaded as milliseconds, sizes as bytes, a replica URL as its origin.
 */
import { z } from 'zod';
import { isForbiddenHost } from './address.ts';
import { adaptersMax, modelsMax, replicasMax } from './capacities.ts';
import { applyRules } from './rules.ts';
import { duration, size } from './units.ts';

const integer = (min: number, max: number) => z.int().min(min).max(max);
const share = () => z.number().min(0).max(1);

const port = () => integer(0, 65_535);
const host = () =>
  z
    .string()
    .regex(/^[A-Za-z0-9.:[\]_-]{1,253}$/, { error: 'must be a host name or an IP address' });

/** Goes into an HTTP header as it is: anything but visible ASCII could split the header. */
const secret = () =>
  z
    .string()
    .regex(/^[\x21-\x7e]{0,4096}$/, { error: 'must be visible ASCII without spaces' })
    .meta({ writeOnly: true });

const file = () => z.string().min(1).max(4096);

const replicaUrl = z
  .string()
  .max(2048)
  .meta({ format: 'uri' })
  .transform((text, context): string => {
    const message = replicaUrlProblem(text);
    if (message === undefined) return new URL(text).origin;
    context.issues.push({ code: 'custom', message, input: text });
    return z.NEVER;
  });

function replicaUrlProblem(text: string): string | undefined {
  const url = URL.parse(text);
  if (url === null) return 'must be a URL such as http://10.0.0.7:8000';
  if (url.protocol !== 'http:' && url.protocol !== 'https:') return 'must be http or https';
  if (url.username !== '' || url.password !== '') {
    return 'must not contain credentials; use api_key';
  }
  // `href` ends in `?` or `#` for an empty query or fragment, where `search` and `hash` are empty.
  if (/[?#]/.test(url.href)) return 'must not contain a query or a fragment';
  if (url.pathname !== '/') return 'must end after host and port; the request brings its own path';
  if (url.port === '0') return 'must not have port 0';
  if (isForbiddenHost(url.hostname)) {
    return 'must not be a link-local, metadata, multicast or unspecified address';
  }
  return undefined;
}

const Tls = z.strictObject({
  cert: file().describe('PEM file with the certificate chain, leaf first.'),
  key: file().describe('PEM file with the private key.'),
  passphrase: secret().optional().describe('Passphrase of the private key.'),
  ca: file()
    .optional()
    .describe(
      'PEM file of certificate authorities. Given: clients must show a certificate of one.',
    ),
});

const Listen = z.strictObject({
  host: host().prefault('0.0.0.0').describe('Address the HTTP listener binds.'),
  port: port().prefault(8080).describe('Port of the HTTP listener. 0 takes a free one.'),
  engine: z
    .enum(['auto', 'uws', 'node'])
    .prefault('auto')
    .describe(
      'HTTP engine: `uws` is uWebSockets.js, `node` is node:http with its strict parser, `auto` takes `uws` when its binary loads.',
    ),
  // Above it no arena holds two blocks (rule arena_holds_two_bodies).
  max_body: size('1KiB', '511MiB')
    .prefault('16MiB')
    .describe('A request body above this is answered 413.'),
  max_connections: integer(1, 1_000_000)
    .prefault(10_000)
    .describe(
      'Open client connections of each acceptor; more are closed at once. Must fit the descriptor limit.',
    ),
  tls: Tls.optional().describe('Serve HTTPS. File names are relative to the config file.'),
});

const Admin = z.strictObject({
  host: host().prefault('127.0.0.1').describe('Address of the admin and metrics listener.'),
  port: port()
    .prefault(9090)
    .describe('Port of the admin and metrics listener. 0 takes a free one.'),
  token: secret()
    .prefault('')
    .describe(
      'Bearer token of the admin listener. Empty: read-only, and only on a loopback address.',
    ),
});

const Threads = z.strictObject({
  acceptors: integer(1, 64).prefault(1).describe('Threads that serve client connections.'),
  forwarders: integer(1, 64).prefault(1).describe('Threads that talk to replicas.'),
});

const Memory = z.strictObject({
  slots: integer(2, 262_144)
    .prefault(8192)
    .describe('Requests in the gateway at one time, a power of two; over it: 503.'),
  arena: size('64KiB', '2047MiB')
    .prefault('256MiB')
    .describe(
      'Shared memory for request bodies, divided among the acceptors; full: 503. Offsets in it are int32.',
    ),
  stream_window: size('4KiB', '16MiB')
    .prefault('64KiB')
    .describe('Bytes of one answer that may wait for a slow client before its replica is paused.'),
});

const Drain = z.strictObject({
  timeout: duration('0s', '1h')
    .prefault('30s')
    .describe('After SIGTERM, requests in flight may take this long; then they end with an error.'),
  settle: duration('0s', '10m')
    .prefault('0s')
    .describe('Keep accepting this long after SIGTERM while /readyz is 503 already.'),
});

const Timeouts = z.strictObject({
  queue: duration('1ms', '10m')
    .prefault('30s')
    .describe('A request that has waited this long in the queue is answered 503 with retry-after.'),
  connect: duration('1ms', '5m')
    .prefault('2s')
    .describe('Time to open a connection to a replica; over it the next replica is tried.'),
  first_token: duration('1ms', '1h')
    .prefault('120s')
    .describe('Time from the write of a request to the first content of its stream.'),
  answer: duration('1ms', '24h')
    .prefault('600s')
    .describe(
      'Time from the write of a request that does not stream to its answer. Engines send nothing of it, not even headers, before its end.',
    ),
  inter_token: duration('1ms', '1h')
    .prefault('30s')
    .describe('Longest silence inside an answer that has begun.'),
  total: duration('1ms', '24h')
    .prefault('600s')
    .describe('Deadline of a request, counted from its arrival; over it: 504.'),
});

const path = () =>
  z.string().regex(/^\/[\x21-\x7e]{0,1023}$/, { error: 'must be a path that starts with /' });

const Health = z.strictObject({
  path: path().prefault('/v1/models').describe('A GET on this path must answer 200.'),
  interval: duration('10ms', '10m')
    .prefault('5s')
    .describe('Time between two probes of a replica.'),
  timeout: duration('1ms', '5m').prefault('1s').describe('A probe slower than this has failed.'),
  unhealthy_after: integer(1, 100)
    .prefault(2)
    .describe('Failed probes in a row that take a replica out.'),
  healthy_after: integer(1, 100)
    .prefault(1)
    .describe('Good probes in a row that bring a replica back.'),
});

const EngineMetrics = z.strictObject({
  interval: duration('0s', '10m')
    .prefault('0s')
    .describe(
      'Time between two readings of the metrics page of a vLLM, SGLang, TGI or llama.cpp replica: what other clients have there then counts as load, and the size of its KV cache becomes known. 0s: never.',
    ),
  timeout: duration('1ms', '5m')
    .prefault('500ms')
    .describe('A page slower than this is not waited for.'),
  path: path().prefault('/metrics').describe('Path of the metrics page.'),
});

const Queue = z.strictObject({
  max: integer(0, 262_144)
    .prefault(1000)
    .describe(
      'Waiting requests per model; over it 429 for the key with the most of them. Divided by the throughput it is the longest wait.',
    ),
  hold_tokens: integer(0, 1_000_000_000)
    .prefault(0)
    .describe(
      'Requests wait in the gateway, in fair order, while every replica has more than this many prompt tokens to prefill; 16384 is two engine steps. 0: never.',
    ),
});

const Retry = z.strictObject({
  max_attempts: integer(1, 10).prefault(3).describe('Attempts per request, the first included.'),
  budget: share()
    .prefault(0.2)
    .describe(
      'Retries, failovers and hedges together, as a share of the requests in flight; those after a connection that never came about are free.',
    ),
  budget_min: integer(0, 10_000)
    .prefault(3)
    .describe('Retries always allowed at one time, however few requests are in flight.'),
});

const Hedge = z.strictObject({
  automatic: z
    .boolean()
    .prefault(false)
    .describe(
      'Second attempt without being asked when the first token is late. Not in this version: must be false.',
    ),
  budget: share().prefault(0.02).describe('Hedges as a share of all requests.'),
});

const Log = z.strictObject({
  level: z
    .enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'])
    .prefault('info')
    .describe('Least severe level that is written.'),
  sample: share()
    .prefault(0.01)
    .describe('Share of successful requests in the access log; failed and slow ones all are.'),
  pretty: z
    .enum(['auto', 'always', 'never'])
    .prefault('auto')
    .describe('Lines for people instead of JSON; `auto`: when standard output is a terminal.'),
});

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

export const Replica = z.strictObject({
  url: replicaUrl.describe('Scheme, host and port of the replica, nothing more.'),
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
    .describe('Sent to the replica as a bearer token instead of the one of the client.'),
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
      'Tokens the KV cache may hold: requests wait instead of filling more than 95 % of it, each counted with its whole prompt, shared beginnings too. 0: no limit; the engine queues or preempts.',
    ),
  adapters: z
    .array(modelName())
    .max(adaptersMax)
    .prefault([])
    .describe(
      'LoRA adapters the replica has loaded, by the names that clients send in `model`; requests for one go to the replicas that have it.',
    ),
});

const Model = z.strictObject({
  name: modelName().describe('Name that clients send in `model`.'),
  aliases: z
    .array(modelName())
    .max(64)
    .prefault([])
    .describe('Other names for the same model; the request reaches the replica as it came.'),
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
  replicas: z.array(Replica).min(1).max(replicasMax).describe('The servers of this model.'),
});

const Sections = z.strictObject({
  listen: Listen.prefault({}).describe('The HTTP listener for clients.'),
  admin: Admin.prefault({}).describe('The listener for operators: metrics, state, changes.'),
  threads: Threads.prefault({}).describe('Thread counts.'),
  memory: Memory.prefault({}).describe('Sizes of the shared memory; fixed while the process runs.'),
  drain: Drain.prefault({}).describe('Leaving without losing a request.'),
  timeouts: Timeouts.prefault({}).describe('Limits in time, per request.'),
  health: Health.prefault({}).describe('Probes of every replica.'),
  engine_metrics: EngineMetrics.prefault({}).describe('What the engines say of their load.'),
  queue: Queue.prefault({}).describe('Requests that wait for a replica.'),
  retry: Retry.prefault({}).describe('Further attempts, before the first byte of the answer only.'),
  hedge: Hedge.prefault({}).describe('Second attempts beside a slow first one.'),
  log: Log.prefault({}).describe('The log on standard output.'),
  models: z.array(Model).min(1).max(modelsMax).describe('The models and their replicas.'),
});

type Complete = z.infer<typeof Sections>;

export const ConfigSchema = applyRules(Sections).transform(nameReplicas);
export type ConfigInput = z.input<typeof ConfigSchema>;
export type Config = DeepReadonly<z.output<typeof ConfigSchema>>;
export type ModelConfig = Config['models'][number];
export type PolicyName = ModelConfig['policy'];

type DeepReadonly<T> = T extends readonly (infer E)[]
  ? readonly DeepReadonly<E>[]
  : T extends object
    ? { readonly [K in keyof T]: DeepReadonly<T[K]> }
    : T;

/** Gives every unnamed replica the first free name of r1, r2, … in the order of the file. */
function nameReplicas(config: Complete) {
  const taken = new Set(config.models.flatMap((m) => m.replicas.map((r) => r.name)));
  let next = 1;
  const freeName = (): string => {
    while (taken.has(`r${next}`)) next++;
    return `r${next++}`;
  };
  const models = config.models.map((model) => ({
    ...model,
    replicas: model.replicas.map((replica) => ({ ...replica, name: replica.name ?? freeName() })),
  }));
  return { ...config, models };
}

/**
 * The config: one row per key. Type, default, validation, the reference page and the editor schema
 * all come from the row; the inferred types are the only config types there are.
 *
 * Pure; any thread may import the types, only load and reload run the schema. Keys are snake_case in
 * the file and stay so in the loaded object: one name per key in file, docs, messages and code.
 * Durations are loaded as milliseconds, sizes as bytes, a replica URL as its origin.
 */
import { z } from 'zod';
import { modelsMax, splitsMax } from './capacities.ts';
import { applyRules } from './rules.ts';
import { SharedLimits } from './schema-limits.ts';
import { Model, Split } from './schema-models.ts';
import { Requests, Tokenizers } from './schema-requests.ts';
import { Metrics, Tracing } from './schema-telemetry.ts';
import { Auth, tenants } from './schema-tenants.ts';
import { Usage } from './schema-usage.ts';
import { duration, size } from './units.ts';
import { file, host, integer, path, port, secret, share } from './values.ts';

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
  audit_log: z
    .string()
    .max(4096)
    .prefault('')
    .describe(
      'File for one JSON line per change that the admin listener was asked for: who, from where, what, with which result; relative to the config file. Empty: in the log, with `audit: true`.',
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
  responses: integer(8, 4_194_304)
    .prefault(65_536)
    .describe(
      'Stored responses (`/v1/responses`) whose replica is remembered, a power of two; over it the one used least recently is forgotten. 44 bytes each.',
    ),
});

const Drain = z.strictObject({
  timeout: duration('0s', '1h')
    .prefault('30s')
    .describe(
      'After SIGTERM, or once another process has taken over, requests in flight may take this long; then they end with an error.',
    ),
  settle: duration('0s', '10m')
    .prefault('0s')
    .describe('Keep accepting this long after SIGTERM while /readyz is 503 already.'),
});

const Restart = z.strictObject({
  timeout: duration('100ms', '1h')
    .prefault('60s')
    .describe(
      'On SIGUSR2 a second process must be able to serve within this; else it ends and the one that serves stays.',
    ),
});

const Degrade = z.strictObject({
  memory: size('64MiB', '16384GiB', 'auto', 'off')
    .prefault('auto')
    .describe(
      'Memory the gateway process may have. At 85 % of it answers close their connections, at 92 % new requests are answered 503, at 95 % each acceptor cuts its largest slow reader (half a `stream_window` or more) four times a second, at 97 % new connections are closed; each ends 3 % lower. `auto`: the limit of its control group, else the memory of the machine.',
    ),
  descriptors: z
    .boolean()
    .prefault(true)
    .describe(
      'The same for open files: at 90 % of their limit answers close their connections, at 98 % new connections are closed.',
    ),
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

const Streams = z.strictObject({
  keep_alive: duration('100ms', '10m', 'off')
    .prefault('15s')
    .describe(
      'A client that asked for a stream and has waited this long for its first byte is sent the head of the answer and a comment (`: keep-alive`), and another comment after each further such time; load balancers cut silent connections, often at 60 s. From then on a failure is an error event in a 200. `off`: never.',
    ),
});

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
  stall: duration('0s', '10m')
    .prefault('0s')
    .describe(
      'A replica that has requests, is well by its path and has not sent a byte for so long is asked for one token; without it the replica is out until it gives one. Longer than the longest prefill takes. 0s: never.',
    ),
  token_timeout: duration('1ms', '5m')
    .prefault('5s')
    .describe('A token that takes longer has not come.'),
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

const Scheduler = z.strictObject({
  seed: integer(0, 2_147_483_647)
    .prefault(0)
    .describe(
      'Seed of all random choices of the scheduler: with the same one, the same events in the same order are decided alike. 0: another one at each start.',
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

const Breaker = z.strictObject({
  mode: z
    .enum(['window', 'consecutive', 'quarantine', 'off'])
    .prefault('window')
    .describe(
      'What takes a replica out: too many failures among its last requests, failures in a row, a single failure; or nothing does. Failures are answers that never came, broke off or were too late; refusals (429, 503) and errors of the client (4xx) are none.',
    ),
  window: integer(2, 1000)
    .prefault(10)
    .describe('`window`: requests looked at; nothing is judged before there were as many.'),
  failure_rate: share()
    .prefault(0.5)
    .describe('`window`: a greater share of failures among them takes the replica out.'),
  consecutive: integer(1, 1000)
    .prefault(5)
    .describe('`consecutive`: so many failures in a row take it out.'),
  open: duration('1ms', '1h')
    .prefault('5s')
    .describe(
      'How long it is out. Then one request at a time tries it, and the first that succeeds brings it back; after a `quarantine` it is back at once.',
    ),
  max_ejected: share()
    .prefault(0.5)
    .describe('Share of a model’s replicas that may be out in this way at once; at least one may.'),
  panic_below: share()
    .prefault(0.5)
    .describe(
      'While the share of a model’s replicas that are in and healthy is smaller, those that are out are asked as well.',
    ),
});

const Hedge = z.strictObject({
  automatic: z
    .boolean()
    .prefault(false)
    .describe(
      'A stream whose first token is later than 95 % of those of its prompt length is sent to a second replica as well; the first to answer is passed on, the other cut. Never on a replica that a queued request could use.',
    ),
  budget: share()
    .prefault(0.02)
    .describe(
      'Automatic hedges as a share of all requests; the first comes once six are earned, or fewer for a request that is very late. Those that clients ask for (`x-sluice-hedge`) are not counted here; half of `retry.budget` bounds both, the rest is for failures.',
    ),
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

const Sections = z.strictObject({
  listen: Listen.prefault({}).describe('The HTTP listener for clients.'),
  admin: Admin.prefault({}).describe('The listener for operators: metrics, state, changes.'),
  threads: Threads.prefault({}).describe('Thread counts.'),
  memory: Memory.prefault({}).describe('Sizes of the shared memory; fixed while the process runs.'),
  degrade: Degrade.prefault({}).describe(
    'What is given up, step by step, before memory or descriptors run out.',
  ),
  drain: Drain.prefault({}).describe('Leaving without losing a request.'),
  restart: Restart.prefault({}).describe('A new process beside the old one, on the same port.'),
  timeouts: Timeouts.prefault({}).describe('Limits in time, per request.'),
  streams: Streams.prefault({}).describe('Answers that come as a stream of events.'),
  health: Health.prefault({}).describe('Probes of every replica.'),
  engine_metrics: EngineMetrics.prefault({}).describe('What the engines say of their load.'),
  queue: Queue.prefault({}).describe('Requests that wait for a replica.'),
  scheduler: Scheduler.prefault({}).describe('The thread that decides.'),
  breaker: Breaker.prefault({}).describe('Replicas that are left out for what they did.'),
  slow_start: duration('0s', '1h')
    .prefault('10s')
    .describe(
      'A replica that is back, or joins others at work, takes so long to its full share. 0s: no time.',
    ),
  retry: Retry.prefault({}).describe('Further attempts, before the first byte of the answer only.'),
  hedge: Hedge.prefault({}).describe('Second attempts beside a slow first one.'),
  log: Log.prefault({}).describe('The log on standard output.'),
  usage: Usage.prefault({}).describe('Who used what, and who is told of it.'),
  metrics: Metrics.prefault({}).describe('What `/metrics` tells apart.'),
  tracing: Tracing.prefault({}).describe('Spans of requests, for OpenTelemetry.'),
  requests: Requests.prefault({}).describe('What one request may ask for.'),
  tokenizers: Tokenizers.prefault({}).describe('The threads that count tokens.'),
  auth: Auth.prefault({}).describe('Who may use the listener.'),
  limits: SharedLimits.prefault({}).describe('Where the limits of tenants are counted.'),
  tenants: tenants()
    .prefault([])
    .describe('Who uses it: their keys, and what these may ask for. Reloaded without a restart.'),
  models: z.array(Model).min(1).max(modelsMax).describe('The models and their replicas.'),
  splits: z
    .array(Split)
    .max(splitsMax)
    .prefault([])
    .describe('Names whose requests several models share, as for a canary.'),
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

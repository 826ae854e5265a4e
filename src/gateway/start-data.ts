/** What each thread is given at its start, taken from the config. Pure. */
import { adaptersOf } from '../config/adapters.ts';
import { onwardRefs, splitRows } from '../config/model-names.ts';
import { modelRules, schedulingLimits } from '../config/scheduling.ts';
import type { Config, ModelConfig } from '../config/schema.ts';
import { capsOf } from '../config/schema-requests.ts';
import type { Price } from '../lib/price.ts';
import { ThreadId } from '../shm/control.layout.ts';
import type { SharedMemory } from '../shm/memory.ts';
import type {
  AcceptorStart,
  ForwarderStart,
  LedgerStart,
  LimiterStart,
  ModelRow,
  RedisStart,
  ReplicaAddress,
  SchedulerStart,
  ThreadLog,
  TracerStart,
} from '../shm/threads.ts';
import type { TenantTables } from './tenants.ts';
import { version } from './version.ts';

export interface StartContext extends TenantTables {
  readonly config: Config;
  readonly engine: 'uws' | 'node';
  readonly memory: SharedMemory;
  /** One region per ThreadId, and one for the tracer where there is one. */
  readonly metrics: readonly SharedArrayBuffer[];
  readonly members: readonly ReplicaAddress[];
}

/** Lines are for people when asked for, or by default on a terminal. */
export const threadLog = ({ level, sample, pretty }: Config['log']): ThreadLog => ({
  ...{ level, sample },
  pretty: pretty === 'always' || (pretty === 'auto' && process.stdout.isTTY === true),
});

/** The models as every thread knows them, and where their requests go. */
export function modelRows(config: Config): readonly ModelRow[] {
  const goesOn = onwardRefs(config);
  return config.models.map((model, index) => {
    const { name, aliases, continuation: mode, continuation_max: bytesMax } = model;
    const continuation = { mode, bytesMax };
    const adapters = adaptersOf(model);
    const mediaDomains = model.allowed_media_domains;
    const { stream_usage: streamUsage } = model;
    const ofStreams = { continuation, streamUsage };
    const ofTokens = {
      maxContext: model.max_context,
      hasTokenizer: model.tokenizer !== undefined,
    };
    return {
      name,
      aliases,
      ...modelRules(model),
      ...ofStreams,
      ...{ adapters, mediaDomains, ...ofTokens },
      hasQualifiedAdapters: model.lora?.engine === 'sglang',
      // Without a file nobody adds it up, and no replica is asked for usage because of it.
      price: config.usage.file === '' ? undefined : priceOf(model.price),
      ...goesOn[index],
    };
  });
}

function common({ config, memory, metrics }: StartContext, thread: number) {
  return {
    memory,
    metrics: metrics[thread] as SharedArrayBuffer,
    log: threadLog(config.log),
    models: modelRows(config),
  };
}

function priceOf(price: ModelConfig['price']): Price | undefined {
  if (price === undefined) return undefined;
  const { input, cached_input: cachedInput = input, output } = price;
  return { input, cachedInput, output };
}

/** Addresses alone: a member carries more than a thread should know. */
export const addressOf = ({ row, epoch, name, url, ...more }: ReplicaAddress): ReplicaAddress => {
  const { apiKey, apiKeyHeader, headers, maxInFlight, takesBatches, servedName } = more;
  const own = { apiKey, apiKeyHeader, headers };
  return { row, epoch, name, url, ...own, maxInFlight, takesBatches, servedName };
};

/** For threads that ask no replica: keys and headers stay with the forwarders. */
export const withoutSecrets = ({ headers: _, ...address }: ReplicaAddress): ReplicaAddress => ({
  ...address,
  apiKey: '',
});

const addresses = ({ members }: StartContext): ReplicaAddress[] => members.map(addressOf);

export function acceptorStart(context: StartContext, index: number): AcceptorStart {
  const { listen, memory, streams, tracing, usage } = context.config;
  return {
    ...common(context, ThreadId.acceptor(index)),
    thread: 'acceptor',
    index,
    engine: context.engine,
    host: listen.host,
    port: listen.port,
    tls: listen.tls ?? null,
    maxBody: listen.max_body,
    maxConnections: listen.max_connections,
    streamWindow: memory.stream_window,
    keepAlive: streams.keep_alive === 'off' ? 0 : streams.keep_alive,
    usage:
      usage.file === ''
        ? null
        : {
            ...{ path: usage.file, maxBytes: usage.max_size },
            ...{ keep: usage.keep, bufferBytesMax: usage.buffer, currency: usage.currency },
          },
    ...(tracing.endpoint !== '' && {
      tracing: { sample: tracing.sample, maxPerSecond: tracing.max_per_second },
    }),
    genai: context.config.metrics.genai,
    tokenLimits: tokenLimits(context.config),
    caps: capsOf(context.config.requests),
    keys: context.keys,
    splits: splitRows(context.config),
    replicas: addresses(context).map(withoutSecrets),
  };
}

function tokenLimits(config: Config): AcceptorStart['tokenLimits'] {
  if (config.models.every(({ tokenizer }) => tokenizer === undefined)) return undefined;
  const { threads, queue, timeout } = config.tokenizers;
  const askedMax = threads + queue;
  // Each thread has one that it can go on with at once.
  return { askedMax, postedMax: Math.min(2 * threads, askedMax), timeoutMs: timeout };
}

export function schedulerStart(context: StartContext): SchedulerStart {
  return {
    ...common(context, ThreadId.scheduler),
    thread: 'scheduler',
    seed: context.config.scheduler.seed || Date.now() | 0,
    sharedLimits: sharedLimits(context.config),
    ...schedulingLimits(context.config),
  };
}

export function forwarderStart(context: StartContext, index: number): ForwarderStart {
  const { memory, timeouts } = context.config;
  return {
    ...common(context, ThreadId.forwarder(index, context.memory.size)),
    thread: 'forwarder',
    index,
    streamWindow: memory.stream_window,
    timeouts: {
      connect: timeouts.connect,
      firstToken: timeouts.first_token,
      answer: timeouts.answer,
      interToken: timeouts.inter_token,
      total: timeouts.total,
    },
    replicas: addresses(context),
  };
}

function sharedLimits({ limits }: Config): SchedulerStart['sharedLimits'] {
  if (limits.store === 'local') return null;
  return { budgetUs: limits.redis.timeout * 1000, share: 1 / limits.gateways };
}

function redisStart({ limits: { redis } }: Config): RedisStart {
  const { mode, urls, master, username, password, timeout: timeoutMs, prefix } = redis;
  return { mode, urls, master, username, password, timeoutMs, prefix };
}

export function limiterStart(context: StartContext): LimiterStart {
  return {
    ...common(context, ThreadId.limiter(context.memory.size)),
    thread: 'limiter',
    redis: redisStart(context.config),
    names: context.limitNames,
  };
}

export function ledgerStart(context: StartContext): LedgerStart {
  const { kafka, redis_stream, nats, file } = context.config.usage;
  const { size } = context.memory;
  return {
    ...common(context, ThreadId.ledger(size)),
    thread: 'ledger',
    path: file,
    acceptors: size.acceptors,
    sinks: { kafka, redis_stream, nats },
    redis: context.config.limits.store === 'redis' ? redisStart(context.config) : null,
    budgets: context.budgets,
  };
}

export function tracerStart(context: StartContext): TracerStart {
  const { memory } = context;
  const { listen, tracing } = context.config;
  const { metrics, log, models } = common(context, ThreadId.tracer(memory.size));
  return {
    ...{ thread: 'tracer', rings: memory.spanRings, metrics, log, version },
    models: models.map(({ name }) => name),
    endpoint: tracing.endpoint,
    headers: tracing.headers,
    serviceName: tracing.service_name,
    scheme: listen.tls === undefined ? 'http' : 'https',
  };
}

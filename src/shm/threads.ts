/**
 * What the main thread hands to each thread at its start, and the rare messages between them.
 *
 * Everything frequent goes through the rings; a MessagePort carries only what has no fixed size
 * (names, addresses, certificates paths) and happens a few times an hour. All times are
 * milliseconds, all sizes bytes. Types only: nothing here runs.
 */
import type { CascadeRef, ModelRef, SplitRow } from '../config/model-names.ts';
import type { SchedulingLimits } from '../config/scheduling.ts';
import type { SinkConfigs } from '../config/sinks.ts';
import type { BudgetRow, KeyTable } from '../config/tenants.ts';
import type { FaultStage } from '../lib/fault-point.ts';
import type { Price } from '../lib/price.ts';
import type { RequestCaps } from '../protocol/request-caps.ts';
import type { SharedMemory } from './memory.ts';
import type { TokenAnswer, TokenTask } from './token-tasks.ts';

/** Whether streams that break go on at another replica, behind at most so many bytes of text or ids. */
export interface ContinuationRule {
  readonly mode: 'off' | 'text' | 'token_ids';
  readonly bytesMax: number;
}

/** One row of the model table; its index is the `model` of slots, lanes and metrics. */
export interface ModelRow {
  readonly name: string;
  readonly aliases: readonly string[];
  readonly policy: string;
  readonly sessionAffinity: boolean;
  /** Absent: off. */
  readonly continuation?: ContinuationRule;
  /** Whether streams are asked for their usage although their clients do not; absent: auto. */
  readonly streamUsage?: 'auto' | 'off' | 'end' | 'continuous';
  /** Where its requests go on, and those whose prompts are too long for it; absent: nowhere. */
  readonly fallbacks?: readonly ModelRef[] | undefined;
  readonly contextFallbacks?: readonly ModelRef[] | undefined;
  /** Who serves prompts of so many bytes and more, and who asks for it; absent: the model itself. */
  readonly cascade?: CascadeRef | undefined;
  /** Names of its adapters; the first is adapter 1. Absent: it has none. */
  readonly adapters?: readonly string[];
  /** Replicas call an adapter `model:adapter`, as SGLang does. */
  readonly hasQualifiedAdapters?: boolean;
  /** Tokens of prompt and answer together; absent or 0: no limit. */
  readonly maxContext?: number;
  /** The tokenizer pool knows it. Absent: it does not. */
  readonly hasTokenizer?: boolean;
  /** Hosts that media of a request may be on; `*` is any. Absent: any. */
  readonly mediaDomains?: readonly string[];
  /** What its tokens cost; absent: nobody has said. */
  readonly price?: Price | undefined;
}

/** What a forwarder must know of a row of the replica table beyond the shared words. */
export interface ReplicaAddress {
  readonly row: number;
  readonly epoch: number;
  readonly name: string;
  readonly url: string;
  /** Sent instead of the key of a client; empty: none. Where, and what else is sent: protocol/own-headers.ts. */
  readonly apiKey: string;
  readonly apiKeyHeader?: string | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly maxInFlight: number;
  readonly takesBatches: boolean;
  /** Name of the model there; absent: the one that requests come with. */
  readonly servedName?: string | undefined;
}

export interface ThreadLog {
  readonly level: string;
  /** Share of successful requests that have a line. */
  readonly sample: number;
  /** For people. */
  readonly pretty: boolean;
}

interface ThreadStart {
  readonly memory: SharedMemory;
  /** Region this thread alone writes its metrics to (shm/metrics.ts). */
  readonly metrics: SharedArrayBuffer;
  readonly log: ThreadLog;
  readonly models: readonly ModelRow[];
}

export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
  readonly passphrase?: string | undefined;
  readonly ca?: string | undefined;
}

export interface AcceptorStart extends ThreadStart {
  readonly thread: 'acceptor';
  readonly index: number;
  readonly engine: 'uws' | 'node';
  readonly host: string;
  readonly port: number;
  /** PEM file names; with `ca`, clients must show a certificate. */
  readonly tls: TlsFiles | null;
  readonly maxBody: number;
  readonly maxConnections: number;
  readonly streamWindow: number;
  /** Silence before a stream that has not begun gets a comment; 0: none. */
  readonly keepAlive: number;
  /** Where usage events go; null: nowhere. */
  readonly usage: {
    readonly path: string;
    readonly maxBytes: number;
    readonly keep: number;
    readonly bufferBytesMax: number;
    readonly currency: string;
  } | null;
  /** Names whose requests several models share; absent: there are none. */
  readonly splits?: readonly SplitRow[];
  /** Metrics of the conventions for GenAI are counted; absent: they are not. */
  readonly genai?: boolean;
  /** Absent: requests are not traced. */
  readonly tracing?: { readonly sample: number; readonly maxPerSecond: number };
  /** Of questions to the tokenizer pool (acceptor/token-counts.ts); absent: there is none. */
  readonly tokenLimits?:
    | { readonly askedMax: number; readonly postedMax: number; readonly timeoutMs: number }
    | undefined;
  /** What any request may ask for; absent: anything. */
  readonly caps?: RequestCaps;
  /** Who is let in; kept current by `keys` and `names` messages, as models and splits are by the latter. */
  readonly keys: KeyTable;
  /** Names of the replicas by row, for x-sluice-replica; kept current by `replicas` messages. */
  readonly replicas: readonly ReplicaAddress[];
}

export interface SchedulerStart extends ThreadStart, SchedulingLimits {
  readonly thread: 'scheduler';
  readonly seed: number;
  /** How limits are shared with other gateways; null: they are not. */
  readonly sharedLimits: {
    /** How long a request may wait for the store. */
    readonly budgetUs: number;
    /** Of each rate, while the store is down. */
    readonly share: number;
  } | null;
}

export interface ForwarderStart extends ThreadStart {
  readonly thread: 'forwarder';
  readonly index: number;
  readonly streamWindow: number;
  readonly timeouts: {
    readonly connect: number;
    readonly firstToken: number;
    /** In place of firstToken for a request that does not stream. */
    readonly answer: number;
    readonly interToken: number;
    readonly total: number;
  };
  readonly replicas: readonly ReplicaAddress[];
}

/** Rows of the limits: their names in the store, `{tenant}` or `{tenant}:model`, and whose they are. */
export type LimitNames = ReadonlyMap<number, { readonly name: string; readonly owner: number }>;

/** Where gateways share what they count. */
export interface RedisStart {
  readonly mode: 'single' | 'cluster' | 'sentinel';
  readonly urls: readonly string[];
  readonly master: string;
  readonly username: string;
  readonly password: string;
  readonly timeoutMs: number;
  readonly prefix: string;
}

export interface LimiterStart extends ThreadStart {
  readonly thread: 'limiter';
  readonly redis: RedisStart;
  /** Kept current by `limitNames` messages. */
  readonly names: LimitNames;
}

export interface LedgerStart extends ThreadStart {
  readonly thread: 'ledger';
  /** `usage.file`, and how many acceptors write one of its kind. */
  readonly path: string;
  readonly acceptors: number;
  readonly sinks: SinkConfigs;
  /** Where budgets are shared with other gateways; null: they are not. */
  readonly redis: RedisStart | null;
  /** Kept current by `budgets` messages. */
  readonly budgets: readonly BudgetRow[];
}

/** Sends spans to a collector; it has no row in the control block, and nobody waits for it. */
export interface TracerStart {
  readonly thread: 'tracer';
  /** From acceptors and forwarders. */
  readonly rings: readonly SharedArrayBuffer[];
  readonly metrics: SharedArrayBuffer;
  readonly log: ThreadLog;
  readonly models: readonly string[];
  readonly endpoint: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly serviceName: string;
  /** `url.scheme` of the requests. */
  readonly scheme: 'http' | 'https';
  readonly version: string;
}

export type CrashKind = 'throw' | 'exit' | 'oom' | 'terminate';
export type FullRing = 'request' | 'dispatch' | 'reply' | 'response';

/** What a test does to the thread of that name (shm/fault-hooks.ts). */
export type Fault = { readonly thread: string } & (
  | { readonly kind: 'stall' | 'cpuHog' | 'clockSkew'; readonly ms: number }
  | {
      readonly kind: 'crash';
      readonly stage: FaultStage;
      readonly how: CrashKind;
      /** Passes of the stage that go well before. */
      readonly after: number;
    }
  | { readonly kind: 'ringFull'; readonly ring: FullRing; readonly ms: number }
  /** Every so many notifications of the thread wake nobody; 0: none is lost. */
  | { readonly kind: 'loseWakeup'; readonly every: number }
);

/** main -> acceptor and forwarder, faults to all. An acceptor never forgets: a late reader needs the name. */
export type ToThread =
  | { readonly kind: 'replica'; readonly replica: ReplicaAddress }
  | { readonly kind: 'forget'; readonly row: number; readonly epoch: number }
  /** To acceptors: who is let in from here on. */
  | { readonly kind: 'keys'; readonly keys: KeyTable }
  /** To acceptors: what names stand for from here on, and the keys, which are by their numbers. */
  | {
      readonly kind: 'names';
      readonly models: readonly ModelRow[];
      readonly splits: readonly SplitRow[];
      readonly keys: KeyTable;
    }
  /** To scheduler and forwarders: the same models, by other rules. */
  | { readonly kind: 'models'; readonly models: readonly ModelRow[] }
  /** To the ledger: what tenants may spend from here on. */
  | { readonly kind: 'budgets'; readonly budgets: readonly BudgetRow[] }
  /** To an acceptor: what it asked to be counted. */
  | { readonly kind: 'counted'; readonly ticket: number; readonly answer: TokenAnswer }
  /** To acceptors: close the listening socket, keep the connections. */
  | { readonly kind: 'unlisten' }
  /** To the limiter. */
  | { readonly kind: 'limitNames'; readonly names: LimitNames }
  | { readonly kind: 'stop' }
  | { readonly kind: 'fault'; readonly fault: Fault };

/** Any thread -> main. */
export type FromThread =
  | { readonly kind: 'ready'; readonly port?: number; readonly priorityRaised?: boolean }
  | { readonly kind: 'unlistened' }
  | { readonly kind: 'stopped' }
  | { readonly kind: 'terminate' }
  | { readonly kind: 'keysApplied' }
  | { readonly kind: 'modelsApplied' }
  | { readonly kind: 'budgetsApplied' }
  /** Of an acceptor: `counted` answers it, if the main thread lives. */
  | { readonly kind: 'count'; readonly ticket: number; readonly task: TokenTask }
  | { readonly kind: 'applied'; readonly row: number; readonly epoch: number };

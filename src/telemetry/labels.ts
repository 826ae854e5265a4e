/**
 * Label values of the metrics, as small dense indexes.
 *
 * Hot threads write indexes and never strings. Fixed sets live here; models and replicas are rows of
 * tables and get their names on the main thread when a scrape renders. Every set is closed: what is
 * not in it is `other`, so a hostile client cannot grow the number of series.
 */
import { modelsMax, replicasMax, tenantSeriesMax } from '../config/capacities.ts';
import { sinkNames } from '../config/sinks.ts';
import { assert } from '../lib/assert.ts';
import { routes } from '../protocol/routes.ts';

/** Statuses the gateway answers or passes on; 499 is a client that left before its answer. */
export const statusCodes = [
  200, 201, 202, 204, 206, 304, 400, 401, 403, 404, 405, 406, 408, 409, 411, 413, 414, 415, 417,
  422, 424, 429, 431, 499, 500, 501, 502, 503, 504, 505, 529,
] as const;

export const Stage = { parse: 0, queue: 1, select: 2, connect: 3, relay: 4 } as const;
export type Stage = (typeof Stage)[keyof typeof Stage];

export const Ring = { request: 0, dispatch: 1, event: 2, reply: 3, response: 4 } as const;
export type Ring = (typeof Ring)[keyof typeof Ring];
export type RingName = keyof typeof Ring;

export const TokenType = { input: 0, output: 1, cached: 2 } as const;
export type TokenType = (typeof TokenType)[keyof typeof TokenType];

export const Result = { ok: 0, failed: 1 } as const;
export type Result = (typeof Result)[keyof typeof Result];

/** Kinds of threads that are started again when they die. */
export const ThreadKind = { scheduler: 0, forwarder: 1, limiter: 2, ledger: 3, tracer: 4 } as const;
export type ThreadKind = (typeof ThreadKind)[keyof typeof ThreadKind];

/** Of a thread by its name. */
export const threadKindOf = (name: string): ThreadKind =>
  ThreadKind[name as keyof typeof ThreadKind] ?? ThreadKind.forwarder;

/** As the brain tells them (dispatch/decisions.ts). */
const HedgeEnd = { won: 0, lost: 1, failed: 2, cancelled: 3 } as const;

/** Why a request goes on to another model, as the brain tells it. */
const FallbackCause = {
  failed: 0,
  no_replica: 1,
  busy: 2,
  queue_full: 3,
  queue_timeout: 4,
  context: 5,
  refusal: 6,
  low_confidence: 7,
} as const;

/** Why a client that takes nothing was cut. */
export const SlowReader = { overload: 0, stalled: 1 } as const;
export type SlowReader = (typeof SlowReader)[keyof typeof SlowReader];

/** Why a request is turned away for want of room. */
export const Shed = {
  queue_full: 0,
  queue_timeout: 1,
  priority: 2,
  deadline: 3,
  memory: 4,
  slots: 5,
  ring: 6,
  replica_limit: 7,
} as const;
export type Shed = (typeof Shed)[keyof typeof Shed];

/** What of a tenant is limited; `all`: nothing of it was used up. `store`: it cannot be looked up. */
export const LimitDimension = {
  all: 0,
  requests: 1,
  tokens: 2,
  concurrency: 3,
  budget: 4,
  store: 5,
} as const;
export type LimitDimension = (typeof LimitDimension)[keyof typeof LimitDimension];
export const LimitResult = { allowed: 0, refused: 1 } as const;

/** What the conventions for GenAI know of the routes; others are not observed. */
export const Operation = { chat: 0, text_completion: 1, embeddings: 2 } as const;
export type Operation = (typeof Operation)[keyof typeof Operation];
/** `error.type` of the conventions for GenAI; '' is that of a request that went well, which has none. */
export const errorTypes: readonly string[] = [
  ...['', 'client_gone', 'stream_error', '429', '500', '502', '503', '504', '_OTHER'],
];
/**
 * What happens to what is known of stored responses (shm/stored-responses.ts). lost: there was no room at the
 * moment. removed: the replica that kept it.
 */
export const ResponseEvent = {
  kept: 0,
  evicted: 1,
  lost: 2,
  deleted: 3,
  found: 4,
  unknown: 5,
  removed: 6,
} as const;
export type ResponseEvent = (typeof ResponseEvent)[keyof typeof ResponseEvent];

/** What became of a question to the tokenizer pool (shm/token-tasks.ts). */
export const TokenCount = { counted: 0, uncountable: 1, busy: 2, late: 3, failed: 4 } as const;

/** Labels that span a dimension of the cells; `replica` also resolves to the `model` it serves. */
export type SeriesLabel =
  | 'model'
  | 'gen_ai_request_model'
  | 'replica'
  | 'tenant'
  | 'gen_ai_operation_name'
  | 'gen_ai_token_type'
  | 'error_type'
  | 'code'
  | 'stage'
  | 'ring'
  | 'type'
  | 'result'
  | 'thread'
  | 'end'
  | 'cause'
  | 'reason'
  | 'sink'
  | 'event'
  | 'outcome'
  | 'route'
  | 'method'
  | 'shed_reason'
  | 'dimension'
  | 'limit_result';
type FixedLabel = Exclude<SeriesLabel, 'model' | 'gen_ai_request_model' | 'replica' | 'tenant'>;

/** Sets of values that share the name of a label with other ones. */
const sharedNames: Partial<Record<SeriesLabel, string>> = {
  shed_reason: 'reason',
  limit_result: 'result',
};
/** The label as it is rendered. */
export const labelName = (label: SeriesLabel): string => sharedNames[label] ?? label;

/** Paths of the table; what is not in it is `other`. */
const routePaths = new Map(
  routes.map(({ id, path, dynamic, action, suffix }) => {
    const parameter = action === 'model' ? '{model}' : '{id}';
    return [id, dynamic ? `${path}${parameter}${suffix}` : path];
  }),
);
const routeValues = [...new Set(routePaths.values()), 'other'];
const methodValues = ['GET', 'POST', 'DELETE', 'HEAD', 'other'];

/** How many models and replicas the cells have room for; fixed before any thread starts. */
export interface MetricDims {
  /** Named models. One more index, `models` itself, stands for every other name. */
  readonly models: number;
  readonly replicas: number;
  /** Named tenants. One more index, `tenants` itself, stands for every other one. */
  readonly tenants: number;
}
export const defaultMetricDims: MetricDims = {
  models: modelsMax,
  replicas: replicasMax,
  tenants: tenantSeriesMax,
};

export const fixedLabelValues: Readonly<Record<FixedLabel, readonly string[]>> = {
  code: [...statusCodes.map(String), 'other'],
  stage: Object.keys(Stage),
  ring: Object.keys(Ring),
  type: Object.keys(TokenType),
  result: Object.keys(Result),
  thread: Object.keys(ThreadKind),
  end: Object.keys(HedgeEnd),
  cause: Object.keys(FallbackCause),
  reason: Object.keys(SlowReader),
  sink: sinkNames,
  gen_ai_operation_name: Object.keys(Operation),
  gen_ai_token_type: ['input', 'output'],
  error_type: errorTypes,
  event: Object.keys(ResponseEvent),
  outcome: Object.keys(TokenCount),
  route: routeValues,
  method: methodValues,
  shed_reason: Object.keys(Shed),
  dimension: Object.keys(LimitDimension),
  limit_result: Object.keys(LimitResult),
};

export function labelSize(label: SeriesLabel, dims: MetricDims): number {
  if (label === 'model' || label === 'gen_ai_request_model') return dims.models + 1;
  if (label === 'tenant') return dims.tenants + 1;
  if (label === 'replica') return dims.replicas;
  return fixedLabelValues[label].length;
}

const statusMax = 599;
const otherStatus = statusCodes.length;
const statusIndexes = new Uint8Array(statusMax + 1).fill(otherStatus);
for (const [index, code] of statusCodes.entries()) statusIndexes[code] = index;

/** Index of an HTTP status in the `code` label. */
export function statusIndex(status: number): number {
  return statusIndexes[status] ?? otherStatus;
}

const otherRoute = routeValues.length - 1;
const otherMethod = methodValues.length - 1;
const routeIndexes = new Uint8Array(Math.max(...routePaths.keys()) + 1).fill(otherRoute);
for (const [id, path] of routePaths) routeIndexes[id] = routeValues.indexOf(path);

/** Index in the `route` label; -1 is the id of a request that has none. */
export const routeIndex = (id: number): number => routeIndexes[id] ?? otherRoute;

/** Index in the `method` label. */
export function methodIndex(method: string): number {
  const index = methodValues.indexOf(method);
  return index < 0 ? otherMethod : index;
}

const otherError = errorTypes.indexOf('_OTHER');

/** Index in the `error_type` label: of a status, or of an answer that broke behind its head. */
export function errorTypeIndex(status: number, isWell: boolean): number {
  if (isWell) return 0;
  if (status < 400) return errorTypes.indexOf('stream_error');
  if (status === 499) return errorTypes.indexOf('client_gone');
  const index = errorTypes.indexOf(String(status));
  return index < 0 ? otherError : index;
}

/** Index of a model in the `model` label: its row, or `other` for an unknown one (negative). */
export function modelIndex(row: number, dims: MetricDims): number {
  assert(Number.isInteger(row));
  return row >= 0 && row < dims.models ? row : dims.models;
}

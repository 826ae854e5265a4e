/**
 * Spans of one record: names, attributes and status of OpenTelemetry's conventions for HTTP and GenAI,
 * ours beside them under `sluice.`. Tracer thread; no prompt and no answer ever gets here.
 *
 *   SERVER    POST /v1/chat/completions    the request, from its head to the last byte handed to the client
 *   INTERNAL  queue                        until it was given to a replica, or was given up
 *   CLIENT    chat MODEL                   one exchange with a replica; its id is what the replica is told
 *
 * A span is what the exporter reads, made at once: the SDK's own would be started, filled and ended.
 */
import { type Attributes, type HrTime, SpanKind, SpanStatusCode } from '@opentelemetry/api';
import type { Resource } from '@opentelemetry/resources';
import type { ReadableSpan } from '@opentelemetry/sdk-trace';
import { nowMs } from '../lib/clock.ts';
import { pathAt, type ReplicaBase, replicaBase } from '../protocol/replica-base.ts';
import { type Route, routes } from '../protocol/routes.ts';
import { newSpanId, sampledFlag } from '../protocol/traceparent.ts';
import type { AttemptSpan, RequestSpan, SpanRecord } from '../shm/span-records.ts';

/** More than reading two clocks one after the other takes. */
const clockStepMs = 10;
/** Characters of a text; the rest is cut. */
const textMax = 256;
/** Replicas whose address is remembered; past them all are forgotten. */
const addressesMax = 4096;

/** `gen_ai.operation.name`, by path. */
const operations: Readonly<Record<string, string>> = {
  '/v1/chat/completions': 'chat',
  '/v1/messages': 'chat',
  '/v1/responses': 'chat',
  '/v1/completions': 'text_completion',
  '/v1/embeddings': 'embeddings',
};

/** Where the spans come from. */
export interface SpanOrigin {
  readonly models: readonly string[];
  readonly scheme: string;
  readonly resource: Resource;
  readonly scope: { readonly name: string; readonly version: string };
}

interface Made {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentId: string;
  readonly name: string;
  readonly kind: SpanKind;
  readonly startUs: number;
  readonly endUs: number;
  readonly attributes: Attributes;
  /** Why it ended with an error, as the conventions see it; '' for none. */
  readonly errorType: string;
  /** The parent is in another process. */
  readonly isRemote?: boolean;
}

interface Address {
  readonly host: string;
  readonly port: number;
  readonly base: ReplicaBase;
}

const none: never[] = [];

export class SpanBuilder {
  readonly #origin: SpanOrigin;
  readonly #take: (span: ReadableSpan) => void;
  readonly #addresses = new Map<string, Address>();
  /** From the machine's monotonic clock to the wall clock, in milliseconds. */
  #wallMs = Date.now() - nowMs();

  constructor(origin: SpanOrigin, take: (span: ReadableSpan) => void) {
    this.#origin = origin;
    this.#take = take;
  }

  /** Follows the wall clock when it was set; its ticks alone must not move the spans of one tree apart. */
  followClock(): void {
    const wallMs = Date.now() - nowMs();
    if (Math.abs(wallMs - this.#wallMs) > clockStepMs) this.#wallMs = wallMs;
  }

  build(record: SpanRecord): void {
    if (record.kind === 'request') this.#request(record);
    else this.#attempt(record);
    if (record.queuedUs > 0) this.#queue(record);
  }

  #request(record: RequestSpan): void {
    const route = routeOf(record.route);
    const path = route?.path ?? '';
    const operation = operations[path];
    const { status, error, startUs, firstTokenUs } = record;
    // A 4xx is the client's failure and leaves the span of a server without an error.
    const isFailed = status >= 500 || (error !== '' && status < 400);
    const errorType = isFailed ? error || String(status) : '';
    const { models, scheme } = this.#origin;
    const all: Attributes = {};
    put(all, 'http.request.method', route?.method);
    put(all, 'http.route', path);
    put(all, 'url.path', path);
    put(all, 'url.scheme', scheme);
    put(all, 'http.response.status_code', status || undefined);
    put(all, 'error.type', errorType);
    putModel(all, operation, path, models[record.model], record.isStream);
    put(all, 'gen_ai.response.model', models[record.servedModel]);
    if (firstTokenUs > startUs) put(all, firstChunk, (firstTokenUs - startUs) / 1e6);
    putUsage(all, record);
    put(all, 'sluice.request_id', record.requestId);
    put(all, 'sluice.tenant', record.tenant);
    put(all, 'sluice.adapter', record.adapter);
    put(all, 'sluice.attempts', record.attempts);
    put(all, 'sluice.error', error);
    const name = route === undefined ? 'request' : `${route.method} ${path}`;
    this.#make({
      ...ids(record),
      ...{ name, kind: SpanKind.SERVER, isRemote: true, errorType, attributes: all },
    });
  }

  #attempt(record: AttemptSpan): void {
    const route = routeOf(record.route);
    const path = route?.path ?? '';
    const model = this.#origin.models[record.model];
    const operation = operations[path];
    const { status, error, sentUs, firstTokenUs, outcome } = record;
    // An exchange that was left because another one was faster has not failed.
    const errorType = error || (status >= 400 ? String(status) : '');
    const all: Attributes = {};
    put(all, 'http.request.method', route?.method);
    put(all, 'http.response.status_code', status || undefined);
    put(all, 'http.request.resend_count', record.attempt > 1 ? record.attempt - 1 : undefined);
    put(all, 'error.type', errorType);
    const address = this.#addressOf(record.url);
    put(all, 'server.address', address.host);
    put(all, 'server.port', address.port);
    // The path of a dynamic route has an id of the client's in it.
    if (route?.dynamic !== true)
      put(all, 'url.full', address.base.origin + pathAt(address.base, path));
    putModel(all, operation, path, model, record.isStream);
    put(all, 'gen_ai.request.max_tokens', record.maxTokens || undefined);
    if (firstTokenUs > sentUs && sentUs > 0) put(all, firstChunk, (firstTokenUs - sentUs) / 1e6);
    putUsage(all, record);
    put(all, 'sluice.replica', record.replica);
    put(all, 'sluice.attempt', record.attempt);
    put(all, 'sluice.exchange', record.exchange);
    put(all, 'sluice.outcome', outcome);
    put(all, 'sluice.batch.size', record.sharers > 1 ? record.sharers : undefined);
    const name = operation === undefined ? path : `${operation} ${model ?? ''}`.trim();
    this.#make({ ...ids(record), name, kind: SpanKind.CLIENT, errorType, attributes: all });
  }

  /** Belongs to the request whichever record tells of it. */
  #queue(record: SpanRecord): void {
    const isGiven = record.kind === 'attempt';
    const errorType = isGiven ? '' : record.error;
    const attributes: Attributes = {};
    put(attributes, 'error.type', errorType);
    this.#make({
      traceId: record.traceId,
      spanId: newSpanId(),
      parentId: isGiven ? record.parentId : record.spanId,
      name: 'queue',
      kind: SpanKind.INTERNAL,
      startUs: record.queuedUs,
      endUs: isGiven ? record.dispatchedUs : record.endUs,
      errorType,
      attributes,
    });
  }

  #make(made: Made): void {
    const { traceId, spanId, parentId, name, kind, startUs, attributes, errorType } = made;
    const endUs = Math.max(startUs, made.endUs);
    const context = { traceId, spanId, traceFlags: sampledFlag };
    const isRemote = made.isRemote === true;
    const { resource, scope } = this.#origin;
    const parent = { traceId, spanId: parentId, traceFlags: sampledFlag, isRemote };
    const code = errorType === '' ? SpanStatusCode.UNSET : SpanStatusCode.ERROR;
    this.#take({
      ...{ name, kind, attributes, resource, instrumentationScope: scope },
      spanContext: () => context,
      ...(parentId !== '' && { parentSpanContext: parent }),
      startTime: this.#timeOf(startUs),
      endTime: this.#timeOf(endUs),
      duration: split((endUs - startUs) / 1000),
      // The attribute says why; a description is for what it cannot.
      status: { code },
      ...{ links: none, events: none, ended: true },
      ...{ droppedAttributesCount: 0, droppedEventsCount: 0, droppedLinksCount: 0 },
    });
  }

  #addressOf(url: string): Address {
    const known = this.#addresses.get(url);
    if (known !== undefined) return known;
    const base = replicaBase(url);
    const parsed = new URL(base.origin);
    const address = { host: parsed.hostname, port: portOf(parsed), base };
    if (this.#addresses.size >= addressesMax) this.#addresses.clear();
    this.#addresses.set(url, address);
    return address;
  }

  /** Seconds and nanoseconds of the wall clock. */
  #timeOf(us: number): HrTime {
    return split(this.#wallMs + us / 1000);
  }
}

const firstChunk = 'gen_ai.response.time_to_first_chunk';

function split(ms: number): HrTime {
  const seconds = Math.floor(ms / 1000);
  return [seconds, Math.round((ms - seconds * 1000) * 1e6)];
}

const ids = ({ traceId, spanId, parentId, startUs, endUs }: SpanRecord) => {
  return { traceId, spanId, parentId, startUs, endUs };
};

/** An attribute that has a value. */
function put(all: Attributes, name: string, value: string | number | boolean | undefined): void {
  if (value === undefined || value === '') return;
  all[name] = typeof value === 'string' && value.length > textMax ? value.slice(0, textMax) : value;
}

/** What the conventions for GenAI want to know of the question. */
function putModel(
  all: Attributes,
  operation: string | undefined,
  path: string,
  model: string | undefined,
  isStream: boolean,
): void {
  put(all, 'gen_ai.operation.name', operation);
  // Whose API it is: of the engine behind it nothing is known.
  const provider = path === '/v1/messages' ? 'anthropic' : 'openai';
  if (operation !== undefined) put(all, 'gen_ai.provider.name', provider);
  put(all, 'gen_ai.request.model', model);
  if (isStream) put(all, 'gen_ai.request.stream', true);
}

interface Tokens {
  readonly inputTokens: number;
  readonly outputTokens: number;
  readonly cachedTokens: number;
}

function putUsage(all: Attributes, { inputTokens, outputTokens, cachedTokens }: Tokens): void {
  if (inputTokens >= 0) put(all, 'gen_ai.usage.input_tokens', inputTokens);
  if (outputTokens >= 0) put(all, 'gen_ai.usage.output_tokens', outputTokens);
  if (cachedTokens >= 0) put(all, 'gen_ai.usage.cache_read.input_tokens', cachedTokens);
}

const routeById = new Map(routes.map((route) => [route.id, route]));
const routeOf = (id: number): Route | undefined => routeById.get(id);

const portOf = ({ port, protocol }: URL): number =>
  port === '' ? (protocol === 'https:' ? 443 : 80) : Number(port);

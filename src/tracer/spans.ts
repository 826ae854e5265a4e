/**
 * Spans of one record, as OpenTelemetry wants them: names and attributes of its conventions for HTTP and
 * GenAI, ours beside them under `sluice.`. Tracer thread; no prompt and no answer ever gets here.
 *
 *   SERVER    POST /v1/chat/completions    the request, from its head to the last byte handed to the client
 *   INTERNAL  queue                        until it was given to a replica, or was given up
 *   CLIENT    chat MODEL                   one exchange with a replica; its id is what the replica is told
 */
import {
  type Attributes,
  type AttributeValue,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  type TimeInput,
  type Tracer,
  trace,
} from '@opentelemetry/api';
import { nowMs } from '../lib/clock.ts';
import { pathAt, replicaBase } from '../protocol/replica-base.ts';
import { type Route, routes } from '../protocol/routes.ts';
import { newSpanId } from '../protocol/traceparent.ts';
import type { AttemptSpan, RequestSpan, SpanRecord } from '../shm/span-records.ts';
import type { GivenIds } from './export.ts';

/** More than reading two clocks one after the other takes. */
const clockStepMs = 10;

/** `gen_ai.operation.name`, by path. */
const operations: Readonly<Record<string, string>> = {
  '/v1/chat/completions': 'chat',
  '/v1/messages': 'chat',
  '/v1/responses': 'chat',
  '/v1/completions': 'text_completion',
  '/v1/embeddings': 'embeddings',
};

interface Made {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentId: string;
  readonly name: string;
  readonly kind: SpanKind;
  readonly startUs: number;
  readonly endUs: number;
  readonly attributes: Attributes;
  /** Code of the error; '' for none. */
  readonly error: string;
  /** The parent is in another process. */
  readonly isRemote?: boolean;
}

export class SpanBuilder {
  readonly #tracer: Tracer;
  readonly #ids: GivenIds;
  readonly #models: readonly string[];
  /** From the machine's monotonic clock to the wall clock, in milliseconds. */
  #wallMs = Date.now() - nowMs();

  constructor(tracer: Tracer, ids: GivenIds, models: readonly string[]) {
    this.#tracer = tracer;
    this.#ids = ids;
    this.#models = models;
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
    const { status, error } = record;
    const sinceStart = (us: number) =>
      us > record.startUs ? (us - record.startUs) / 1e6 : undefined;
    this.#make({
      ...record,
      name: route === undefined ? 'request' : `${route.method} ${path}`,
      kind: SpanKind.SERVER,
      isRemote: true,
      // A 4xx is the client's failure and leaves the span of a server without an error.
      error: status >= 500 || (error !== '' && status < 400) ? error || String(status) : '',
      attributes: given({
        'http.request.method': route?.method,
        'http.route': path,
        'url.path': path,
        'http.response.status_code': status,
        'error.type': error,
        'gen_ai.operation.name': operations[path],
        'gen_ai.request.model': this.#models[record.model],
        'gen_ai.request.stream': record.isStream ? true : undefined,
        'gen_ai.response.time_to_first_chunk': sinceStart(record.firstTokenUs),
        ...usageOf(record),
        'sluice.request_id': record.requestId,
        'sluice.tenant': record.tenant,
        'sluice.adapter': record.adapter,
        'sluice.attempts': record.attempts,
      }),
    });
  }

  #attempt(record: AttemptSpan): void {
    const path = routeOf(record.route)?.path ?? '';
    const model = this.#models[record.model];
    const operation = operations[path];
    const base = replicaBase(record.url);
    const url = new URL(base.origin);
    const { error, sentUs, firstTokenUs } = record;
    this.#make({
      ...record,
      name: operation === undefined ? path : `${operation} ${model ?? ''}`.trim(),
      kind: SpanKind.CLIENT,
      attributes: given({
        'http.request.method': routeOf(record.route)?.method,
        'url.path': pathAt(base, path),
        'http.response.status_code': record.status || undefined,
        'http.request.resend_count': record.attempt > 1 ? record.attempt - 1 : undefined,
        'error.type': error,
        'server.address': url.hostname,
        'server.port': portOf(url),
        'gen_ai.operation.name': operation,
        'gen_ai.request.model': model,
        'gen_ai.request.stream': record.isStream ? true : undefined,
        'gen_ai.request.max_tokens': record.maxTokens || undefined,
        'gen_ai.response.time_to_first_chunk':
          firstTokenUs > sentUs && sentUs > 0 ? (firstTokenUs - sentUs) / 1e6 : undefined,
        ...usageOf(record),
        'sluice.replica': record.replica,
        'sluice.attempt': record.attempt,
        'sluice.exchange': record.exchange,
        'sluice.outcome': record.outcome,
        'sluice.batch.size': record.sharers > 1 ? record.sharers : undefined,
      }),
    });
  }

  /** Belongs to the request whichever record tells of it. */
  #queue(record: SpanRecord): void {
    const isGiven = record.kind === 'attempt';
    this.#make({
      traceId: record.traceId,
      spanId: newSpanId(),
      parentId: isGiven ? record.parentId : record.spanId,
      name: 'queue',
      kind: SpanKind.INTERNAL,
      startUs: record.queuedUs,
      endUs: isGiven ? record.dispatchedUs : record.endUs,
      error: isGiven ? '' : record.error,
      attributes: {},
    });
  }

  #make(made: Made): void {
    const { traceId, parentId, kind, attributes, error } = made;
    this.#ids.traceId = traceId;
    this.#ids.spanId = made.spanId;
    const isRemote = made.isRemote === true;
    const parent =
      parentId === ''
        ? ROOT_CONTEXT
        : trace.setSpanContext(ROOT_CONTEXT, {
            traceId,
            spanId: parentId,
            traceFlags: 1,
            isRemote,
          });
    const startTime = this.#timeOf(made.startUs);
    const span = this.#tracer.startSpan(made.name, { kind, attributes, startTime }, parent);
    if (error !== '') span.setStatus({ code: SpanStatusCode.ERROR, message: error });
    span.end(this.#timeOf(Math.max(made.startUs, made.endUs)));
  }

  /** Seconds and nanoseconds of the wall clock. */
  #timeOf(us: number): TimeInput {
    const ms = this.#wallMs + us / 1000;
    const seconds = Math.floor(ms / 1000);
    return [seconds, Math.round((ms - seconds * 1000) * 1e6)];
  }
}

interface Tokens {
  readonly inputTokens: number;
  readonly outputTokens: number;
  readonly cachedTokens: number;
}

const usageOf = ({ inputTokens, outputTokens, cachedTokens }: Tokens) => ({
  'gen_ai.usage.input_tokens': known(inputTokens),
  'gen_ai.usage.output_tokens': known(outputTokens),
  'gen_ai.usage.cache_read.input_tokens': known(cachedTokens),
});

const known = (count: number): number | undefined => (count < 0 ? undefined : count);

/** Those that have a value. */
function given(all: Readonly<Record<string, AttributeValue | undefined>>): Attributes {
  return Object.fromEntries(
    Object.entries(all).filter(([, value]) => value !== undefined && value !== ''),
  );
}

const routeById = new Map(routes.map((route) => [route.id, route]));
const routeOf = (id: number): Route | undefined => routeById.get(id);

const portOf = ({ port, protocol }: URL): number =>
  port === '' ? (protocol === 'https:' ? 443 : 80) : Number(port);

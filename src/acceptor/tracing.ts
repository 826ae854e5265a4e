/**
 * Which requests are traced, and the span of each that is. Acceptor threads; never blocks.
 *
 * The choice comes first: the sampled flag of the client's `traceparent`, else a new trace id. What is not
 * chosen costs that id, and nothing of it crosses to another thread. A client that has chosen not to
 * trace, or one too many of those that have, gets its `traceparent` to the replica as it came, so its
 * trace is whole without a span of ours; where there is none the forwarder says that nobody traces.
 */
import { nowUs } from '../lib/clock.ts';
import {
  isChosen,
  isSampled,
  newSpanId,
  newTraceId,
  parseTraceparent,
  sampledFlag,
  type Traceparent,
  traceparentOf,
} from '../protocol/traceparent.ts';
import type { MetricsWriter } from '../shm/metrics.ts';
import { RequestFlag } from '../shm/request-slots.layout.ts';
import { SpanWriter } from '../shm/span-records.ts';
import type { AcceptorStart } from '../shm/threads.ts';
import { metrics } from '../telemetry/catalogue.ts';
import type { AcceptorState } from './acceptor-state.ts';
import type { Request, RequestFacts } from './request.ts';

/** What the acceptor has a forwarder know of a traced request; no client can send a header of this name. */
const traceHeader = ':trace';

export interface RequestTrace {
  /** The span of the request, sampled. */
  readonly own: Traceparent;
  /** Span of the client; '' where the trace begins here. */
  readonly parentId: string;
}

export function openTracing(
  { tracing, memory, index }: AcceptorStart,
  counters: MetricsWriter,
): Tracing | undefined {
  const ring = memory.spanRings[index];
  return tracing === undefined || ring === undefined
    ? undefined
    : new Tracing(ring, tracing.sample, tracing.maxPerSecond, counters);
}

export class Tracing {
  readonly spans: SpanWriter;
  readonly #ratio: number;
  readonly #perSecondMax: number;
  readonly #counters: MetricsWriter;
  #secondUs = 0;
  #inSecond = 0;

  constructor(
    ring: SharedArrayBuffer,
    ratio: number,
    perSecondMax: number,
    counters: MetricsWriter,
  ) {
    this.spans = new SpanWriter(ring, () => counters.add(metrics.traceRecordsDropped, 0, 1));
    this.#ratio = ratio;
    this.#perSecondMax = perSecondMax;
    this.#counters = counters;
  }

  /** `received` is the client's header, or ''. Undefined: no span, and the header goes on as it is. */
  begin(received: string, us: number): RequestTrace | undefined {
    const parent = received === '' ? undefined : parseTraceparent(received);
    if (parent !== undefined) {
      if (!isSampled(parent) || !this.#mayBegin(us)) return undefined;
      return { own: { ...parent, spanId: newSpanId() }, parentId: parent.spanId };
    }
    const traceId = newTraceId();
    if (!isChosen(traceId, this.#ratio) || !this.#mayBegin(us)) return undefined;
    return { own: { traceId, spanId: newSpanId(), flags: sampledFlag }, parentId: '' };
  }

  /** A window of a second: who is over its count waits for the next one. */
  #mayBegin(us: number): boolean {
    if (us - this.#secondUs >= 1e6) {
      this.#secondUs = us;
      this.#inSecond = 0;
    }
    this.#inSecond++;
    if (this.#inSecond <= this.#perSecondMax) return true;
    this.#counters.add(metrics.tracesSkipped, 0, 1);
    return false;
  }
}

/** Puts the trace context into what the replica is sent; `received` is the client's `traceparent`, or ''. */
export function pushTraceContext(
  list: string[],
  tracing: Tracing | undefined,
  trace: RequestTrace | undefined,
  received: string,
): void {
  // The forwarder makes a span of its own the parent, one for each exchange.
  if (trace !== undefined) list.push(traceHeader, traceparentOf(trace.own));
  const isOurs = trace === undefined ? !isTraceparent(received) : trace.parentId === '';
  if (isOurs && tracing !== undefined) dropState(list);
  if (!isOurs && trace === undefined) list.push('traceparent', received);
}

const isTraceparent = (received: string): boolean =>
  received !== '' && parseTraceparent(received) !== undefined;

/** The state of another trace means nothing in ours. */
function dropState(list: string[]): void {
  for (let i = list.length - 2; i >= 0; i -= 2) {
    if (list[i] === 'tracestate') list.splice(i, 2);
  }
}

/** Id of the trace, for the log, where the request is traced. */
export const traceIdOf = ({ trace }: RequestFacts): string | undefined => trace?.own.traceId;

/**
 * The span of a request that is over. `request`: it was published, and its slot is still its own.
 * `status`: of the answer; 0 where there was none.
 */
export function endSpan(
  { tracing, slots, start }: AcceptorState,
  facts: RequestFacts,
  request: Request | undefined,
  status: number,
  error: string | undefined,
  model: number,
): void {
  const { trace, route, holder, requestId, arrivedUs } = facts;
  if (tracing === undefined || trace === undefined) return;
  const { words, at } = slots;
  const row = request === undefined ? -1 : slots.row(request.slot);
  const attempts = request === undefined ? 0 : slots.attempts(request.slot);
  const read = (field: number, otherwise: number): number =>
    row < 0 ? otherwise : (words[row + field] as number);
  const tokens = (field: number): number => (attempts === 0 ? -1 : read(field, -1));
  const time = (field: number): number =>
    request === undefined ? 0 : slots.readTime(request.slot, field);
  const adapter = request?.adapter ?? 0;
  tracing.spans.write({
    kind: 'request',
    traceId: trace.own.traceId,
    spanId: trace.own.spanId,
    parentId: trace.parentId,
    startUs: arrivedUs,
    endUs: nowUs(),
    queuedUs: attempts === 0 ? time(at.publishedUs) : 0,
    firstTokenUs: attempts === 0 ? 0 : time(at.firstTokenUs),
    route: route?.id ?? 0,
    requestId,
    tenant: holder?.tenantName ?? '',
    model,
    servedModel: attempts === 0 ? -1 : read(at.model, -1),
    adapter: adapter === 0 ? '' : (start.models[model]?.adapters?.[adapter - 1] ?? ''),
    isStream: (read(at.flags, 0) & RequestFlag.stream) !== 0,
    status,
    error: error ?? '',
    attempts,
    inputTokens: tokens(at.promptTokens),
    outputTokens: tokens(at.completionTokens),
    cachedTokens: tokens(at.cachedTokens),
  });
}

/** What a record becomes: attributes and status by OpenTelemetry's conventions for HTTP and GenAI. */
import { SpanKind, SpanStatusCode } from '@opentelemetry/api';
import { resourceFromAttributes } from '@opentelemetry/resources';
import type { ReadableSpan } from '@opentelemetry/sdk-trace';
import { describe, expect, test } from 'vitest';
import type { AttemptSpan, RequestSpan, SpanRecord } from '../../../src/shm/span-records.ts';
import { SpanBuilder } from '../../../src/tracer/spans.ts';

const traceId = 'a'.repeat(32);

const request: RequestSpan = {
  kind: 'request',
  ...{ traceId, spanId: 'b'.repeat(16), parentId: 'c'.repeat(16) },
  ...{ startUs: 1e6, endUs: 2e6, queuedUs: 0, firstTokenUs: 1.25e6, route: 1, requestId: 'r' },
  ...{ tenant: 't', model: 0, servedModel: 1, adapter: 'lora', isStream: true, status: 200 },
  ...{ error: '', attempts: 1, inputTokens: 5, outputTokens: 0, cachedTokens: -1 },
};

const attempt: AttemptSpan = {
  kind: 'attempt',
  ...{ traceId, spanId: 'd'.repeat(16), parentId: 'b'.repeat(16) },
  ...{ startUs: 1.1e6, endUs: 1.9e6, queuedUs: 0, dispatchedUs: 0, sentUs: 1.15e6 },
  ...{ firstByteUs: 1.2e6, firstTokenUs: 1.25e6, route: 1, model: 1, isStream: true },
  ...{ maxTokens: 64, replica: 'r1', url: 'https://gpu.example/base/v1', attempt: 1 },
  ...{ exchange: 'first', sharers: 1, status: 200, outcome: 'ok', error: '' },
  ...{ inputTokens: 5, outputTokens: 7, cachedTokens: 3 },
};

function built(record: SpanRecord): ReadableSpan[] {
  const spans: ReadableSpan[] = [];
  const scope = { name: 'sluice', version: '1' };
  const origin = {
    models: ['asked', 'served'],
    scheme: 'http',
    resource: resourceFromAttributes({}),
  };
  new SpanBuilder({ ...origin, scope }, (span) => spans.push(span)).build(record);
  return spans;
}

const only = (record: SpanRecord): ReadableSpan => {
  const [span, ...more] = built(record);
  expect(more).toEqual([]);
  return span as ReadableSpan;
};

test('a request is a server span under the one of its client, with what was asked and what served', () => {
  const span = only(request);
  expect(span).toMatchObject({
    name: 'POST /v1/chat/completions',
    kind: SpanKind.SERVER,
    parentSpanContext: { traceId, spanId: request.parentId, isRemote: true },
    status: { code: SpanStatusCode.UNSET },
    duration: [1, 0],
  });
  expect(span.spanContext()).toMatchObject({ traceId, spanId: request.spanId, traceFlags: 1 });
  expect(span.attributes).toEqual({
    'http.request.method': 'POST',
    'http.route': '/v1/chat/completions',
    'url.path': '/v1/chat/completions',
    'url.scheme': 'http',
    'http.response.status_code': 200,
    'gen_ai.operation.name': 'chat',
    'gen_ai.provider.name': 'openai',
    'gen_ai.request.model': 'asked',
    'gen_ai.request.stream': true,
    'gen_ai.response.model': 'served',
    'gen_ai.response.time_to_first_chunk': 0.25,
    'gen_ai.usage.input_tokens': 5,
    'gen_ai.usage.output_tokens': 0,
    'sluice.request_id': 'r',
    'sluice.tenant': 't',
    'sluice.adapter': 'lora',
    'sluice.attempts': 1,
  });
});

test('an exchange is a client span with the address of its replica', () => {
  const span = only(attempt);
  expect(span).toMatchObject({
    name: 'chat served',
    kind: SpanKind.CLIENT,
    parentSpanContext: { spanId: request.spanId, isRemote: false },
    status: { code: SpanStatusCode.UNSET },
  });
  expect(span.attributes).toEqual({
    'http.request.method': 'POST',
    'http.response.status_code': 200,
    'server.address': 'gpu.example',
    'server.port': 443,
    'url.full': 'https://gpu.example/base/v1/chat/completions',
    'gen_ai.operation.name': 'chat',
    'gen_ai.provider.name': 'openai',
    'gen_ai.request.model': 'served',
    'gen_ai.request.stream': true,
    'gen_ai.request.max_tokens': 64,
    'gen_ai.response.time_to_first_chunk': 0.1,
    'gen_ai.usage.input_tokens': 5,
    'gen_ai.usage.output_tokens': 7,
    'gen_ai.usage.cache_read.input_tokens': 3,
    'sluice.replica': 'r1',
    'sluice.attempt': 1,
    'sluice.exchange': 'first',
    'sluice.outcome': 'ok',
  });
});

describe('status and error.type of a request', () => {
  test.each([
    // A 4xx is the client's: the span of a server stays without an error.
    [400, 'invalid_json', undefined],
    [404, 'model_not_found', undefined],
    [429, 'queue_full', undefined],
    [200, '', undefined],
    [500, '', '500'],
    [503, 'no_replica', 'no_replica'],
    [504, 'deadline_exceeded', 'deadline_exceeded'],
    // The head was sent, and then the stream broke or its client left.
    [200, 'replica_error', 'replica_error'],
    [200, 'client_gone', 'client_gone'],
    // The client left before there was a head.
    [0, 'client_gone', 'client_gone'],
  ])('status %d with %j', (status, error, errorType) => {
    const span = only({ ...request, status, error });
    const { ERROR, UNSET } = SpanStatusCode;
    expect(span.status).toEqual({ code: errorType === undefined ? UNSET : ERROR });
    expect(span.attributes['error.type']).toBe(errorType);
    expect(span.attributes['sluice.error']).toBe(error === '' ? undefined : error);
    expect(span.attributes['http.response.status_code']).toBe(status === 0 ? undefined : status);
  });
});

describe('status and error.type of an exchange', () => {
  test.each([
    [200, 'ok', '', undefined],
    // Passed on to the client as it came, and to a client it is a failure.
    [400, 'clientError', '', '400'],
    [404, 'clientError', '', '404'],
    [500, 'dead', 'replica_error', 'replica_error'],
    [0, 'dead', 'replica_unreachable', 'replica_unreachable'],
    [200, 'truncated', 'stream_truncated', 'stream_truncated'],
    [200, 'cancelled', 'client_gone', 'client_gone'],
    // Another exchange was faster.
    [0, 'cancelled', '', undefined],
  ])('status %d, %s, %j', (status, outcome, error, errorType) => {
    const span = only({ ...attempt, status, outcome, error });
    const { ERROR, UNSET } = SpanStatusCode;
    expect(span.status).toEqual({ code: errorType === undefined ? UNSET : ERROR });
    expect(span.attributes['error.type']).toBe(errorType);
    expect(span.attributes['http.response.status_code']).toBe(status === 0 ? undefined : status);
  });
});

test('a request that no replica got has its time in the queue, which ends with its error', () => {
  const [root, queue, ...more] = built({
    ...request,
    ...{ queuedUs: 1.5e6, attempts: 0, servedModel: -1, status: 503, error: 'queue_timeout' },
  });
  expect(more).toEqual([]);
  expect(root?.attributes['gen_ai.response.model']).toBeUndefined();
  expect(queue).toMatchObject({
    name: 'queue',
    kind: SpanKind.INTERNAL,
    parentSpanContext: { spanId: request.spanId },
    status: { code: SpanStatusCode.ERROR },
    attributes: { 'error.type': 'queue_timeout' },
    endTime: root?.endTime,
  });
});

test('a retry is counted, a batch has its size, and the path of an id is not told', () => {
  const span = only({ ...attempt, attempt: 3, exchange: 'retry', sharers: 4, route: 22 });
  expect(span.attributes).toMatchObject({ 'http.request.resend_count': 2, 'sluice.batch.size': 4 });
  expect(span.attributes['url.full']).toBeUndefined();
});

test('a text is cut at 256 characters, and a trace that begins here has no parent', () => {
  const span = only({ ...request, parentId: '', requestId: 'x'.repeat(1000) });
  expect(span.attributes['sluice.request_id']).toBe('x'.repeat(256));
  expect(span.parentSpanContext).toBeUndefined();
});

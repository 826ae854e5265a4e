/**
 * Traces through the whole gateway, at a real receiver of OTLP: one connected tree for each request that is
 * sampled, whose exchanges are the parents that the replicas were told of. Both engines.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import { parseTraceparent } from '../../src/protocol/traceparent.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { type GatewayProcess, gatewayProcess, testEngines } from '../support/gateway.ts';
import { logged } from '../support/logged.ts';
import { OtlpReceiver, spanKinds } from '../support/otlp-receiver.ts';
import { replicaInProcess } from '../support/replica.ts';
import { byStart, expectConnected, newTrace, only } from '../support/span-tree.ts';
import { headerOf } from '../support/told-headers.ts';
import { type Call, type CallOptions, call } from '../support/traffic.ts';

const key = newKey();

/** Every `traceparent` and `tracestate` that the replicas were sent with a request, in time. */
function toldTo(replicas: readonly Replica[], id: string) {
  return replicas
    .flatMap((replica) => replica.ledger(id))
    .toSorted((a, b) => a.start - b.start)
    .map(({ head }) => ({
      traceparent: headerOf(head, 'traceparent'),
      tracestate: headerOf(head, 'tracestate'),
    }));
}

describe.each(testEngines)('tracing on %s', (engine) => {
  let receiver: OtlpReceiver;
  let replicas: Replica[];
  let gateway: GatewayProcess;
  let count = 0;
  let trace: ReturnType<typeof newTrace>;

  beforeAll(async () => {
    receiver = await OtlpReceiver.listen();
    const settings = { model: 'm', profile: 'tokens:ttft=2ms,itl=2ms' };
    replicas = [
      await replicaInProcess({ ...settings, name: 'a', seed: 1 }),
      await replicaInProcess({ ...settings, name: 'b', seed: 2 }),
    ];
    const config: ConfigInput = {
      listen: { engine },
      log: { level: 'info', sample: 1, pretty: 'never' },
      health: { interval: '10m' },
      breaker: { mode: 'off' },
      retry: { budget: 1, budget_min: 1000 },
      tracing: {
        endpoint: receiver.endpoint,
        sample: 0,
        service_name: 'gate',
        headers: { 'x-collector-key': 'k1' },
      },
      auth: { keys: 'auto' },
      tenants: [{ name: 'acme', keys: [{ id: 'k', sha256: sha256Of(key) }] }],
      models: [
        {
          name: 'm',
          policy: 'round_robin',
          continuation: 'text',
          replicas: replicas.map(({ url }, i) => ({ url, name: `r${i + 1}` })),
        },
      ],
    };
    gateway = await gatewayProcess({ config });
  });
  afterAll(async () => {
    await gateway.finish();
    for (const replica of replicas) await replica.close();
    await receiver.close();
  });
  beforeEach(() => {
    trace = newTrace();
    count++;
  });

  /** A call whose client has sampled it, unless `flags` says otherwise. */
  function traced(options: Partial<CallOptions> = {}, flags = '01'): Call {
    const headers = {
      authorization: `Bearer ${key}`,
      traceparent: `00-${trace.traceId}-${trace.spanId}-${flags}`,
      tracestate: 'vendor=opaque,other=1',
      ...options.headers,
    };
    return call(gateway.port, { nonce: `t-${engine}-${count}`, ...options, headers });
  }

  test('a stream is a request, its time in the queue and one exchange', async () => {
    const done = await traced({ stream: true }).ended;
    expect(done.end).toBe('done');
    const spans = await receiver.trace(trace.traceId, 3);
    const root = expectConnected(spans, trace.spanId);
    expect(root).toMatchObject({ name: 'POST /v1/chat/completions', service: 'gate', status: 0 });
    expect(root.attributes).toMatchObject({
      'http.request.method': 'POST',
      'http.route': '/v1/chat/completions',
      'http.response.status_code': 200,
      'gen_ai.operation.name': 'chat',
      'gen_ai.request.model': 'm',
      'gen_ai.request.stream': true,
      'sluice.request_id': done.nonce,
      'sluice.tenant': 'acme',
      'sluice.attempts': 1,
    });
    const queue = only(spans, spanKinds.internal);
    expect(queue.name).toBe('queue');
    const exchange = only(spans, spanKinds.client);
    expect(exchange.name).toBe('chat m');
    const served = String(done.headers['x-sluice-replica']);
    const { port } = new URL(replicas[served === 'r1' ? 0 : 1]!.url);
    expect(exchange.attributes).toMatchObject({
      'sluice.replica': served,
      'sluice.exchange': 'first',
      'sluice.outcome': 'ok',
      'http.response.status_code': 200,
      'gen_ai.request.max_tokens': done.tokensDue,
      'server.address': '127.0.0.1',
      'server.port': Number(port),
    });
    expect(exchange.attributes['gen_ai.response.time_to_first_chunk']).toBeGreaterThan(0);
    expect(toldTo(replicas, done.nonce)).toEqual([
      {
        traceparent: `00-${trace.traceId}-${exchange.spanId}-01`,
        tracestate: 'vendor=opaque,other=1',
      },
    ]);
    expect(await logged(gateway, done.nonce)).toMatchObject({ trace_id: trace.traceId });
    expect(receiver.exports.at(-1)).toMatchObject({ 'x-collector-key': 'k1' });
  });

  test('the tokens of a whole answer are on the request and on its exchange', async () => {
    const done = await traced().ended;
    const { usage } = JSON.parse(done.body.toString());
    const spans = await receiver.trace(trace.traceId, 3);
    const tokens = {
      'gen_ai.usage.input_tokens': usage.prompt_tokens,
      'gen_ai.usage.output_tokens': usage.completion_tokens,
    };
    expect(expectConnected(spans, trace.spanId).attributes).toMatchObject(tokens);
    expect(only(spans, spanKinds.client).attributes).toMatchObject(tokens);
  });

  test('a retried request has one exchange for each attempt, and each replica its own parent', async () => {
    await call(gateway.port, { nonce: 'warm', headers: { authorization: `Bearer ${key}` } }).ended;
    const tags = '[[fault@a:status=500]]';
    // Round robin: one of two in a row begins at the replica that fails.
    let done = await traced({ tags }).ended;
    if (done.headers['x-sluice-attempts'] === '1') {
      trace = newTrace();
      done = await traced({ tags, nonce: `${done.nonce}-again` }).ended;
    }
    expect(done).toMatchObject({ status: 200 });
    const spans = await receiver.trace(trace.traceId, 4);
    expect(expectConnected(spans, trace.spanId).attributes['sluice.attempts']).toBe(2);
    const [first, second, ...rest] = spans
      .filter(({ kind }) => kind === spanKinds.client)
      .sort(byStart);
    expect(rest).toEqual([]);
    expect(first).toMatchObject({ status: 2 });
    expect(first?.attributes).toMatchObject({
      'sluice.exchange': 'first',
      'sluice.replica': 'r1',
      'http.response.status_code': 500,
      'error.type': 'replica_error',
    });
    expect(second?.attributes).toMatchObject({
      'sluice.exchange': 'retry',
      'sluice.replica': 'r2',
      'sluice.outcome': 'ok',
      'http.request.resend_count': 1,
    });
    expect(toldTo(replicas, done.nonce).map(({ traceparent }) => traceparent)).toEqual(
      [first, second].map((span) => `00-${trace.traceId}-${span?.spanId}-01`),
    );
  });

  test('a hedged request has both exchanges; the one that lost was cancelled', async () => {
    const tags = '[[fault@a:stall=headers]]';
    let done = await traced({ stream: true, tags, headers: { 'x-sluice-hedge': '1' } }).ended;
    expect(done.end).toBe('done');
    if (done.headers['x-sluice-replica'] === 'r2' && toldTo(replicas, done.nonce).length < 2) {
      trace = newTrace();
      const nonce = `${done.nonce}-again`;
      done = await traced({ stream: true, tags, nonce, headers: { 'x-sluice-hedge': '1' } }).ended;
    }
    const spans = await receiver.trace(trace.traceId, 4);
    expectConnected(spans, trace.spanId);
    const exchanges = spans.filter(({ kind }) => kind === spanKinds.client).sort(byStart);
    expect(exchanges.map(({ attributes }) => attributes['sluice.exchange'])).toEqual([
      'first',
      'hedge',
    ]);
    expect(exchanges.map(({ attributes }) => attributes['sluice.outcome']).sort()).toEqual([
      'cancelled',
      'ok',
    ]);
    expect(toldTo(replicas, done.nonce).map(({ traceparent }) => traceparent)).toEqual(
      exchanges.map(({ spanId }) => `00-${trace.traceId}-${spanId}-01`),
    );
  });

  test('a stream that broke and went on has an exchange for each part', async () => {
    const tags = '[[fault@a:truncate-chunk=5]]';
    let done = await traced({ stream: true, tags }).ended;
    if (toldTo(replicas, done.nonce).length < 2) {
      trace = newTrace();
      done = await traced({ stream: true, tags, nonce: `${done.nonce}-again` }).ended;
    }
    expect(done.end).toBe('done');
    const spans = await receiver.trace(trace.traceId, 4);
    expectConnected(spans, trace.spanId);
    const exchanges = spans.filter(({ kind }) => kind === spanKinds.client).sort(byStart);
    expect(exchanges.map(({ attributes }) => attributes['sluice.exchange'])).toEqual([
      'first',
      'continuation',
    ]);
    expect(exchanges.map(({ attributes }) => attributes['sluice.outcome'])).toEqual([
      'truncated',
      'ok',
    ]);
  });

  test('a client that has not sampled its request keeps its parent, and leaves no span', async () => {
    const done = await traced({}, '00').ended;
    expect(toldTo(replicas, done.nonce)[0]?.traceparent).toBe(
      `00-${trace.traceId}-${trace.spanId}-00`,
    );
    // Another one behind it has arrived: this one will not.
    const unsampled = trace.traceId;
    trace = newTrace();
    await traced({ nonce: `${done.nonce}-next` }).ended;
    await receiver.trace(trace.traceId, 3);
    expect(receiver.spans.filter(({ traceId }) => traceId === unsampled)).toEqual([]);
  });

  test('without a traceparent one is made, which says that it is not sampled', async () => {
    const headers = { traceparent: 'nonsense', tracestate: 'of=another' };
    const done = await traced({ headers }).ended;
    const [told] = toldTo(replicas, done.nonce);
    expect(parseTraceparent(told?.traceparent ?? '')).toMatchObject({ flags: 0 });
    expect(told?.tracestate).toBeUndefined();
  });
});

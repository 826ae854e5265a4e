/**
 * Traces through the whole gateway, at a real receiver of OTLP: one connected tree for each request that is
 * sampled, whose exchanges are the parents that the replicas were told of. Both engines.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { parseTraceparent } from '../../src/protocol/traceparent.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { testEngines } from '../support/gateway.ts';
import { logged } from '../support/logged.ts';
import { spanKinds } from '../support/otlp-receiver.ts';
import { byStart, only } from '../support/span-tree.ts';
import { headerOf } from '../support/told-headers.ts';
import { TracingScene } from '../support/tracing-scene.ts';
import { call } from '../support/traffic.ts';

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
  let scene: TracingScene;
  beforeAll(async () => {
    scene = await TracingScene.start({
      engine,
      models: (replicas) => [{ name: 'm', policy: 'round_robin', continuation: 'text', replicas }],
      tracing: { service_name: 'gate', headers: { 'x-collector-key': 'k1' } },
    });
  });
  afterAll(() => scene?.close());
  beforeEach(() => scene.nextTrace());

  test('a stream is a request, its time in the queue and one exchange', async () => {
    const done = await scene.traced({ stream: true }).ended;
    expect(done.end).toBe('done');
    const spans = await scene.spans(3);
    const root = scene.root(spans);
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
    const { port } = new URL(scene.replicas[served === 'r1' ? 0 : 1]!.url);
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
    expect(toldTo(scene.replicas, done.nonce)).toEqual([
      {
        traceparent: `00-${scene.trace.traceId}-${exchange.spanId}-01`,
        tracestate: 'vendor=opaque,other=1',
      },
    ]);
    expect(await logged(scene.gateway, done.nonce)).toMatchObject({
      trace_id: scene.trace.traceId,
    });
    expect(scene.receiver.exports.at(-1)).toMatchObject({ 'x-collector-key': 'k1' });
  });

  test('the tokens of a whole answer are on the request and on its exchange', async () => {
    const done = await scene.traced().ended;
    const { usage } = JSON.parse(done.body.toString());
    const spans = await scene.spans(3);
    const tokens = {
      'gen_ai.usage.input_tokens': usage.prompt_tokens,
      'gen_ai.usage.output_tokens': usage.completion_tokens,
    };
    expect(scene.root(spans).attributes).toMatchObject(tokens);
    expect(only(spans, spanKinds.client).attributes).toMatchObject(tokens);
  });

  test('a retried request has one exchange for each attempt, and each replica its own parent', async () => {
    await call(scene.gateway.port, { nonce: 'warm', headers: scene.bearer }).ended;
    const tags = '[[fault@a:status=500]]';
    // Round robin: one of two in a row begins at the replica that fails.
    let done = await scene.traced({ tags }).ended;
    if (done.headers['x-sluice-attempts'] === '1') {
      scene.nextTrace();
      done = await scene.traced({ tags, nonce: `${done.nonce}-again` }).ended;
    }
    expect(done).toMatchObject({ status: 200 });
    const spans = await scene.spans(4);
    expect(scene.root(spans).attributes['sluice.attempts']).toBe(2);
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
    expect(toldTo(scene.replicas, done.nonce).map(({ traceparent }) => traceparent)).toEqual(
      [first, second].map((span) => `00-${scene.trace.traceId}-${span?.spanId}-01`),
    );
  });

  test('a hedged request has both exchanges; the one that lost was cancelled', async () => {
    const tags = '[[fault@a:stall=headers]]';
    let done = await scene.traced({ stream: true, tags, headers: { 'x-sluice-hedge': '1' } }).ended;
    expect(done.end).toBe('done');
    if (
      done.headers['x-sluice-replica'] === 'r2' &&
      toldTo(scene.replicas, done.nonce).length < 2
    ) {
      scene.nextTrace();
      const nonce = `${done.nonce}-again`;
      done = await scene.traced({ stream: true, tags, nonce, headers: { 'x-sluice-hedge': '1' } })
        .ended;
    }
    const spans = await scene.spans(4);
    scene.root(spans);
    const exchanges = spans.filter(({ kind }) => kind === spanKinds.client).sort(byStart);
    expect(exchanges.map(({ attributes }) => attributes['sluice.exchange'])).toEqual([
      'first',
      'hedge',
    ]);
    expect(exchanges.map(({ attributes }) => attributes['sluice.outcome']).sort()).toEqual([
      'cancelled',
      'ok',
    ]);
    expect(toldTo(scene.replicas, done.nonce).map(({ traceparent }) => traceparent)).toEqual(
      exchanges.map(({ spanId }) => `00-${scene.trace.traceId}-${spanId}-01`),
    );
  });

  test('a stream that broke and went on has an exchange for each part', async () => {
    const tags = '[[fault@a:truncate-chunk=5]]';
    let done = await scene.traced({ stream: true, tags }).ended;
    if (toldTo(scene.replicas, done.nonce).length < 2) {
      scene.nextTrace();
      done = await scene.traced({ stream: true, tags, nonce: `${done.nonce}-again` }).ended;
    }
    expect(done.end).toBe('done');
    const spans = await scene.spans(4);
    scene.root(spans);
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
    const done = await scene.traced({}, '00').ended;
    expect(toldTo(scene.replicas, done.nonce)[0]?.traceparent).toBe(
      `00-${scene.trace.traceId}-${scene.trace.spanId}-00`,
    );
    // Another one behind it has arrived: this one will not.
    const unsampled = scene.trace.traceId;
    scene.nextTrace();
    await scene.traced({ nonce: `${done.nonce}-next` }).ended;
    await scene.spans(3);
    expect(scene.receiver.spans.filter(({ traceId }) => traceId === unsampled)).toEqual([]);
  });

  test('without a traceparent one is made, which says that it is not sampled', async () => {
    const headers = { traceparent: 'nonsense', tracestate: 'of=another' };
    const done = await scene.traced({ headers }).ended;
    const [told] = toldTo(scene.replicas, done.nonce);
    expect(parseTraceparent(told?.traceparent ?? '')).toMatchObject({ flags: 0 });
    expect(told?.tracestate).toBeUndefined();
  });
});

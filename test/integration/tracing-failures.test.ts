/**
 * Traces of requests that fail, through the whole gateway at a real receiver of OTLP: a connected tree of each,
 * with the status and the `error.type` that the conventions for HTTP ask for. Both engines.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { freePort } from '../support/free-port.ts';
import { testEngines } from '../support/gateway.ts';
import { spanKinds } from '../support/otlp-receiver.ts';
import { byStart, only } from '../support/span-tree.ts';
import { TracingScene } from '../support/tracing-scene.ts';

describe.each(testEngines)('traces of failures on %s', (engine) => {
  let scene: TracingScene;
  beforeAll(async () => {
    const nobody = `http://127.0.0.1:${await freePort()}`;
    scene = await TracingScene.start({
      engine,
      tenant: { model_limits: { one: { concurrency: 1 } } },
      models: (replicas) => [
        { name: 'm', replicas },
        { name: 'one', replicas: [{ url: replicas[0]!.url, name: 'one1' }] },
        { name: 'gone', fallbacks: ['m'], replicas: [{ url: nobody, name: 'gone1' }] },
      ],
    });
  });
  afterAll(() => scene?.close());
  beforeEach(() => scene.nextTrace());

  test('a request that no replica got is its own span, with the error', async () => {
    const done = await scene.traced({ model: 'none' }).ended;
    expect(done.status).toBe(404);
    const [root, ...more] = await scene.spans(1);
    expect(more).toEqual([]);
    expect(root).toMatchObject({ parentId: scene.trace.spanId, kind: spanKinds.server, status: 0 });
    expect(root?.attributes).toMatchObject({
      'http.response.status_code': 404,
      'sluice.error': 'model_not_found',
      'sluice.attempts': 0,
    });
    // The client's failure, not the server's.
    expect(root?.attributes['error.type']).toBeUndefined();
  });

  test('a client that left ends its exchange as cancelled', async () => {
    const held = scene.traced({ stream: true, tags: '[[hold]]' });
    await Promise.any(scene.replicas.map((replica) => replica.until(({ held: at }) => at > 0)));
    held.leave();
    await held.ended;
    const spans = await scene.spans(3);
    const root = scene.root(spans);
    const exchange = only(spans, spanKinds.client);
    for (const { status, attributes } of [root, exchange]) {
      expect(status).toBe(2);
      expect(attributes['error.type']).toBe('client_gone');
    }
    // It was given no head.
    expect(root.attributes['http.response.status_code']).toBeUndefined();
    expect(exchange.attributes['sluice.outcome']).toBe('cancelled');
    for (const replica of scene.replicas) replica.gate.release();
  });

  test('a client that left in the middle of its stream was given a head', async () => {
    const held = scene.traced({ stream: true, tags: '[[fault:hold-after=3]]' });
    await held.until(({ tokens }) => tokens === 3);
    held.leave();
    await held.ended;
    const root = scene.root(await scene.spans(3));
    expect(root).toMatchObject({ status: 2 });
    expect(root.attributes).toMatchObject({
      'http.response.status_code': 200,
      'error.type': 'client_gone',
    });
    for (const replica of scene.replicas) replica.gate.release();
  });

  test('a request that failed at every replica has each failure, and its own', async () => {
    const done = await scene.traced({ tags: '[[fault:status=500]]' }).ended;
    expect(done.status).toBe(502);
    const attempts = Number(done.headers['x-sluice-attempts']);
    expect(attempts).toBeGreaterThan(1);
    const spans = await scene.spans(2 + attempts);
    const root = scene.root(spans);
    expect(root).toMatchObject({ status: 2 });
    expect(root.attributes).toMatchObject({
      'http.response.status_code': 502,
      'error.type': 'replica_error',
      'sluice.attempts': attempts,
    });
    const exchanges = spans.filter(({ kind }) => kind === spanKinds.client);
    expect(exchanges).toHaveLength(attempts);
    for (const { status, attributes } of exchanges) {
      expect(status).toBe(2);
      expect(attributes).toMatchObject({
        'http.response.status_code': 500,
        'error.type': 'replica_error',
      });
    }
  });

  test('an answer that the replica refuses is a failure of its exchange, not of the gateway', async () => {
    const done = await scene.traced({ tags: '[[fault:status=400]]' }).ended;
    expect(done.status).toBe(400);
    const spans = await scene.spans(3);
    const root = scene.root(spans);
    expect(root).toMatchObject({ status: 0 });
    expect(root.attributes['http.response.status_code']).toBe(400);
    expect(root.attributes['error.type']).toBeUndefined();
    const exchange = only(spans, spanKinds.client);
    expect(exchange).toMatchObject({ status: 2 });
    expect(exchange.attributes['http.response.status_code']).toBe(400);
    expect(exchange.attributes['error.type']).toBeDefined();
  });

  test('a stream that breaks for good ends both with the error, its status 200', async () => {
    const tags = '[[fault:truncate-chunk=3]]';
    const done = await scene.traced({ stream: true, tags }).ended;
    expect(done).toMatchObject({ end: 'stream-error', status: 200 });
    const spans = await scene.spans(3);
    const root = scene.root(spans);
    const exchange = only(spans, spanKinds.client);
    for (const { status, attributes } of [root, exchange]) {
      expect(status).toBe(2);
      expect(attributes['http.response.status_code']).toBe(200);
      expect(attributes['error.type']).toBe(root.attributes['sluice.error']);
    }
    expect(exchange.attributes['sluice.outcome']).toBe('truncated');
  });

  test('a request past its deadline ends its exchange too', async () => {
    const headers = { 'x-sluice-deadline-ms': '100' };
    const done = await scene.traced({ tags: '[[hold]]', headers }).ended;
    expect(done.status).toBe(504);
    const spans = await scene.spans(3);
    const root = scene.root(spans);
    expect(root.attributes['http.response.status_code']).toBe(504);
    for (const { status, attributes } of [root, only(spans, spanKinds.client)]) {
      expect(status).toBe(2);
      expect(attributes['error.type']).toBe('deadline_exceeded');
    }
    for (const replica of scene.replicas) replica.gate.release();
  });

  test('a request that fell back to another model names both', async () => {
    const done = await scene.traced({ model: 'gone' }).ended;
    expect(done.status).toBe(200);
    // With none where the replica was found gone before.
    const attempts = Number(done.headers['x-sluice-attempts']);
    const all = await scene.spans(2 + attempts);
    const root = scene.root(all);
    expect(root).toMatchObject({ status: 0 });
    expect(root.attributes).toMatchObject({
      'gen_ai.request.model': 'gone',
      'gen_ai.response.model': 'm',
      'http.response.status_code': 200,
    });
    const exchanges = all.filter(({ kind }) => kind === spanKinds.client).sort(byStart);
    expect(exchanges).toHaveLength(attempts);
    const last = exchanges.at(-1)!;
    expect(last).toMatchObject({ name: 'chat m', status: 0 });
    for (const failed of exchanges.slice(0, -1)) {
      expect(failed).toMatchObject({ name: 'chat gone', status: 2 });
      expect(failed.attributes['http.response.status_code']).toBeUndefined();
      expect(failed.attributes['error.type']).toBe('replica_unreachable');
    }
  });

  test('a request that its tenant may not have now is its own span', async () => {
    const held = scene.traced({ model: 'one', tags: '[[hold]]' }, '00');
    await Promise.any(scene.replicas.map((replica) => replica.until(({ held: at }) => at > 0)));
    scene.nextTrace();
    const done = await scene.traced({ model: 'one', nonce: `${held.nonce}-more` }).ended;
    expect(done.status).toBe(429);
    const spans = await scene.spans(2);
    const root = scene.root(spans);
    // The scheduler decides: it was in the queue, and no longer.
    expect(only(spans, spanKinds.internal).name).toBe('queue');
    expect(spans).toHaveLength(2);
    expect(root).toMatchObject({ status: 0 });
    expect(root.attributes).toMatchObject({
      'http.response.status_code': 429,
      'sluice.error': 'rate_limit_exceeded',
      'sluice.attempts': 0,
    });
    expect(root.attributes['error.type']).toBeUndefined();
    for (const replica of scene.replicas) replica.gate.release();
    await held.ended;
  });
});

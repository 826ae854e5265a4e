/**
 * An acceptor thread by itself, on both engines: what reaches the request ring, what reaches the client,
 * and that slots, arena and connections are back at zero after every way a request can end.
 */
import { describe, expect, test } from 'vitest';
import { errors } from '../../src/errors/catalogue.ts';
import { encodeHeaders } from '../../src/protocol/header-codec.ts';
import { DrainStage } from '../../src/shm/control.layout.ts';
import { RequestFlag, SlotState } from '../../src/shm/request-slots.layout.ts';
import type { AcceptorHarness } from '../support/acceptor-harness.ts';
import { acceptorForAll } from '../support/acceptor-suite.ts';
import { chat, codeOf, get, post } from '../support/acceptor-wire.ts';
import { RawClient, rawRequest } from '../support/raw-client.ts';

describe.each(['uws', 'node'] as const)('acceptor, engine %s', (engine) => {
  const maxBody = 1024 * 1024;
  let harness: AcceptorHarness;
  acceptorForAll({ engine, maxBody, slots: 16 }, (started) => {
    harness = started;
  });

  test('a request reaches the ring with its columns, and its answer the client', async () => {
    const client = await RawClient.connect(harness.port);
    const headers =
      'x-request-id: abc.1\r\nx-sluice-priority: -7\r\nx-sluice-deadline-ms: 1500\r\n' +
      'authorization: Bearer k\r\nx-session-id: s\r\ncookie: secret=1\r\nx-forwarded-for: 9.9.9.9\r\n';
    const body = chat({
      stream: true,
      max_tokens: 17,
      n: 2,
      stream_options: { include_usage: true },
    });
    await client.send(post(body, headers));
    const arrival = await harness.arrival();
    const { slot } = arrival;
    expect(harness.slots.state(slot)).toBe(SlotState.queued);
    expect(harness.column(slot, 'model')).toBe(0);
    const { stream, includeUsage, generates } = RequestFlag;
    expect(harness.column(slot, 'flags')).toBe(stream | includeUsage | generates);
    expect(harness.column(slot, 'maxTokens')).toBe(17);
    expect(harness.column(slot, 'choices')).toBe(2);
    expect(harness.column(slot, 'priority')).toBe(-7);
    expect(harness.column(slot, 'deadlineMs')).toBe(1500);
    expect(harness.column(slot, 'sessionHash')).not.toBe(0);
    expect(harness.body(arrival).toString()).toBe(JSON.stringify(body));
    const blob = harness.headerBlob(arrival);
    expect(blob).toContain('Bearer k');
    expect(blob).toContain('abc.1');
    expect(blob.join()).not.toMatch(/cookie|secret|9\.9\.9\.9|:path/);
    harness.whole(
      arrival,
      '{"a":1}',
      200,
      encodeHeaders(['content-type', 'x/y', 'set-cookie', 'a=b', 'server', 'z'])!,
    );
    const { responses } = await client.responses(1);
    expect(responses[0]!.status).toBe(200);
    expect(responses[0]!.body.toString()).toBe('{"a":1}');
    expect(responses[0]!.headers.get('x-request-id')).toBe('abc.1');
    expect(responses[0]!.headers.get('x-sluice-replica')).toBe('r1');
    expect(responses[0]!.headers.get('x-sluice-attempts')).toBe('1');
    expect(responses[0]!.headers.get('server-timing')).toMatch(
      /^queue;dur=[\d.]+, pick;dur=[\d.]+, upstream;dur=[\d.]+$/,
    );
    expect(responses[0]!.headers.get('content-type')).toBe('x/y');
    expect(responses[0]!.headers.has('set-cookie')).toBe(false);
    expect(responses[0]!.headers.has('server')).toBe(false);
    await client.close();
  });

  test('the head of a stream names who began it, also when that has gone on elsewhere', async () => {
    const client = await RawClient.connect(harness.port);
    await client.send(post(chat({ stream: true })));
    const arrival = await harness.arrival();
    const lease = harness.head(arrival, 200, undefined, 1);
    harness.end(arrival.slot, lease);
    const { responses } = await client.responses(1);
    expect(responses[0]!.headers.get('x-sluice-replica')).toBe('r1');
    await client.close();
  });

  test('the name of an adapter is its model and its number; equal prompts of two look different', async () => {
    const client = await RawClient.connect(harness.port);
    const hashes = new Set<number>();
    const heads = new Set<number>();
    const names = ['m', 'alias-of-m', 'sql', 'legal'];
    for (const [i, model] of names.entries()) {
      await client.send(
        post(chat({ model, messages: [{ role: 'user', content: 'x'.repeat(5000) }] })),
      );
      const arrival = await harness.arrival();
      const { slot } = arrival;
      expect(harness.column(slot, 'model')).toBe(0);
      expect(harness.column(slot, 'adapter')).toBe(Math.max(0, i - 1));
      expect(harness.column(slot, 'prefixCount')).toBeGreaterThan(0);
      hashes.add(harness.column(slot, 'prefixHash'));
      heads.add(harness.column(slot, 'headHash'));
      harness.whole(arrival, '{}');
      await client.responses(i + 1);
    }
    expect([hashes.size, heads.size]).toEqual([3, 3]);
    await client.close();
  });

  test('a connection serves one request after the other', async () => {
    const client = await RawClient.connect(harness.port);
    for (let i = 1; i <= 5; i++) {
      await client.send(post(chat({ i })));
      harness.whole(await harness.arrival(), `answer ${i}`);
      const { responses } = await client.responses(i);
      expect(responses[i - 1]!.body.toString()).toBe(`answer ${i}`);
    }
    await client.close();
  });

  test('an answer of every size around a burst arrives whole', async () => {
    for (const size of [0, 1, 8191, 8192, 8193, 12_288, 12_289, 16_384, 65_536, 200_000]) {
      const body = Buffer.alloc(size, 'x');
      const client = await RawClient.connect(harness.port);
      await client.send(post(chat()));
      harness.whole(await harness.arrival(), body);
      const { responses } = await client.responses(1);
      expect(responses[0]!.body.equals(body), `${size} bytes`).toBe(true);
      await client.close();
    }
  });

  test('a stream arrives in order and ends cleanly', async () => {
    const client = await RawClient.connect(harness.port);
    await client.send(post(chat({ stream: true })));
    const arrival = await harness.arrival();
    const lease = harness.head(arrival);
    const text = Array.from({ length: 200 }, (_, k) => `data: ${k}\n\n`).join('');
    await harness.stream(arrival.slot, lease, Buffer.from(text), 50);
    harness.end(arrival.slot, lease);
    const { responses } = await client.responses(1);
    expect(responses[0]!.body.toString()).toBe(text);
    expect(responses[0]!.headers.get('content-type')).toBe('text/event-stream');
    expect(responses[0]!.headers.get('x-accel-buffering')).toBe('no');
    await client.close();
  });

  test('a stream that breaks ends with an error event, no [DONE], and a closed connection', async () => {
    for (const path of ['/v1/chat/completions', '/v1/messages']) {
      const client = await RawClient.connect(harness.port);
      await client.send(post(chat({ stream: true }), '', path));
      const arrival = await harness.arrival();
      const lease = harness.head(arrival);
      await harness.stream(arrival.slot, lease, Buffer.from('data: 1\n\n'), 50);
      harness.end(arrival.slot, lease, errors.TRUNCATED_STREAM.number);
      await client.closed;
      const { responses, problem } = await client.responses(1);
      expect(problem).toBeUndefined();
      expect(responses[0]!.complete).toBe(true);
      const text = responses[0]!.body.toString();
      expect(text).toMatch(/^data: 1\n\n(event: error\n)?data: \{.*"error".*\}\n\n$/);
      expect(text.includes('event: error')).toBe(path === '/v1/messages');
      expect(text).not.toContain('[DONE]');
    }
  });

  test('a broken answer that is no stream is visibly truncated', async () => {
    const client = await RawClient.connect(harness.port);
    await client.send(post(chat()));
    const arrival = await harness.arrival();
    const lease = harness.head(arrival, 200, encodeHeaders(['content-type', 'application/json'])!);
    await harness.stream(arrival.slot, lease, Buffer.from('{"half":'), 50);
    await client.until((bytes) => bytes.includes('{"half":'));
    harness.end(arrival.slot, lease, errors.RESET.number);
    await client.closed;
    expect((await client.responses(1)).responses[0]!.complete).toBe(false);
  });

  test('refusals of the scheduler keep their status, retry-after and the connection', async () => {
    const client = await RawClient.connect(harness.port);
    const cases = [
      { error: errors.QUEUE_FULL, wait: 2500, status: 429, after: '3', ms: '2500' },
      { error: errors.NO_REPLICA, wait: 0, status: 503, after: '2', ms: '2000' },
      { error: errors.DEADLINE, wait: 0, status: 504, after: undefined, ms: undefined },
      { error: errors.ALL_ATTEMPTS_FAILED, wait: 0, status: 502, after: undefined, ms: undefined },
    ];
    for (const [index, { error, wait, status, after, ms }] of cases.entries()) {
      await client.send(post(chat()));
      harness.refuse(await harness.arrival(), error.number, wait);
      const { responses } = await client.responses(index + 1);
      expect(responses[index]!.status).toBe(status);
      expect(responses[index]!.headers.get('retry-after')).toBe(after);
      expect(responses[index]!.headers.get('retry-after-ms')).toBe(ms);
      expect(codeOf(responses[index]!.body)).toBe(error.code);
    }
    await client.close();
  });

  test('anthropic clients get their own error shape', async () => {
    const client = await RawClient.connect(harness.port);
    await client.send(post(chat(), '', '/v1/messages'));
    harness.refuse(await harness.arrival(), errors.NO_REPLICA.number);
    const { responses } = await client.responses(1);
    expect(responses[0]!.status).toBe(529);
    const body = JSON.parse(responses[0]!.body.toString());
    expect(body.type).toBe('error');
    expect(body.error.type).toBe('overloaded_error');
    expect(body.request_id).toBe(responses[0]!.headers.get('request-id'));
    await client.close();
  });

  const invalid = 'invalid_request_error';
  test.each([
    ['an unknown model', post({ model: 'x' }, '', '/v1/messages'), 404, 'not_found_error'],
    ['broken JSON', post('{', '', '/v1/messages/count_tokens?beta=true'), 400, invalid],
    ['a wrong method', get('/v1/messages'), 405, invalid],
    ['an unknown path', post(chat(), '', '/v1/messages/batches'), 404, 'not_found_error'],
    ['broken framing', post(chat(), 'host: a\r\n', '/v1/messages?beta=true'), 400, invalid],
  ])('%s under /v1/messages has the shape of Anthropic too', async (_, bytes, status, type) => {
    const { responses } = await rawRequest(harness.port, bytes);
    expect(responses[0]!.status).toBe(status);
    const body = JSON.parse(responses[0]!.body.toString());
    expect(body.type).toBe('error');
    expect(body.error.type).toBe(type);
    expect(body.request_id).toBe(responses[0]!.headers.get('request-id'));
  });

  test.each([
    ['an unknown model', post({ model: 'x' }), 404, 'model_not_found'],
    ['no model', post({}), 400, 'missing_required_parameter'],
    ['broken JSON', post('{"model":'), 400, 'invalid_json'],
    ['a model named twice', post('{"model":"m","model":"x"}'), 400, 'duplicate_key'],
    ['an unknown path', post(chat(), '', '/v1/nothing'), 404, 'unknown_url'],
    ['a path with dots', post(chat(), '', '/v1/../v1/chat/completions'), 404, 'unknown_url'],
    ['a wrong method', get('/v1/chat/completions'), 405, 'method_not_allowed'],
    ['a wrong priority', post(chat(), 'x-sluice-priority: high\r\n'), 400, 'invalid_header'],
    ['a priority out of range', post(chat(), 'x-sluice-priority: 101\r\n'), 400, 'invalid_header'],
    ['a wrong deadline', post(chat(), 'x-sluice-deadline-ms: 1e3\r\n'), 400, 'invalid_header'],
    ['a deadline of zero', post(chat(), 'x-sluice-deadline-ms: 0\r\n'), 400, 'invalid_header'],
    [
      'a compressed body',
      post(chat(), 'content-encoding: gzip\r\n'),
      415,
      'unsupported_content_encoding',
    ],
    ['an unknown expectation', post(chat(), 'expect: tea\r\n'), 417, 'expectation_failed'],
    ['an unknown model id', get('/v1/models/none'), 404, 'model_not_found'],
  ])('%s is refused and the connection closed', async (_, bytes, status, code) => {
    const client = await RawClient.connect(harness.port);
    await client.send(bytes);
    await client.closed;
    const { responses } = await client.responses(1);
    expect(responses[0]!.status).toBe(status);
    expect(codeOf(responses[0]!.body)).toBe(code);
    expect(responses[0]!.headers.get('connection')).toBe('close');
    expect(
      harness.arrivals.filter(({ slot }) => harness.slots.state(slot) !== SlotState.free),
    ).toEqual([]);
  });

  test('local routes answer: health, models, preflight, HEAD', async () => {
    for (const path of ['/healthz', '/livez', '/health']) {
      expect((await rawRequest(harness.port, get(path))).responses[0]!.status).toBe(200);
    }
    const models = (await rawRequest(harness.port, get('/v1/models'))).responses[0]!;
    const ids = JSON.parse(models.body.toString()).data.map(({ id }: { id: string }) => id);
    expect(ids).toEqual(['m', 'alias-of-m', 'sql', 'legal']);
    const one = (await rawRequest(harness.port, get('/v1/models/alias-of-m'))).responses[0]!;
    expect(JSON.parse(one.body.toString()).id).toBe('alias-of-m');
    const preflight = await rawRequest(
      harness.port,
      get('/v1/chat/completions', 'origin: http://a\r\n', 'OPTIONS'),
    );
    expect(preflight.responses[0]!.status).toBe(204);
    expect(preflight.responses[0]!.headers.get('access-control-allow-origin')).toBe('*');
    const head = await RawClient.connect(harness.port);
    await head.send(get('/healthz', '', 'HEAD'));
    await head.closed;
    expect(head.received.toString()).toMatch(/^HTTP\/1\.1 200 OK\r\n(.+\r\n)+\r\n$/);
  });

  test('readiness tells the truth: replica, scheduler, drain', async () => {
    const ready = async (): Promise<number> =>
      (await rawRequest(harness.port, get('/readyz'))).responses[0]!.status;
    expect(await ready()).toBe(503);
    harness.replicaIsUp(true);
    expect(await ready()).toBe(200);
    harness.setDraining(DrainStage.announced);
    expect(await ready()).toBe(503);
    harness.setDraining(DrainStage.none);
    expect(await ready()).toBe(200);
    harness.schedulerBeats = false;
    let status = 200;
    while (status === 200) status = await ready();
    expect(status).toBe(503);
    harness.schedulerBeats = true;
    harness.replicaIsUp(false);
    expect(await ready()).toBe(503);
  });

  test('while draining, answers close first and new requests are refused later', async () => {
    const client = await RawClient.connect(harness.port);
    harness.setDraining(DrainStage.announced);
    await client.send(post(chat()));
    harness.whole(await harness.arrival(), 'last');
    const { responses } = await client.responses(1);
    expect(responses[0]!.headers.get('connection')).toBe('close');
    harness.setDraining(DrainStage.refusing);
    const refused = await rawRequest(harness.port, post(chat()));
    expect(refused.responses[0]!.status).toBe(503);
    expect(codeOf(refused.responses[0]!.body)).toBe('draining');
    harness.setDraining(DrainStage.none);
    await client.close();
  });
});

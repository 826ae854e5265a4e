/**
 * Comments to a client that waits for the first byte of its stream (`streams.keep_alive`), and what
 * becomes of a request whose head has gone out with them. The interval is short; no test needs a time
 * to pass but by the comments themselves.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import type { Replica } from '../../src/replica/replica.ts';
import {
  expectQuiet,
  type GatewayProcess,
  gatewayProcess,
  type TestEngine,
  testEngines,
  withGateway,
} from '../support/gateway.ts';
import { logged } from '../support/logged.ts';
import {
  chunk,
  doneEvent,
  finishEvent,
  jsonAnswer,
  lastChunk,
  RawReplica,
  type RawRequest,
  roleEvent,
  sse,
  tokenEvent,
} from '../support/raw-replica.ts';
import { replicaInProcess } from '../support/replica.ts';
import { chatBody, chatPath, post, total } from '../support/scenario.ts';
import { type Call, call, reached } from '../support/traffic.ts';

const comment = ': keep-alive\n\n';
const keepAlive = '100ms';
const commentsOf = (c: Call): number => c.body.toString().split(comment).length - 1;
const commented = (c: Call, count: number): Promise<void> =>
  c.until(() => commentsOf(c) >= count, `${count} comments`);
/** What came behind the comments, all of which are at its beginning. */
function answerOf(c: Call): string {
  const text = c.body.toString();
  const answer = text.slice(commentsOf(c) * comment.length);
  expect(text).toBe(comment.repeat(commentsOf(c)) + answer);
  return answer;
}
const errorOf = (c: Call): unknown => {
  expect(c.end, c.body.toString()).toBe('stream-error');
  expect(c.isComplete).toBe(true);
  expect(c.ledger.errors.length).toBe(1);
  return c.ledger.errors[0];
};

const configOf = (
  engine: TestEngine,
  models: ConfigInput['models'],
  more: Omit<ConfigInput, 'models'> = {},
): ConfigInput => ({
  listen: { engine },
  log: { level: 'info', sample: 1, pretty: 'never' },
  streams: { keep_alive: keepAlive },
  health: { interval: '10m', timeout: '1m' },
  retry: { budget: 1, budget_min: 100 },
  ...more,
  models,
});

describe.each(testEngines)('a simulated replica, engine %s', (engine) => {
  let replica: Replica;
  let gateway: GatewayProcess;
  beforeAll(async () => {
    replica = await replicaInProcess({ model: 'm', profile: 'instant' });
    const replicas = [{ url: replica.url, max_in_flight: 1 }];
    gateway = await gatewayProcess({ config: configOf(engine, [{ name: 'm', replicas }]) });
  });
  afterAll(async () => {
    await gateway.finish();
    await replica.close();
  });

  test('queued and in prefill a stream gets comments, then its tokens, every one', async () => {
    const { port } = gateway;
    const before = await gateway.metrics();
    const first = call(port, { nonce: `pre-${engine}`, stream: true, tags: '[[hold]]' });
    await replica.gate.arrivals(1);
    const second = call(port, { nonce: `queued-${engine}`, stream: true });
    await commented(first, 2);
    await commented(second, 2);
    expect(second.status).toBe(200);
    expect(second.headers).toMatchObject({
      'content-type': 'text/event-stream',
      'x-request-id': `queued-${engine}`,
      'cache-control': 'no-cache',
      'x-accel-buffering': 'no',
    });
    expect(second.headers).not.toHaveProperty('x-sluice-replica');
    const queued = await gateway.slots();
    expect(queued.states).toMatchObject({ queued: 1, dispatched: 1 });
    for (const { unsent_bytes } of queued.rows) expect(unsent_bytes).toBe(0);
    replica.gate.release();
    for (const c of [first, second]) {
      await c.ended;
      expect(c.end).toBe('done');
      const { exact, tokens, duplicates, gaps, foreign } = c.ledger;
      expect({ exact, tokens, duplicates, gaps, foreign }).toEqual({
        ...{ exact: true, tokens: 15, duplicates: 0, gaps: 0, foreign: 0 },
      });
      expect(answerOf(c)).toMatch(/^data: /);
      const line = await logged(gateway, c.nonce);
      expect(line).toMatchObject({ status: 200, attempts: 1 });
      // The first token is not the first comment.
      expect(line.ttft_ms).toBeGreaterThan(190);
    }
    const after = await gateway.metrics();
    const added = (name: string): number => total(after, name) - total(before, name);
    const sent = commentsOf(first) + commentsOf(second);
    expect(added('sluice_keep_alive_comments_total')).toBe(sent);
    expect(added('sluice_time_to_first_token_seconds_count')).toBe(2);
    expect(added('sluice_stream_truncated_total')).toBe(0);
    await expectQuiet(gateway);
  });

  test('a long answer behind comments is whole: they use up no credit', async () => {
    const tokens = 20_000;
    const tags = `[[hold]] [[len=${tokens}]]`;
    const c = call(gateway.port, { nonce: `long-${engine}`, stream: true, tags, tokens });
    await commented(c, 3);
    replica.gate.release();
    await c.ended;
    expect(c.end).toBe('done');
    expect([c.ledger.exact, c.ledger.tokens]).toEqual([true, tokens]);
    await expectQuiet(gateway);
  });

  test('a client that leaves between comments is let go everywhere', async () => {
    const c = call(gateway.port, { nonce: `left-${engine}`, stream: true, tags: '[[hold]]' });
    await commented(c, 1);
    const { aborted } = replica.stats();
    c.leave();
    await reached(
      () => Promise.resolve(replica.stats().aborted),
      (count) => count === aborted + 1,
      'the replica sees it',
    );
    expect(await logged(gateway, c.nonce)).toMatchObject({ status: 499, err: 'client_gone' });
    await expectQuiet(gateway);
  });

  test('no comments for an answer that is no stream', async () => {
    const nonce = `plain-${engine}`;
    const plain = call(gateway.port, { nonce, tags: '[[hold]]' });
    await replica.gate.arrivals(1);
    const witness = call(gateway.port, { nonce: `${nonce}-w`, stream: true });
    await commented(witness, 3);
    expect(plain.status).toBe(0);
    replica.gate.release();
    expect((await plain.ended).end).toBe('done');
    expect(plain.headers['content-type']).toMatch(/^application\/json/);
    expect((await witness.ended).end).toBe('done');
    await expectQuiet(gateway);
  });
});

test.each(testEngines)('off: a stream waits in silence, engine %s', async (engine) => {
  const replica = await replicaInProcess({ model: 'm', profile: 'instant' });
  const replicas = [{ url: replica.url }];
  const streams = { keep_alive: 'off' };
  const timeouts = { first_token: '700ms' };
  const retry = { max_attempts: 1 };
  const config = configOf(engine, [{ name: 'm', replicas }], { streams, timeouts, retry });
  try {
    await withGateway({ config }, async (gateway) => {
      // Its failure comes many sweeps later, and still has a status of its own.
      const c = call(gateway.port, { nonce: 'silent', stream: true, tags: '[[hold]]' });
      await c.ended;
      expect([c.status, c.errorCode]).toEqual([502, 'headers_timeout']);
      expect(total(await gateway.metrics(), 'sluice_keep_alive_comments_total')).toBe(0);
    });
  } finally {
    await replica.close();
  }
});

describe.each(testEngines)('failures behind comments, engine %s', (engine) => {
  let raws: RawReplica[];
  let gateway: GatewayProcess;
  beforeAll(async () => {
    raws = [await RawReplica.listen(onProbe), await RawReplica.listen(onProbe)];
    const [one, two] = raws.map(({ url }) => url);
    const models = [
      { name: 'one', replicas: [{ url: one!, name: 'one', max_in_flight: 1 }] },
      {
        name: 'both',
        replicas: [
          { url: one!, name: 'b1' },
          { url: two!, name: 'b2' },
        ],
      },
    ];
    gateway = await gatewayProcess({
      config: configOf(engine, models, { timeouts: { queue: '1s' } }),
    });
  });
  afterAll(async () => {
    await gateway.finish();
    for (const raw of raws) await raw.close();
  });

  function onProbe({ method, connection }: RawRequest): void {
    if (method === 'GET') connection.socket.write(jsonAnswer({ data: [] }));
  }
  /** Requests for answers that the two have got. */
  const asked = (): RawRequest[] =>
    raws.flatMap(({ requests }) => requests.filter(({ method }) => method === 'POST'));

  /** A stream that one of them has, with comments behind it. */
  async function waiting(nonce: string, options: object = {}): Promise<[Call, RawRequest]> {
    const seen = new Set(asked());
    const c = call(gateway.port, {
      ...{ nonce: `${nonce}-${engine}`, stream: true, model: 'one' },
      ...options,
    });
    await commented(c, 2);
    const [request] = asked().filter((one) => !seen.has(one));
    return [c, request!];
  }

  const tooLong = 'This prompt is too long.';
  test.each([
    [
      'an error object',
      `{\n  "error": {\n    "message": "${tooLong}",\r\n    "code": 400, "n": 12345678901234567890 } }\n`,
      { message: tooLong, code: 400 },
    ],
    [
      'an error object of an older engine',
      `{"object":"error","message":"${tooLong}","code":400}`,
      { object: 'error', message: tooLong, code: 400 },
    ],
    [
      'no JSON',
      'Bad Request\n\ndata: [DONE]\n\n',
      { message: 'The replica answered with status 400.', code: 'not_a_stream' },
    ],
    ['a list', '[1]', { code: 'not_a_stream' }],
    ['too much', `{"error":{"message":"${'x'.repeat(20_000)}"}}`, { code: 'not_a_stream' }],
    [
      'more than a record',
      `{"error":{"message":"${'x'.repeat(300_000)}"}}`,
      { code: 'not_a_stream' },
    ],
  ])('status 400 with %s', async (name, body, error) => {
    const [c, { connection }] = await waiting(name.replaceAll(' ', '-'));
    connection.socket.write(jsonAnswer(body, 400));
    await c.ended;
    expect(errorOf(c)).toMatchObject(error);
    expect(answerOf(c).split('\n\n').length).toBe(2);
    expect(await logged(gateway, c.nonce)).toMatchObject({ status: 400, attempts: 1 });
    await expectQuiet(gateway);
  });

  test('the bytes of the error stay as they are', async () => {
    const [c, { connection }] = await waiting('exact');
    connection.socket.write(jsonAnswer('{"error":{"n": 12345678901234567890,\n"m":"é"}}', 422));
    await c.ended;
    expect(answerOf(c)).toBe('data: {"error":{"n": 12345678901234567890, "m":"é"}}\n\n');
  });

  test('status 200 with no stream', async () => {
    const [c, { connection }] = await waiting('json');
    connection.socket.write(jsonAnswer({ choices: [{ message: { content: 'hello' } }] }));
    await c.ended;
    expect(errorOf(c)).toMatchObject({ code: 'not_a_stream' });
    expect(answerOf(c)).not.toContain('hello');
    const line = { status: 502, err: 'not_a_stream', flag: 'UPE' };
    expect(await logged(gateway, c.nonce)).toMatchObject(line);
    await expectQuiet(gateway);
  });

  test('its replica fails and no other is there', async () => {
    const before = await gateway.metrics();
    const [c, { connection }] = await waiting('dead');
    // It is asked again, and fails at once.
    raws[0]!.respond = (request) => request.connection.socket.destroy();
    connection.socket.destroy();
    await c.ended;
    raws[0]!.respond = onProbe;
    expect(errorOf(c)).toMatchObject({ code: 'connection_closed' });
    expect(await logged(gateway, c.nonce)).toMatchObject({ status: 502, err: 'connection_closed' });
    const after = await gateway.metrics();
    const of502 = { model: 'one', code: '502' };
    const count = (families: typeof before): number =>
      total(families, 'sluice_requests_total', of502);
    expect(count(after) - count(before)).toBe(1);
    await expectQuiet(gateway);
  });

  test('it waits too long in the queue', async () => {
    const [holder, { connection }] = await waiting('holder');
    const c = call(gateway.port, { nonce: `late-${engine}`, stream: true, model: 'one' });
    await c.ended;
    expect(errorOf(c)).toMatchObject({ code: 'queue_timeout' });
    expect(commentsOf(c)).toBeGreaterThan(0);
    expect(c.status).toBe(200);
    expect(await logged(gateway, c.nonce)).toMatchObject({ status: 503, err: 'queue_timeout' });
    connection.socket.write(sse(chunk(tokenEvent('a') + finishEvent + doneEvent), lastChunk));
    expect((await holder.ended).end).toBe('done');
    await expectQuiet(gateway);
  });

  test('the deadline of the request', async () => {
    const headers = { 'x-sluice-deadline-ms': '600' };
    const [c] = await waiting('deadline', { headers });
    await c.ended;
    expect(errorOf(c)).toMatchObject({ code: 'deadline_exceeded', type: 'timeout' });
    expect(await logged(gateway, c.nonce)).toMatchObject({ status: 504 });
    await expectQuiet(gateway);
  });

  test('another replica is asked, and its answer follows', async () => {
    const [c, first] = await waiting('retry', { model: 'both' });
    first.connection.socket.destroy();
    const sent = commentsOf(c);
    const retries = (): RawRequest[] =>
      asked().filter(({ headers }) => headers['x-request-id'] === c.nonce);
    await reached(
      () => Promise.resolve(retries()),
      ({ length }) => length === 2,
      'a second attempt',
    );
    await commented(c, sent + 1);
    const second = retries().find((request) => request !== first)!;
    const events = [roleEvent, tokenEvent('one'), tokenEvent(' two'), finishEvent, doneEvent];
    second.connection.socket.write(sse(chunk(events.join('')), lastChunk));
    await c.ended;
    expect(c.end).toBe('done');
    expect(answerOf(c)).toBe(events.join(''));
    expect(await logged(gateway, c.nonce)).toMatchObject({ status: 200, attempts: 2 });
    await expectQuiet(gateway);
  });

  test('a stream that breaks behind them ends as any other that broke', async () => {
    const [c, { connection }] = await waiting('broken');
    connection.socket.write(sse(chunk(roleEvent + tokenEvent('one'))));
    await c.until(() => c.body.includes('one'));
    connection.socket.destroy();
    await c.ended;
    expect(errorOf(c)).toMatchObject({ code: 'truncated_stream' });
    expect(await logged(gateway, c.nonce)).toMatchObject({ status: 200, err: 'truncated_stream' });
    await expectQuiet(gateway);
  });

  test('a drain that is cut', async () => {
    const [c] = await waiting('drain');
    gateway.kill('SIGTERM');
    await reached(
      () => gateway.ready(),
      ({ status }) => status === 503,
      'it drains',
    );
    await commented(c, commentsOf(c) + 1);
    gateway.kill('SIGTERM');
    await c.ended;
    expect(errorOf(c)).toMatchObject({ code: 'shutting_down' });
    await gateway.exited;
  });
});

test.each(testEngines)(
  'an Anthropic client gets events of its own shape, engine %s',
  async (engine) => {
    const raw = await RawReplica.listen(({ method, connection }) => {
      if (method === 'GET') connection.socket.write(jsonAnswer({ data: [] }));
    });
    try {
      const config = configOf(engine, [{ name: 'm', replicas: [{ url: raw.url }] }]);
      await withGateway({ config }, async (gateway) => {
        const body = chatBody('x', { stream: true, max_tokens: 5 });
        const answer = post(gateway.url, body, {}, '/v1/messages');
        await reached(
          () => gateway.metrics(),
          (families) => total(families, 'sluice_keep_alive_comments_total') >= 2,
          'comments were sent',
        );
        const request = raw.requests.find(({ method }) => method === 'POST')!;
        expect(request.path).not.toBe(chatPath);
        request.connection.socket.write(jsonAnswer({ detail: 'no' }, 400));
        const { status, headers, text } = await answer;
        expect(status).toBe(200);
        expect(headers.get('request-id')).toBe(headers.get('x-request-id'));
        const event = 'event: error\ndata: {"type":"error","error":{"detail":"no"}}\n\n';
        expect(text.replaceAll(comment, '')).toBe(event);
      });
    } finally {
      await raw.close();
    }
  },
);

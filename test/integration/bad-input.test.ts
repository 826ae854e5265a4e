/**
 * Bad input of operators and clients, and every refusal of the status map (DESIGN.md 6), produced for
 * real on both engines: right status, OpenAI-shaped body, right headers, nothing left, nobody dead.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { Replica } from '../../src/replica/replica.ts';
import {
  expectQuiet,
  type GatewayProcess,
  gatewayProcess,
  testEngines,
} from '../support/gateway.ts';
import { RawClient, type RawResponse, rawPost } from '../support/raw-client.ts';
import { replicaInProcess } from '../support/replica.ts';
import { type Answer, chatBody, chatPath, load, post } from '../support/scenario.ts';

const program = resolve(import.meta.dirname, '../../src/main.ts');

describe('the command line', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-bad-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  function sluice(...args: readonly string[]) {
    const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args], {
      cwd: folder,
      encoding: 'utf8',
      env: { PATH: process.env.PATH },
      timeout: 20_000,
    });
    return { status, stdout, stderr };
  }

  const wrong = 'models: [{ name: m, replicas: [{ url: "http://127.0.0.1:1" }] }]\ntimeuots: {}\n';

  test.each(['serve', 'check'])(
    '%s: a wrong config is named by place and nearest key',
    (command) => {
      writeFileSync(join(folder, 'sluice.yaml'), wrong);
      const { status, stdout, stderr } = sluice(command, '--config', './sluice.yaml');
      expect(stderr).toBe('./sluice.yaml:2:1 timeuots: unknown key (did you mean "timeouts"?)\n');
      expect(stdout).toBe('');
      expect(status).toBe(2);
    },
  );

  test('A-03: an unknown policy is refused, not replaced by a default', () => {
    const text = `models: [{ name: m, policy: p3c, replicas: [{ url: "http://127.0.0.1:1" }] }]\n`;
    writeFileSync(join(folder, 'sluice.yaml'), text);
    const { status, stderr } = sluice('serve', '--no-supervisor');
    expect(stderr).toMatch(
      /^\.\/sluice\.yaml:1:29 models\.0\.policy: must be one of .*power_of_two/,
    );
    expect(status).toBe(2);
  });

  test.each<[string, string[], RegExp]>([
    ['an unknown command', ['sevre'], /unknown command 'sevre'/],
    ['an unknown flag', ['serve', '--confg', 'x'], /unknown option '--confg'/],
    ['a port that is none', ['serve', '--port', '70000'], /must be a port number/],
    ['a model without a replica', ['serve', '--model', 'm'], /--model needs .*--replica/],
    ['a replica without a model', ['serve', '--replica', 'http://127.0.0.1:1'], /needs --model/],
    [
      'a replica beside a file',
      ['serve', '--config', 'x', '--replica', 'http://127.0.0.1:1'],
      /not both/,
    ],
    [
      'a replica that is no URL',
      ['serve', '--replica', 'nonsense', '--model', 'm'],
      /command line models\.0\.replicas\.0\.url: must be a URL/,
    ],
    ['a file that is not there', ['serve', '--config', 'none.yaml'], /none\.yaml/],
    ['a count of replicas that is none', ['demo', '--replicas', 'x'], /whole number from 1 to 64/],
  ])('%s is bad usage', (_, args, message) => {
    const { status, stdout, stderr } = sluice(...args);
    expect(stderr).toMatch(message);
    expect(stderr).not.toMatch(/^\s+at /m);
    expect(stdout).toBe('');
    expect(status).toBe(2);
  });

  test.each(['serve', 'bench', 'demo', 'replica', 'check'])('%s: help reads well', (command) => {
    const { status, stdout } = sluice(command, '--help');
    expect(stdout).toContain('--');
    expect(stdout).not.toMatch(/default:\s+(null|false|\[\]|60000)/);
    if (command === 'bench') expect(stdout).toMatch(/default:\s+inf\).*default:\s+60s\)/s);
    expect(status).toBe(0);
  });

  test('without a config file the message says what to do', () => {
    rmSync(join(folder, 'sluice.yaml'), { force: true });
    const { status, stderr } = sluice('serve');
    expect(stderr).toMatch(/no \.\/sluice\.yaml here; .*--config FILE.*sluice demo/);
    expect(status).toBe(2);
  });

  test.each([...testEngines, 'admin'])('a port in use ends the start: %s', async (which) => {
    const server = createServer();
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    const address = server.address();
    const port = typeof address === 'object' ? address?.port : 0;
    const isAdmin = which === 'admin';
    const engine = isAdmin ? 'auto' : which;
    const config = `listen: { host: 127.0.0.1, port: ${isAdmin ? 0 : port}, engine: ${engine} }
admin: { port: ${isAdmin ? port : 0} }
models: [{ name: m, replicas: [{ url: "http://127.0.0.1:1" }] }]\n`;
    writeFileSync(join(folder, 'sluice.yaml'), config);
    const { status, stdout, stderr } = sluice('serve', '--no-supervisor');
    const key = isAdmin ? 'admin.port' : 'listen.port';
    expect(stderr).toBe(
      `sluice: cannot listen on 127.0.0.1:${port}: the port is in use (${key})\n`,
    );
    expect(stdout).not.toMatch(/^\s+at |"stack"|"level":"(fatal|error)"/m);
    expect(status).toBe(1);
    await new Promise((done) => server.close(done));
  });
});

const slots = 16;
const bodyMax = 128 * 1024;

/** One gateway per engine; its models differ in what is wrong with their replicas. */
describe.each(testEngines)('the status map on %s', (engine) => {
  let replica: Replica;
  let busy: Replica;
  let broken: readonly Replica[];
  let gateway: GatewayProcess;

  beforeAll(async () => {
    replica = await replicaInProcess();
    busy = await replicaInProcess();
    const faults = [{ fault: 'reset=headers' }];
    broken = [await replicaInProcess({ faults }), await replicaInProcess({ faults })];
    gateway = await gatewayProcess({
      config: {
        listen: { engine, max_body: '128KiB' },
        memory: { slots, arena: '1MiB' },
        queue: { max: 2 },
        timeouts: { queue: '400ms' },
        models: [
          { name: 'm', replicas: [{ url: replica.url, name: 'fine' }] },
          { name: 'busy', replicas: [{ url: busy.url, name: 'busy', max_in_flight: 1 }] },
          { name: 'broken', replicas: broken.map(({ url }) => ({ url })) },
          { name: 'none', replicas: [{ url: 'http://127.0.0.1:1', name: 'none' }] },
        ],
      },
    });
  });

  afterAll(async () => {
    await gateway.finish();
    for (const each of [replica, busy, ...broken]) await each.close();
  });

  afterEach(async () => {
    for (const each of [replica, busy]) each.gate.release();
    await expectQuiet(gateway);
    const { threads } = await gateway.slots();
    for (const { name, phase, heartbeatAgeSeconds } of threads) {
      if (name === 'main') continue;
      expect(phase, name).toBe(1);
      expect(heartbeatAgeSeconds, name).toBeLessThan(2);
    }
  });

  const say = (prompt: string, to = 'm'): object => chatBody(prompt, { model: to });

  async function raw(bytes: string): Promise<RawResponse> {
    const client = await RawClient.connect(gateway.port);
    await client.send(bytes);
    const { responses, problem } = await client.responses();
    await client.close();
    expect(problem).toBeUndefined();
    return responses[0]!;
  }

  const head = (line: string, headers = ''): string =>
    `${line} HTTP/1.1\r\nhost: test\r\n${headers}\r\n`;

  const refusals: readonly [string, () => string, number, string, string?][] = [
    ['broken JSON', () => rawPost(chatPath, '{"model":"m",'), 400, 'invalid_json'],
    ['no JSON at all', () => rawPost(chatPath, 'hello'), 400, 'invalid_json'],
    ['an empty body', () => rawPost(chatPath, ''), 400, 'invalid_json'],
    ['a list', () => rawPost(chatPath, []), 400, 'invalid_json'],
    ['bytes behind the object', () => rawPost(chatPath, '{"model":"m"}x'), 400, 'invalid_json'],
    [
      'a model named twice',
      () => rawPost(chatPath, '{"model":"m","model":"n"}'),
      400,
      'duplicate_key',
    ],
    [
      'nesting without end',
      () => rawPost(chatPath, `{"model":"m","a":${'['.repeat(999)}`),
      400,
      'json_too_deep',
    ],
    [
      'a stream that is no boolean',
      () => rawPost(chatPath, { model: 'm', stream: 'x' }),
      400,
      'invalid_type',
      'stream',
    ],
    ['no model', () => rawPost(chatPath, {}), 400, 'missing_required_parameter', 'model'],
    [
      'a wrong deadline',
      () => rawPost(chatPath, say('x'), 'x-sluice-deadline-ms: soon\r\n'),
      400,
      'invalid_header',
      'x-sluice-deadline-ms',
    ],
    [
      'two lengths',
      () => rawPost(chatPath, say('x'), 'content-length: 3\r\n'),
      400,
      'bad_request_framing',
    ],
    [
      'a length and chunks',
      () => rawPost(chatPath, say('x'), 'transfer-encoding: chunked\r\n'),
      400,
      'bad_request_framing',
    ],
    [
      'an unknown model',
      () => rawPost(chatPath, say('x', 'nope')),
      404,
      'model_not_found',
      'model',
    ],
    ['an unknown path', () => rawPost('/v1/nothing', {}), 404, 'unknown_url'],
    ['a wrong method', () => head(`GET ${chatPath}`), 405, 'method_not_allowed'],
    ['a POST without a length', () => head(`POST ${chatPath}`), 411, 'length_required'],
    [
      'a body above the limit',
      () => head(`POST ${chatPath}`, `content-length: ${bodyMax + 1}\r\n`),
      413,
      'body_too_large',
    ],
    [
      'a compressed body',
      () => rawPost(chatPath, say('x'), 'content-encoding: gzip\r\n'),
      415,
      'unsupported_content_encoding',
    ],
    [
      'an unknown expectation',
      () => rawPost(chatPath, say('x'), 'expect: tea\r\n'),
      417,
      'expectation_failed',
    ],
  ];

  test.each(refusals)('%s', async (name, bytes, status, code, param) => {
    const before = replica.stats().started;
    const { status: got, headers, body } = await raw(bytes());
    const text = body.toString();
    expect(got, text).toBe(status);
    expect(replica.stats().started).toBe(before);
    // uWebSockets.js refuses this row in its parser, with a page of its own.
    if (engine === 'uws' && name === 'a length and chunks') return;
    expectShape(text, code, param);
    expect(headers.get('content-type')).toMatch(/^application\/json/);
    expect(headers.get('connection')).toBe('close');
    // A request whose framing is broken has no headers that could be trusted, nor an id.
    if (code === 'bad_request_framing') return;
    expect(headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/);
  });

  test('headers without end are refused with 431', async () => {
    const { status } = await raw(head(`POST ${chatPath}`, `x-big: ${'a'.repeat(100_000)}\r\n`));
    expect(status).toBe(431);
  });

  test('405 says what is allowed', async () => {
    expect((await raw(head(`GET ${chatPath}`))).headers.get('allow')).toMatch(/POST/);
  });

  test('429: the queue is full; T41: who waits too long never touches a replica', async () => {
    const first = post(gateway.url, say('[[hold]]', 'busy'));
    await busy.gate.arrivals(1);
    const started = busy.stats().started;
    const waiting = [post(gateway.url, say('a', 'busy')), post(gateway.url, say('b', 'busy'))];
    await expect.poll(async () => (await gateway.cluster()).queue_depth).toBe(2);
    expectRetryLater(await post(gateway.url, say('c', 'busy')), 429, 'rate_limit_exceeded');
    for (const answer of await Promise.all(waiting)) {
      expectRetryLater(answer, 503, 'queue_timeout');
    }
    expect(busy.stats().started).toBe(started);
    busy.gate.release();
    expect((await first).status).toBe(200);
    expect(busy.stats().started).toBe(started);
  });

  test('503: all slots are taken', async () => {
    const held = Array.from({ length: slots }, () => post(gateway.url, say('[[hold]]')));
    await replica.gate.arrivals(slots);
    expectRetryLater(await post(gateway.url, say('x')), 503, 'slots_full');
    replica.gate.release();
    for (const answer of await Promise.all(held)) expect(answer.status).toBe(200);
    expect((await post(gateway.url, say('x'))).status).toBe(200);
  });

  test('503: the memory for bodies is full', async () => {
    const large = say(`[[hold]] ${'x'.repeat(bodyMax - 4096)}`);
    const held: ReturnType<typeof post>[] = [];
    for (let each = 1; each <= 8; each++) {
      held.push(post(gateway.url, large));
      await replica.gate.arrivals(each);
    }
    expectRetryLater(await post(gateway.url, large), 503, 'body_memory_full');
    replica.gate.release();
    for (const answer of await Promise.all(held)) expect(answer.status).toBe(200);
    expect((await post(gateway.url, say('x'))).status).toBe(200);
  });

  test.each([
    ['/chat/completions', '/v1/chat/completions'],
    ['/v1/chat/completions/', '/v1/chat/completions'],
    ['/v1/v1/embeddings', '/v1/embeddings'],
    ['/v1/v1/responses/sk-a-secret/cancel', '/v1/responses/{id}/cancel'],
    ['/v1/nothing', undefined],
  ])('404: %s is told what it may mean', async (path, meant) => {
    const answer = await post(gateway.url, say('x'), {}, path);
    expect(answer.status).toBe(404);
    const { message } = JSON.parse(answer.text).error;
    const question = meant === undefined ? '' : ` Did you mean POST ${meant}?`;
    expect(message).toBe(`Unknown request URL.${question}`);
  });

  test('503: no replica can be used', async () => {
    expectRetryLater(await post(gateway.url, say('x', 'none')), 503, 'no_replica');
  });

  test('502: every attempt failed', async () => {
    const answer = await post(gateway.url, say('x', 'broken'));
    expect(answer.status, answer.text).toBe(502);
    expectShape(answer.text, 'all_attempts_failed');
    expect(answer.headers.get('retry-after')).toBeNull();
    expect(Number(answer.headers.get('x-sluice-attempts'))).toBeGreaterThanOrEqual(2);
    // Clients would try three times what has been tried twice and more.
    expect(answer.headers.get('x-should-retry')).toBe('false');
    for (const each of broken) expect(each.stats().started).toBeGreaterThan(0);
  });

  test('504: the deadline of the request', async () => {
    const deadline = { 'x-sluice-deadline-ms': '150' };
    const answer = await post(gateway.url, say('[[hold]]'), deadline);
    expect(answer.status).toBe(504);
    expectShape(answer.text, 'deadline_exceeded');
    await replica.until(({ in_flight }) => in_flight === 0);
  });

  test('A-20: a replica that says no is heard: its status and body reach the client', async () => {
    const told = await post(gateway.url, say('[[fault:status=422]]'));
    expect(told.status).toBe(422);
    expect(JSON.parse(told.text).error.message).toBeTypeOf('string');
  });

  test('after all of it the gateway serves under load', async () => {
    const { metrics } = await load(gateway, { requestsMax: 200, connections: 8 });
    expect(metrics.failed).toBe(0);
    expect(metrics.statuses.get(200)).toBe(200);
    expect((await gateway.ready()).status).toBe(200);
  });
});

function expectShape(text: string, code: string, param?: string): void {
  const { error, ...rest } = JSON.parse(text);
  expect(rest).toEqual({});
  expect(Object.keys(error)).toEqual(['message', 'type', 'param', 'code']);
  expect(error).toMatchObject({ code, message: expect.any(String), type: expect.any(String) });
  if (param !== undefined) expect(error.param).toBe(param);
}

function expectRetryLater(answer: Answer, status: number, code: string): void {
  expect(answer.status, answer.text).toBe(status);
  expectShape(answer.text, code);
  expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0);
  expect(Number(answer.headers.get('retry-after-ms'))).toBeGreaterThan(0);
  expect(answer.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/);
}

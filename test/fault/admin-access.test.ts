/** T50: what the admin listener refuses, and that nothing else offers what it has. */
import { request } from 'node:http';
import { networkInterfaces } from 'node:os';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Replica } from '../../src/replica/replica.ts';
import {
  expectQuiet,
  type GatewayProcess,
  gatewayProcess,
  testEngines,
  withGateway,
} from '../support/gateway.ts';
import { replicaInProcess } from '../support/replica.ts';
import { chatBody, configOf, post } from '../support/scenario.ts';

const token = 'T50-secret-token';
const bearer = { authorization: `Bearer ${token}` };
const added = { model: 'm', name: 'r9', url: 'http://127.0.0.1:9' };
const mutations: readonly [string, object?][] = [
  ['/admin/replicas/r1/drain'],
  ['/admin/replicas/r1/undrain'],
  ['/admin/replicas/r1/remove'],
  ['/admin/replicas', added],
  ['/admin/reload'],
  ['/admin/fault', { kind: 'stall', thread: 'scheduler', ms: 1 }],
];
const pages = ['/metrics', '/v1/cluster', '/admin/slots'];

interface Sent {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
}

/** fetch would not send a Host or an Origin of the test's choice. */
function send(url: string, { method = 'GET', headers = {}, body }: Sent = {}) {
  return new Promise<{ status: number; text: string; headers: Record<string, unknown> }>(
    (resolve, reject) => {
      const sent = request(url, { method, headers, agent: false }, (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => {
          text += chunk;
        });
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, text, headers: response.headers }),
        );
      });
      sent.on('error', reject);
      sent.end(body === undefined ? undefined : JSON.stringify(body));
    },
  );
}

let replica: Replica;
let gateway: GatewayProcess;

beforeAll(async () => {
  replica = await replicaInProcess();
  gateway = await gatewayProcess({ config: configOf([replica], { admin: { token } }) });
});

afterAll(async () => {
  await gateway.finish();
  await replica.close();
});

async function expectUntouched(of = gateway): Promise<void> {
  const { replicas } = await of.cluster();
  expect(replicas).toMatchObject([{ name: 'r1', state: 'active', healthy: true }]);
}

describe('changes are refused', () => {
  const ways: readonly [string, Readonly<Record<string, string>>, number][] = [
    ['without a token', {}, 401],
    ['with a wrong token', { authorization: 'Bearer wrong' }, 401],
    ['with a prefix of the token', { authorization: `Bearer ${token.slice(0, -1)}` }, 401],
    ['with the token in another scheme', { authorization: `Basic ${token}` }, 401],
    ['with the token in another header', { 'x-api-key': token, cookie: `token=${token}` }, 401],
    ['from a page of another origin', { ...bearer, origin: 'https://evil.example' }, 403],
    ['from an opaque origin', { ...bearer, origin: 'null' }, 403],
    ['with a rebound Host and no token', { host: 'evil.example' }, 401],
    [
      'with a rebound Host that matches the Origin',
      { host: 'evil.example', origin: 'http://evil.example' },
      401,
    ],
  ];
  test.each(ways)('%s', async (_, headers, status) => {
    for (const [path, body] of mutations) {
      const answer = await send(gateway.adminUrl + path, { method: 'POST', headers, body });
      expect(answer.status, path).toBe(status);
      expect(answer.text).not.toContain(token);
    }
    await expectUntouched();
  });

  test('by any method but POST, token or not', async () => {
    for (const [path] of mutations) {
      for (const method of ['GET', 'PUT', 'DELETE', 'PATCH']) {
        const answer = await send(gateway.adminUrl + path, { method, headers: bearer });
        expect([404, 405], `${method} ${path}`).toContain(answer.status);
      }
    }
    await expectUntouched();
  });

  test('on paths that only look like one', async () => {
    for (const path of [
      '/admin/replicas/r1/drain/',
      '/admin//replicas/r1/drain',
      '/admin/replicas/../replicas/r1/drain',
      '/admin/replicas/r1%2fdrain',
      '/ADMIN/replicas/r1/drain',
      '/admin/replicas/r1/constructor',
    ]) {
      const answer = await send(gateway.adminUrl + path, { method: 'POST', headers: bearer });
      // The client library resolves dot segments before it sends; the others must not match.
      if (!path.includes('..')) expect(answer.status, path).toBe(404);
    }
  });
});

test('faults are for gateways under test only: without the flag there is no such action', async () => {
  const body = { kind: 'crash', thread: 'scheduler', stage: 'popped', how: 'throw' };
  const answer = await send(`${gateway.adminUrl}/admin/fault`, {
    ...{ method: 'POST', headers: bearer, body },
  });
  expect(answer.status).toBe(404);
  expect(answer.text).toContain('no such admin action');
});

test('with the token every change works', async () => {
  const change = (path: string, body?: object) =>
    send(gateway.adminUrl + path, { method: 'POST', headers: bearer, body });
  expect(await change('/admin/replicas/r1/drain')).toMatchObject({ status: 200 });
  expect((await gateway.cluster()).replicas).toMatchObject([{ name: 'r1', state: 'draining' }]);
  expect((await post(gateway.url, chatBody('x'))).status).toBe(503);
  expect(await change('/admin/replicas/r1/undrain')).toMatchObject({ status: 200 });
  expect((await post(gateway.url, chatBody('x'))).status).toBe(200);
  expect(await change('/admin/replicas', { ...added, url: replica.url })).toMatchObject({
    status: 201,
  });
  expect((await gateway.cluster()).replicas).toHaveLength(2);
  expect(await change('/admin/replicas', { ...added, url: replica.url })).toMatchObject({
    status: 409,
  });
  expect(await change('/admin/replicas/r9/remove')).toMatchObject({ status: 200 });
  expect(await change('/admin/replicas/r9/remove')).toMatchObject({ status: 404 });
  expect(await change('/admin/reload')).toMatchObject({ status: 200 });
  await expectUntouched();
  await expectQuiet(gateway);
});

test('a bad body of a change is refused with words and without its values', async () => {
  const bodies: readonly [unknown, number, RegExp][] = [
    [{ ...added, url: 'file:///etc/passwd' }, 400, /url must be http or https/],
    [{ ...added, url: 'http://169.254.169.254' }, 400, /metadata/],
    [{ ...added, url: 'http://u:T50-secret@127.0.0.1:9' }, 400, /credentials/],
    [{ ...added, extra: 1 }, 400, /unknown key extra/],
    [{ ...added, model: 'nope' }, 404, /no model nope/],
    [{ ...added, name: '__proto__' }, 400, /name/],
    [[], 400, /./],
    ['x'.repeat(70_000), 413, /too large/],
  ];
  for (const [body, status, message] of bodies) {
    const url = `${gateway.adminUrl}/admin/replicas`;
    const answer = await send(url, { method: 'POST', headers: bearer, body });
    expect(answer.status, answer.text).toBe(status);
    expect(JSON.parse(answer.text).error.message).toMatch(message);
    expect(answer.text).not.toContain('T50-secret');
  }
  await expectUntouched();
});

test('reading needs no token on loopback', async () => {
  for (const path of pages) {
    expect((await send(gateway.adminUrl + path)).status, path).toBe(200);
  }
});

test('reading with a Host that is not ours is refused: a name was rebound', async () => {
  for (const path of pages) {
    const answer = await send(gateway.adminUrl + path, { headers: { host: 'evil.example' } });
    expect(answer.status, path).toBe(401);
    const withToken = { host: 'evil.example', ...bearer };
    expect((await send(gateway.adminUrl + path, { headers: withToken })).status).toBe(200);
  }
});

test('health and readiness are open to everybody', async () => {
  for (const path of ['/healthz', '/readyz']) {
    const answer = await send(gateway.adminUrl + path, { headers: { host: 'evil.example' } });
    expect(answer.status, path).toBe(200);
  }
});

const ownAddress = Object.values(networkInterfaces())
  .flat()
  .find((address) => address?.family === 'IPv4' && !address.internal)?.address;

test.runIf(ownAddress !== undefined)('reading from another address needs the token', async () => {
  const config = configOf([replica], { admin: { token, host: '0.0.0.0' } });
  await withGateway({ config }, async (open) => {
    const url = `http://${ownAddress}:${new URL(open.adminUrl).port}`;
    for (const path of pages) {
      expect((await send(url + path)).status, path).toBe(401);
      const lie = { 'x-forwarded-for': '127.0.0.1', host: '127.0.0.1' };
      expect((await send(url + path, { headers: lie })).status, path).toBe(401);
      expect((await send(url + path, { headers: bearer })).status, path).toBe(200);
    }
  });
});

test('without a token in the config nobody changes anything', async () => {
  await withGateway({ config: configOf([replica]) }, async (open) => {
    for (const [path, body] of mutations) {
      for (const authorization of ['', 'Bearer ', 'Bearer undefined', `Bearer ${token}`]) {
        const sent = { method: 'POST', headers: { authorization }, body };
        expect((await send(open.adminUrl + path, sent)).status, path).toBe(403);
      }
    }
    await expectUntouched(open);
  });
});

describe.each(testEngines)('the client port of %s', (engine) => {
  test('has no admin page, no change and no debug hook', async () => {
    const config = configOf([replica], { listen: { engine }, admin: { token } });
    await withGateway({ config }, async (open) => {
      const before = replica.stats().started;
      for (const [path, body] of mutations) {
        const answer = await send(open.url + path, { method: 'POST', headers: bearer, body });
        expect(answer.status, path).toBe(404);
      }
      const others = [...pages, '/admin', '/debug', '/debug/pprof', '/control', '/fault', '/stats'];
      for (const path of others) {
        for (const sent of [{ method: 'GET' }, { method: 'POST', body: {} }]) {
          const answer = await send(open.url + path, { ...sent, headers: bearer });
          expect(answer.status, `${sent.method} ${path}`).toBe(404);
        }
      }
      // The tags and headers that drive the simulated replica mean nothing to the gateway itself.
      const hooks = { 'x-sluice-fault': 'handler', 'x-fault': 'crash', 'x-debug': '1' };
      const answer = await post(open.url, chatBody('x'), hooks);
      expect(answer.status).toBe(200);
      expect(replica.stats().started).toBe(before + 1);
      const { head } = replica.ledger().at(-1)!;
      expect(head).not.toMatch(/x-sluice-fault|x-fault|x-debug/i);
      await expectUntouched(open);
      await expectQuiet(open);
    });
  });
});

/**
 * T52: secrets go in by every way a client, an operator or a replica has, and come out by none that
 * others read: logs of every level, metrics, cluster page, slot table, explanations, answers to others.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { mainFile } from '../../scripts/bench/program.ts';
import type { FaultStage } from '../../src/lib/fault-point.ts';
import { sha256Of } from '../../src/protocol/api-key.ts';
import type { CrashKind } from '../../src/shm/threads.ts';
import { adminPost } from '../support/admin-post.ts';
import { figure } from '../support/figures.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { chunk, jsonAnswer, lastChunk, RawReplica, sseHead } from '../support/raw-replica.ts';
import { configOf, withReplicas } from '../support/scenario.ts';
import { crash, faultEnv, restarted } from '../support/thread-faults.ts';
import { call } from '../support/traffic.ts';
import { eventually } from '../support/until.ts';

const secret = (n: number): string => `sEcReT${String(n).padStart(2, '0')}x7Qz`;
const pattern = /sEcReT\d\dx7Qz/;

const chat = (content: string, more: object = {}): string =>
  JSON.stringify({ model: 'm', messages: [{ role: 'user', content }], ...more });

interface Case {
  readonly path?: string;
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** What a client sends; the number of the case is that of its secret. */
const cases: readonly ((s: string) => Case)[] = [
  (s) => ({ headers: { authorization: `Bearer ${s}` }, body: chat('hi') }),
  (s) => ({ headers: { authorization: `Basic ${btoa(`u:${s}`)} ${s}` }, body: chat('hi') }),
  (s) => ({ headers: { 'x-api-key': s }, body: chat('hi') }),
  (s) => ({ headers: { cookie: `session=${s}` }, body: chat('hi') }),
  (s) => ({ headers: { 'proxy-authorization': s }, body: chat('hi') }),
  (s) => ({ headers: { 'x-session-id': s }, body: chat('hi') }),
  (s) => ({ path: `/v1/chat/completions?api_key=${s}`, body: chat('hi') }),
  (s) => ({ path: `/v1/${s}`, body: chat('hi') }),
  (s) => ({ path: `/v1/models/${s}`, method: 'GET' }),
  (s) => ({ body: chat(`my password is ${s}`) }),
  (s) => ({ body: chat('hi', { user: s, session_id: s, prompt_cache_key: s }) }),
  (s) => ({ body: chat('hi', { metadata: { token: s } }) }),
  (s) => ({ body: chat('hi').replace('"m"', JSON.stringify(s)) }),
  (s) => ({ body: `{"model": "m", "messages": ${s}` }),
  (s) => ({ body: chat(`[[fault:status=500]] ${s}`) }),
  (s) => ({ body: chat(`[[fault:fin-after=2]] ${s}`, { stream: true }) }),
  (s) => ({ body: chat(`[[fault:garbage=20]] ${s}`, { stream: true }) }),
  (s) => ({ headers: { 'x-sluice-priority': s }, body: chat('hi') }),
  (s) => ({ headers: { 'x-sluice-hedge': s }, body: chat('hi') }),
  (s) => ({ headers: { traceparent: `00-${s}` }, body: chat('hi') }),
  (s) => ({ headers: { [`x-${s}`]: s }, body: chat('hi') }),
];

/** Head and body of the answer, as far as it came. */
async function send(gateway: GatewayProcess, { path, method, headers, body }: Case) {
  const response = await fetch(gateway.url + (path ?? '/v1/chat/completions'), {
    method: method ?? 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    ...(body !== undefined && { body }),
  });
  const text = await response.text().catch(() => '');
  const head = JSON.stringify([...response.headers]);
  return { isError: response.status >= 400 || text.includes('"error"'), text: head + text };
}

type Three = [string, string, string];

const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
const access = testEngines.flatMap((engine) =>
  (['everybody', 'who has a key'] as const).map((who) => [engine, who] as const),
);

test.each(access)('T52: secrets stay where they went, engine %s, for %s', async (engine, who) => {
  const hasKeys = who !== 'everybody';
  const adminToken = secret(cases.length);
  const apiKey = secret(cases.length + 1);
  // Its own and one that is refused; more come by the admin listener.
  const [clientKey, oldKey, poorKey] = [3, 4, 5].map((n) => secret(cases.length + n)) as Three;
  const folder = mkdtempSync(join(tmpdir(), 'sluice-secrets-'));
  const tenants = [
    {
      name: 'acme',
      keys: [
        { id: 'good', sha256: sha256Of(clientKey) },
        { id: 'old', sha256: sha256Of(oldKey), disabled: true },
      ],
    },
    {
      name: 'poor',
      limits: { requests_per_minute: 1, burst: '60s' as const },
      keys: [{ id: 'poor', sha256: sha256Of(poorKey) }],
    },
  ];
  const headers = { 'x-team-token': secret(cases.length + 6) };
  const digests = [clientKey, oldKey, poorKey].map(sha256Of);
  const expectNone = (text: string, where: string): void => {
    expect(text, where).not.toMatch(pattern);
    for (const digest of digests) expect(text, where).not.toContain(digest);
  };
  const ask = hasKeys ? bearer(clientKey) : {};
  await withReplicas(2, { profile: 'instant', apiKey }, async (replicas) => {
    const rows = replicas.map(({ url }, i) => {
      return { url, name: `r${i + 1}`, api_key: apiKey, headers };
    });
    const more = {
      ...{ listen: { engine }, admin: { token: adminToken } },
      log: { level: 'debug', sample: 1, pretty: 'never' },
      usage: { file: join(folder, 'usage.ndjson') },
      ...(hasKeys && { tenants }),
    } as const;
    const config = configOf(replicas, more, { replicas: rows });
    await withGateway({ config, env: { ...faultEnv } }, async (gateway) => {
      let errors = 0;
      for (const [n, of] of cases.entries()) {
        const sent = of(secret(n));
        const { isError, text } = await send(gateway, {
          ...sent,
          headers: { ...ask, ...sent.headers },
        });
        if (isError) errors++;
        // Nobody gets back what he sent: what stands between the two may keep it.
        expectNone(text, `case ${n}`);
      }
      if (hasKeys) await useKeys(gateway, adminToken, [clientKey, oldKey, poorKey], expectNone);
      expect(errors).toBeGreaterThanOrEqual(9);
      // A thread dies with a prompt in its hands.
      const last = secret(cases.length + 2);
      const held = call(gateway.port, {
        nonce: 'held',
        stream: true,
        tags: `[[fault:hold-after=0]] ${last}`,
        headers: ask,
      });
      await crash(gateway, 'forwarder-0', 'sent', 'throw', 0, adminToken);
      const struck = call(gateway.port, {
        nonce: 'struck',
        stream: true,
        tags: last,
        headers: ask,
      });
      await restarted(gateway, 'forwarder', 1);
      for (const replica of replicas) replica.gate.release();
      await Promise.all([held.ended, struck.ended]);
      const pages = ['/metrics', '/v1/cluster', '/admin/slots', '/admin/explain/held', '/healthz'];
      for (const page of [...pages, '/admin/tenants']) {
        const authorized = { headers: bearer(adminToken) };
        const response = await fetch(gateway.adminUrl + page, authorized);
        expect(response.status, page).toBe(200);
        expectNone(await response.text(), page);
      }
      const wrong = { headers: bearer(secret(99)), method: 'POST' };
      const refused = await fetch(`${gateway.adminUrl}/admin/reload`, wrong);
      expect(refused.status).toBe(401);
      expectNone(await refused.text(), 'a wrong token');
      const models = await fetch(`${gateway.url}/v1/models`, { headers: ask });
      expectNone(await models.text(), 'models');
      expect((await gateway.stop()).code).toBe(0);
      expect(gateway.output()).toContain('"req_id"');
      expectNone(gateway.output(), 'output');
      const files = readdirSync(folder).map((name) => readFileSync(join(folder, name), 'utf8'));
      expect(files.join('')).toContain('"output_tokens"');
      expectNone(files.join(''), 'usage');
    });
  });
  rmSync(folder, { recursive: true, force: true });
  figure(
    'T52',
    `${engine}, for ${who}: secrets found`,
    0,
    `of ${cases.length + (hasKeys ? 9 : 5)}`,
  );
});

/** Every way of a key: one that is refused, over a limit, made and disabled while it serves. */
async function useKeys(
  gateway: GatewayProcess,
  adminToken: string,
  [clientKey, oldKey, poorKey]: Three,
  expectNone: (text: string, where: string) => void,
): Promise<void> {
  const ask = async (headers: Record<string, string>, more: object = {}): Promise<number> => {
    const response = await fetch(`${gateway.url}/v1/messages`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: chat('hi', { max_tokens: 5, ...more }),
    });
    expectNone(JSON.stringify([...response.headers]) + (await response.text()), 'answer');
    return response.status;
  };
  expect(await ask({ 'x-api-key': oldKey })).toBe(401);
  expect(await ask({ 'x-api-key': clientKey })).toBe(200);
  expect([await ask(bearer(poorKey)), await ask(bearer(poorKey))]).toEqual([200, 429]);
  const admin = (page: string, body?: object) =>
    adminPost(gateway.adminUrl, adminToken, `tenants/acme/keys${page}`, body);
  const { key } = (await admin('', { id: 'made' })).body as { key: string };
  expect(await ask(bearer(key))).toBe(200);
  expect((await admin('/made/disable')).status).toBe(200);
  expect(await ask(bearer(key))).toBe(401);
  expect(gateway.output()).not.toContain(key);
}

test('T52: a config that is wrong is not read back', () => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-secrets-'));
  const replica = { url: 'http://127.0.0.1:1' };
  const model = { name: 'm', replicas: [replica] };
  const s = secret(0);
  const configs = [
    // A key in the place of its digest, which is what people paste first.
    { models: [model], tenants: [{ name: 't', keys: [{ id: 'k', sha256: s }] }] },
    { models: [model], tenants: [{ name: 't', keys: [{ id: 'k', key: s }] }] },
    { models: [model], tenants: [{ name: 't', keys: s }] },
    { models: [model], admin: { token: [s] } },
    { models: [model], admin: s },
    { models: [{ ...model, replicas: [{ ...replica, api_key: { value: s } }] }] },
    { models: [{ ...model, replicas: [{ ...replica, api_key: `${s}\n` }] }] },
    { models: [{ ...model, replicas: [{ url: `http://user:${s}@127.0.0.1:1` }] }] },
    ...[
      ...[s, [`x-key: ${s}`], { [`x-key: ${s}`]: null }, { [`x-key:${s}`]: '' }, { host: s }],
      ...[{ 'x-key': [s] }, { 'x-key': `${s}\r\nx-other: 1` }, { 'x-key': s, 'X-Key': s }],
    ].map((headers) => ({ models: [{ ...model, replicas: [{ ...replica, headers }] }] })),
    { models: [{ ...model, replicas: [{ ...replica, api_key_header: `x-key: ${s}` }] }] },
  ];
  for (const [i, config] of configs.entries()) {
    const file = join(folder, `${i}.yaml`);
    writeFileSync(file, JSON.stringify(config));
    const run = spawnSync(process.execPath, [mainFile, 'check', '--config', file], {
      encoding: 'utf8',
    });
    expect(run.status, `config ${i}`).not.toBe(0);
    expect(run.stdout + run.stderr, `config ${i}`).not.toMatch(pattern);
  }
  rmSync(folder, { recursive: true, force: true });
});

/** Everything about a request that may be secret is this one. */
const confided = (s: string, key: string): Case => ({
  path: `/v1/chat/completions?api_key=${s}`,
  headers: { ...bearer(key), 'x-api-key': s, cookie: `session=${s}` },
  body: chat(s, { user: s, session_id: s, metadata: { token: s }, stream: true }),
});

const kinds = ['throw', 'exit', 'oom', 'terminate'] as const;

test.each(testEngines)(
  'T52: a dying thread or process writes no secret, engine %s',
  async (engine) => {
    const adminToken = secret(0);
    const apiKey = secret(1);
    const clientKey = secret(2);
    const tenants = [{ name: 'acme', keys: [{ id: 'one', sha256: sha256Of(clientKey) }] }];
    await withReplicas(2, { profile: 'instant', apiKey }, async (replicas) => {
      const headers = { 'x-team-token': secret(99) };
      const rows = replicas.map(({ url }, i) => {
        return { url, name: `r${i + 1}`, api_key: apiKey, headers };
      });
      const more = {
        ...{ listen: { engine }, admin: { token: adminToken } },
        tenants,
        log: { level: 'debug', sample: 1, pretty: 'never' },
      } as const;
      const config = configOf(replicas, more, { replicas: rows });
      await withGateway({ config, env: faultEnv, supervisor: true }, async (gateway) => {
        let sent = 3;
        const strike = async (thread: string, stage: FaultStage, how: CrashKind): Promise<void> => {
          await crash(gateway, thread, stage, how, 0, adminToken);
          const answer = await send(gateway, confided(secret(sent++), clientKey)).catch(
            () => undefined,
          );
          expect(answer?.text ?? '').not.toMatch(pattern);
        };
        for (const [i, how] of kinds.entries()) {
          await strike('forwarder-0', 'sent', how);
          await restarted(gateway, 'forwarder', i + 1);
        }
        await strike('scheduler', 'picked', 'throw');
        // It reads its messages now and then, between two batches.
        const again = async (): Promise<boolean> => {
          await send(gateway, confided(secret(sent++ % 100), clientKey));
          return gateway.output().includes('scheduler died');
        };
        await eventually('the scheduler dies', again);
        await gateway.said('scheduler serves again');
        for (const [i, how] of (['oom', 'terminate'] as const).entries()) {
          await strike('acceptor-0', 'admitted', how);
          await gateway.starts(i + 2);
        }
        expect((await gateway.stop()).code).toBe(0);
        const said = gateway.output();
        expect(said).toContain('injected at sent');
        expect(said).toContain('forwarder-0 died');
        expect(said).toContain('scheduler died');
        const ends = said.match(/the gateway process ended \((SIGABRT|SIGSEGV|exit 1)\)/g);
        expect(ends).toHaveLength(2);
        expect(said).not.toMatch(pattern);
        figure('T52', `${engine}: secrets found after 7 deaths`, 0, `of ${sent}`);
      });
    });
  },
  90_000,
);

/** What a replica says of the request itself (400, 404) is the client's (F11), but for the key. */
test('T52: a replica that repeats its key or a header in an error tells no client', async () => {
  const [apiKey, token] = [secret(0), secret(1)];
  const errors = ['400', '401', '403', '404', '422', '429', '500', '503'];
  const answers = [...errors, 'ok', 'event'];
  const replica = await RawReplica.listen(({ method, headers, body, connection: { socket } }) => {
    if (method === 'GET') return void socket.write(jsonAnswer({ data: [] }));
    const message = `bad key: ${headers.authorization} of ${headers['x-team-token']}`;
    const error = { error: { message, type: 'x', code: 'y' } };
    const how = answers.find((each) => body.includes(`answer=${each}`));
    if (how === 'event') {
      const event = chunk(`data: ${JSON.stringify(error)}\n\n`).toString('latin1');
      return void socket.write(sseHead + event + lastChunk);
    }
    return void socket.write(jsonAnswer(error, how === 'ok' ? 200 : Number(how)));
  });
  const own = { api_key: apiKey, headers: { 'X-Team-Token': `of team ${token}` } };
  const rows = [{ url: replica.url, name: 'r1', ...own }];
  const more = { log: { level: 'debug', sample: 1, pretty: 'never' }, breaker: { window: 1000 } };
  const config = configOf(rows, more as object, { replicas: rows });
  try {
    await withGateway({ config, unquiet: 'its only replica is out' }, async (gateway) => {
      for (const how of answers) {
        const body = chat(`answer=${how}`, { stream: how === 'event' });
        const { isError, text } = await send(gateway, { body });
        expect(isError, how).toBe(true);
        expect(text, how).not.toMatch(pattern);
        if (how !== '400') continue;
        const stars = '*'.repeat(apiKey.length);
        expect(text).toContain(`bad key: Bearer ${stars} of ********${stars}`);
      }
      expect(gateway.output()).not.toMatch(pattern);
    });
  } finally {
    await replica.close();
  }
});

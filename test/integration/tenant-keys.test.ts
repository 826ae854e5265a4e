/**
 * Keys of tenants through the whole gateway: who is let in, what for, what a replica sees of it, and how
 * keys come and go while it serves. Both engines.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { errors } from '../../src/errors/catalogue.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { adminPost } from '../support/admin-post.ts';
import { type GatewayProcess, gatewayProcess, testEngines } from '../support/gateway.ts';
import { logged } from '../support/logged.ts';
import { replicaInProcess } from '../support/replica.ts';
import { chatBody, post } from '../support/scenario.ts';

const token = 'admin-of-keys';
const [full, narrow, old, off, foreign, late] = Array.from({ length: 6 }, newKey) as [
  ...[string, string, string, string, string, string],
];

const bearer = (key: string) => ({ authorization: `Bearer ${key}` });
const code = (text: string): unknown => JSON.parse(text).error.code;

describe.each(testEngines)('keys, engine %s', (engine) => {
  let replica: Replica;
  let gateway: GatewayProcess;

  const file = (more: object = {}): ConfigInput => ({
    listen: { engine },
    admin: { token },
    log: { level: 'info', sample: 1 },
    tenants: [
      {
        name: 'acme',
        keys: [
          { id: 'full', sha256: sha256Of(full) },
          { id: 'narrow', sha256: sha256Of(narrow), models: ['alias-of-m', 'sql'] },
          { id: 'old', sha256: sha256Of(old), expires: '2020-01-01T00:00:00Z' },
          { id: 'off', sha256: sha256Of(off), disabled: true },
        ],
      },
      { name: 'other', models: ['n'], keys: [{ id: 'one', sha256: sha256Of(foreign) }] },
    ],
    models: [
      {
        name: 'm',
        aliases: ['alias-of-m'],
        replicas: [{ url: replica.url, adapters: ['sql', 'hr'] }],
      },
      { name: 'n', replicas: [{ url: replica.url, api_key: 'sk-of-the-replica' }] },
    ],
    ...more,
  });

  beforeAll(async () => {
    replica = await replicaInProcess({ profile: 'instant', recordRequests: true });
    gateway = await gatewayProcess({ config: file() });
  });
  afterAll(async () => {
    await gateway?.finish();
    await replica?.close();
  });

  test.each([
    ['none', {}, errors.KEY_REQUIRED.message],
    ['an unknown one', bearer(newKey()), 'The API key is not known.'],
    ['one whose time is over', bearer(old), 'The API key has expired.'],
    ['one that is off', { 'x-api-key': off }, 'The API key is disabled.'],
  ])('%s is a 401 that no replica hears of', async (_, headers, message) => {
    const before = replica.stats().started;
    const answer = await post(gateway.url, chatBody('x'), headers);
    expect(answer.status).toBe(401);
    expect(JSON.parse(answer.text).error).toEqual({
      ...{ message, type: 'invalid_request_error', param: null, code: 'invalid_api_key' },
    });
    expect(answer.headers.get('www-authenticate')).toBe('Bearer');
    expect(replica.stats().started).toBe(before);
  });

  test('a body of any size is not read for it', async () => {
    const answer = await post(gateway.url, 'x'.repeat(4 * 1024 * 1024));
    expect(answer.status).toBe(401);
  });

  test('Messages API: its own shape of a 401', async () => {
    const answer = await post(
      gateway.url,
      { model: 'm' },
      { 'x-api-key': 'sk-ant-x' },
      '/v1/messages',
    );
    expect(answer.status).toBe(401);
    expect(JSON.parse(answer.text)).toMatchObject({
      type: 'error',
      error: { type: 'authentication_error', message: 'The API key is not known.' },
    });
  });

  test.each([
    [full, 'm', 200],
    [full, 'sql', 200],
    [narrow, 'm', 200],
    [narrow, 'alias-of-m', 200],
    [narrow, 'sql', 200],
    [narrow, 'n', 403],
    [foreign, 'n', 200],
    [foreign, 'm', 403],
    [foreign, 'sql', 403],
    [foreign, 'nobody', 404],
  ])('what a key may ask for (%#)', async (key, name, status) => {
    const answer = await post(gateway.url, chatBody('x', { model: name }), bearer(key));
    expect([answer.status, answer.status === 403 ? code(answer.text) : '']).toEqual([
      status,
      status === 403 ? 'model_not_allowed' : '',
    ]);
  });

  test('a model named twice does not get past it', async () => {
    const body = '{"model":"n","model":"m","messages":[{"role":"user","content":"x"}]}';
    expect((await post(gateway.url, body, bearer(foreign))).status).toBe(400);
  });

  test('the list of models is that of the key', async () => {
    const ids = async (key: string): Promise<unknown> => {
      const response = await fetch(`${gateway.url}/v1/models`, { headers: bearer(key) });
      const { data } = (await response.json()) as { data: { id: string }[] };
      return data.map(({ id }) => id);
    };
    expect(await ids(full)).toEqual(['m', 'alias-of-m', 'sql', 'hr', 'n']);
    expect(await ids(foreign)).toEqual(['n']);
    const one = await fetch(`${gateway.url}/v1/models/m`, { headers: bearer(foreign) });
    expect(one.status).toBe(404);
    for (const path of ['/v1/models', '/v1/models/m']) {
      expect((await fetch(gateway.url + path)).status).toBe(401);
    }
  });

  test('a page in a browser: asks whether it may, and can read what it is told', async () => {
    const origin = { origin: 'https://chat.example' };
    const url = `${gateway.url}/v1/chat/completions`;
    const preflight = await fetch(url, {
      method: 'OPTIONS',
      headers: { ...origin, 'access-control-request-headers': 'authorization,x-api-key' },
    });
    expect(preflight.status).toBe(204);
    expect(preflight.headers.get('access-control-allow-methods')).toContain('POST');
    expect(preflight.headers.get('access-control-allow-headers')).toBe('*, authorization');
    for (const [key, status] of [
      [full, 200],
      [newKey(), 401],
      [foreign, 403],
    ] as const) {
      const answer = await post(gateway.url, chatBody('x'), { ...origin, ...bearer(key) });
      expect(answer.status).toBe(status);
      expect(answer.headers.get('access-control-allow-origin')).toBe('*');
      const exposed = answer.headers.get('access-control-expose-headers')?.split(', ');
      const wanted = ['x-request-id', 'request-id', 'retry-after-ms', 'x-should-retry'];
      expect(exposed).toEqual(expect.arrayContaining(wanted));
      // No cookie is sent along, so the key is all that lets in.
      expect(answer.headers.get('access-control-allow-credentials')).toBe(null);
    }
  });

  test('probes need none', async () => {
    for (const path of ['/healthz', '/readyz']) {
      expect((await fetch(gateway.url + path)).status, path).toBe(200);
    }
  });

  test('no replica sees a key of a client, and the log has its id alone', async () => {
    for (const [name, id] of [
      ['m', 'to-m'],
      ['n', 'to-n'],
    ] as const) {
      const headers = { ...bearer(full), 'x-request-id': `${id}-${engine}` };
      expect((await post(gateway.url, chatBody('x', { model: name }), headers)).status).toBe(200);
      const { head } = replica.ledger().find(({ id: of }) => of === `${id}-${engine}`)!;
      expect(head).not.toContain(full);
      expect(/^authorization:.*$/im.exec(head)?.[0] ?? '').toBe(
        name === 'n' ? 'authorization: Bearer sk-of-the-replica' : '',
      );
      const line = await logged(gateway, `${id}-${engine}`);
      expect(line).toMatchObject({ tenant: 'acme', key_id: 'full', status: 200 });
    }
    for (const key of [full, narrow, old, off, foreign]) {
      expect(gateway.output()).not.toContain(key);
      expect(gateway.output()).not.toContain(sha256Of(key));
    }
  });

  test('a reload that reorders adapters gives no key another one', async () => {
    const { tenants, models } = file();
    const [m, n] = models as [object, object];
    const [first] = (m as { replicas: object[] }).replicas as [{ url: string }];
    gateway.writeConfig(
      file({ tenants, models: [{ ...m, replicas: [{ ...first, adapters: ['hr', 'sql'] }] }, n] }),
    );
    expect((await adminPost(gateway.adminUrl, token, 'reload')).status).toBe(200);
    const ask = async (name: string) =>
      (await post(gateway.url, chatBody('x', { model: name }), bearer(narrow))).status;
    expect([await ask('sql'), await ask('hr')]).toEqual([200, 403]);
    gateway.writeConfig(file());
    expect((await adminPost(gateway.adminUrl, token, 'reload')).status).toBe(200);
  });

  test('keys come, go and change with a reload and by the admin listener', async () => {
    const ask = async (key: string) => (await post(gateway.url, chatBody('x'), bearer(key))).status;
    const admin = (page: string, body?: object) => adminPost(gateway.adminUrl, token, page, body);
    expect(await ask(late)).toBe(401);
    const { tenants } = file();
    gateway.writeConfig(
      file({ tenants: [{ name: 'acme', keys: [{ id: 'late', sha256: sha256Of(late) }] }] }),
    );
    expect((await admin('reload')).status).toBe(200);
    expect([await ask(late), await ask(full)]).toEqual([200, 401]);

    const made = await admin('tenants/acme/keys', { id: 'made', models: ['m'] });
    expect(made.status).toBe(201);
    const { key, sha256 } = made.body as { key: string; sha256: string };
    expect(sha256).toBe(sha256Of(key));
    expect(await ask(key)).toBe(200);
    expect((await admin('tenants/acme/keys', { id: 'made' })).status).toBe(409);
    expect((await admin('tenants/acme/keys', { id: 'a b' })).status).toBe(400);
    expect((await admin('tenants/nobody/keys', { id: 'x' })).status).toBe(404);
    expect((await admin('tenants/acme/keys/made/disable')).status).toBe(200);
    expect(await ask(key)).toBe(401);
    expect((await admin('tenants/acme/keys/made/enable')).status).toBe(200);
    expect(await ask(key)).toBe(200);
    expect((await admin('tenants/acme/keys/none/disable')).status).toBe(404);
    const page = await fetch(`${gateway.adminUrl}/admin/tenants`, { headers: bearer(token) });
    const text = await page.text();
    expect(JSON.parse(text)).toMatchObject({
      keys_required: true,
      tenants: [{ name: 'acme', keys: [{ id: 'late' }, { id: 'made', state: 'active' }] }],
    });
    for (const secret of [key, late, sha256]) expect(text).not.toContain(secret);

    expect((await admin('tenants/acme/keys/late/disable')).status).toBe(200);
    expect((await admin('reload')).status).toBe(200);
    expect(
      [await ask(key), await ask(late)],
      'made by hand it is gone, disabled it stays so',
    ).toEqual([401, 401]);
    gateway.writeConfig(file({ tenants: tenants ?? [] }));
    expect((await admin('reload')).status).toBe(200);
    expect([await ask(key), await ask(late), await ask(full)]).toEqual([401, 401, 200]);
  });
});

/**
 * T52: secrets go in by every way a client, an operator or a replica has, and come out by none that
 * others read: logs of every level, metrics, cluster page, slot table, explanations, answers to others.
 */
import { expect, test } from 'vitest';
import { figure } from '../support/figures.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { configOf, withReplicas } from '../support/scenario.ts';
import { crash, faultEnv, restarted } from '../support/thread-faults.ts';
import { call } from '../support/traffic.ts';

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

async function send(gateway: GatewayProcess, { path, method, headers, body }: Case): Promise<void> {
  const response = await fetch(gateway.url + (path ?? '/v1/chat/completions'), {
    method: method ?? 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    ...(body !== undefined && { body }),
  });
  await response.text().catch(() => '');
}

test.each(testEngines)('T52: secrets stay where they went, engine %s', async (engine) => {
  const adminToken = secret(cases.length);
  const apiKey = secret(cases.length + 1);
  await withReplicas(2, { profile: 'instant', apiKey }, async (replicas) => {
    const rows = replicas.map(({ url }, i) => ({ url, name: `r${i + 1}`, api_key: apiKey }));
    const more = {
      ...{ listen: { engine }, admin: { token: adminToken } },
      log: { level: 'debug', sample: 1, pretty: 'never' },
    } as const;
    const config = configOf(replicas, more, { replicas: rows });
    await withGateway({ config, env: { ...faultEnv } }, async (gateway) => {
      for (const [n, of] of cases.entries()) await send(gateway, of(secret(n)));
      // A thread dies with a prompt in its hands.
      const last = secret(cases.length + 2);
      const held = call(gateway.port, {
        nonce: 'held',
        stream: true,
        tags: `[[fault:hold-after=0]] ${last}`,
      });
      await crash(gateway, 'forwarder-0', 'sent', 'throw', 0, adminToken);
      const struck = call(gateway.port, { nonce: 'struck', stream: true, tags: last });
      await restarted(gateway, 'forwarder', 1);
      for (const replica of replicas) replica.gate.release();
      await Promise.all([held.ended, struck.ended]);
      const pages = ['/metrics', '/v1/cluster', '/admin/slots', '/admin/explain/held', '/healthz'];
      const authorized = { headers: { authorization: `Bearer ${adminToken}` } };
      for (const page of pages) {
        const text = await (await fetch(gateway.adminUrl + page, authorized)).text();
        expect(text, page).not.toMatch(pattern);
      }
      const wrong = { headers: { authorization: `Bearer ${secret(99)}` }, method: 'POST' };
      const refused = await fetch(`${gateway.adminUrl}/admin/reload`, wrong);
      expect(refused.status).toBe(401);
      expect(await refused.text()).not.toMatch(pattern);
      const models = await (await fetch(`${gateway.url}/v1/models`)).text();
      expect(models).not.toMatch(pattern);
      expect((await gateway.stop()).code).toBe(0);
      expect(gateway.output()).toContain('"req_id"');
      expect(gateway.output()).not.toMatch(pattern);
    });
  });
  figure('T52', 'secrets found', 0, `of ${cases.length + 4}`);
});

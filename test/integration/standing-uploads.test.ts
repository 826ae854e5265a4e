/**
 * Uploads that stand still: a tenant with a `concurrency` limit holds no more slots by them than it may have
 * requests, and others are served. Both engines.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { adminPost } from '../support/admin-post.ts';
import { type GatewayProcess, gatewayProcess, testEngines } from '../support/gateway.ts';
import { RawClient } from '../support/raw-client.ts';
import { replicaInProcess } from '../support/replica.ts';
import { chatBody, chatPath, post } from '../support/scenario.ts';
import { eventually } from '../support/until.ts';

const slots = 32;
const token = 'uploads';
const keys = { a: newKey(), b: newKey() };
const bearer = (who: keyof typeof keys) => ({ authorization: `Bearer ${keys[who]}` });

describe.each(testEngines)('uploads that stand still, engine %s', (engine) => {
  let replica: Replica;
  let gateway: GatewayProcess;
  const open: RawClient[] = [];

  const file = (most: number): ConfigInput => ({
    listen: { engine },
    admin: { token },
    memory: { slots },
    tenants: (['a', 'b'] as const).map((name) => ({
      ...{ name, limits: { concurrency: name === 'a' ? most : 4 } },
      keys: [{ id: 'one', sha256: sha256Of(keys[name]) }],
    })),
    models: [{ name: 'm', replicas: [{ url: replica.url }] }],
  });
  beforeAll(async () => {
    replica = await replicaInProcess({ profile: 'instant' });
    gateway = await gatewayProcess({ config: file(1) });
  });
  afterAll(async () => {
    for (const { socket } of open) socket.destroy();
    await gateway?.finish();
    await replica?.close();
  });

  const body = JSON.stringify(chatBody('x'));
  /** All but the last byte of it. */
  async function begin(who: keyof typeof keys, isChunked = false): Promise<RawClient> {
    const client = await RawClient.connect(gateway.port);
    open.push(client);
    const part = body.slice(0, -1);
    const [framing, bytes] = isChunked
      ? ['transfer-encoding: chunked', `${part.length.toString(16)}\r\n${part}\r\n`]
      : [`content-length: ${body.length}`, part];
    await client.send(
      `POST ${chatPath} HTTP/1.1\r\nhost: t\r\nauthorization: Bearer ${keys[who]}\r\n` +
        `content-type: application/json\r\n${framing}\r\n\r\n${bytes}`,
    );
    return client;
  }
  async function slotsInUse(): Promise<number> {
    const answer = await fetch(`${gateway.adminUrl}/admin/slots`, {
      headers: { authorization: `Bearer ${token}` },
    });
    return ((await answer.json()) as { rows: unknown[] }).rows.length;
  }
  const statusOf = async (client: RawClient): Promise<number | undefined> =>
    (await client.responses(1)).responses[0]?.status;
  const isServed = async (who: keyof typeof keys): Promise<boolean> =>
    (await post(gateway.url, chatBody('y'), bearer(who))).status === 200;

  test('one tenant takes no slots beyond its limit, the other is served', async () => {
    const first = await begin('a');
    await eventually('it is being read', async () => (await slotsInUse()) === 1);
    for (let i = 0; i < slots + 8; i++) {
      const more = await begin('a', i % 2 === 0);
      const { responses } = await more.responses(1);
      expect(responses[0]).toMatchObject({ status: 429, complete: true });
      expect(JSON.parse(responses[0]!.body.toString()).error.code).toBe('rate_limit_exceeded');
      expect(responses[0]?.headers.get('retry-after')).toBe('1');
    }
    expect(await slotsInUse()).toBe(1);
    for (let i = 0; i < 8; i++) expect(await isServed('b')).toBe(true);
    expect((await post(gateway.url, chatBody('y'), bearer('a'))).status).toBe(429);
    await first.send(body.slice(-1));
    expect(await statusOf(first)).toBe(200);
    for (let i = 0; i < 8; i++) expect(await isServed('a')).toBe(true);
  });

  test('one that leaves amid its body gives its place back', async () => {
    for (let i = 0; i < 4; i++) {
      const client = await begin('a', i % 2 === 0);
      await eventually('it is being read', async () => (await slotsInUse()) === 1);
      client.socket.destroy();
      await eventually('its slot is free', async () => (await slotsInUse()) === 0);
      expect(await isServed('a')).toBe(true);
    }
  });

  test('a body that is refused gives its place back', async () => {
    for (let i = 0; i < 4; i++) {
      const answer = await fetch(`${gateway.url}${chatPath}`, {
        ...{ method: 'POST', body: '{"model":', headers: bearer('a') },
      });
      expect(answer.status).toBe(400);
    }
    expect(await isServed('a')).toBe(true);
  });

  test('a reload counts at once', async () => {
    const first = await begin('a');
    await eventually('it is being read', async () => (await slotsInUse()) === 1);
    gateway.writeConfig(file(2));
    expect((await adminPost(gateway.adminUrl, token, 'reload')).status).toBe(200);
    expect(await isServed('a')).toBe(true);
    gateway.writeConfig(file(1));
    expect((await adminPost(gateway.adminUrl, token, 'reload')).status).toBe(200);
    expect(await isServed('a')).toBe(false);
    await first.send(body.slice(-1));
    expect(await statusOf(first)).toBe(200);
    expect(await isServed('a')).toBe(true);
  });
});

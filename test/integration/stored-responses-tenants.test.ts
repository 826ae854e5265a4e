/**
 * Stored responses of two tenants, a table that is full and a replica that dies: what the gateway says of
 * responses that it does not give. Four replicas, both engines.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import { adminPost } from '../support/admin-post.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { logged } from '../support/logged.ts';
import { replicaInProcess, withReplicas } from '../support/replica.ts';
import { quickHealth } from '../support/scenario.ts';
import {
  ask,
  bearer,
  count,
  create,
  get,
  makerOf,
  names,
  ResponsesScene,
  servedBy,
  startAll,
  token,
} from '../support/stored-responses.ts';
import { reached } from '../support/traffic.ts';

const [alice, alicesNarrow, bob] = Array.from({ length: 3 }, newKey) as [string, string, string];

describe.each(testEngines)('with keys, engine %s', (engine) => {
  let scene: ResponsesScene;
  let gateway: GatewayProcess;
  beforeAll(async () => {
    scene = await ResponsesScene.start(engine, {
      tenants: [
        {
          name: 'alice',
          keys: [
            { id: 'all', sha256: sha256Of(alice) },
            { id: 'narrow', sha256: sha256Of(alicesNarrow), models: ['other'] },
          ],
          limits: { requests_per_minute: 1000 },
        },
        { name: 'bob', keys: [{ id: 'one', sha256: sha256Of(bob) }] },
      ],
    });
    gateway = scene.gateway;
  });
  afterAll(() => scene?.close());

  test('a tenant has its own, and nothing tells it of those of another', async () => {
    const { url } = gateway;
    const unknown = (await get(url, 'resp_nobodys', bearer(bob))).body;
    for (let i = 0; i < 8; i++) {
      const { id } = (await create(url, {}, bearer(alice))).body;
      expect((await get(url, id, bearer(alice))).status).toBe(200);
      const before = scene.replicas.map((replica) => replica.stats().started);
      for (const [method, path] of [
        ['GET', ''],
        ['GET', '?stream=true'],
        ['GET', '/input_items'],
        ['POST', '/cancel'],
        ['DELETE', ''],
      ] as const) {
        const answer = await ask(url, method, `/v1/responses/${id}${path}`, undefined, bearer(bob));
        expect([answer.status, answer.body], `${method} ${path}`).toEqual([404, unknown]);
        expect(servedBy(answer)).toBe(null);
      }
      const next = await create(url, { previous_response_id: id }, bearer(bob));
      expect([next.status, next.body.error?.message]).toEqual([404, unknown.error?.message]);
      expect(scene.replicas.map((replica) => replica.stats().started)).toEqual(before);
      expect((await get(url, id, bearer(alice))).status).toBe(200);
      expect((await get(url, id)).status).toBe(401);
    }
  });

  test('a key must be allowed what the response was asked for as', async () => {
    const { url } = gateway;
    const { id } = (await create(url, {}, bearer(alice))).body;
    const { id: others } = (await create(url, { model: 'other' }, bearer(alice))).body;
    const refused = await get(url, id, bearer(alicesNarrow));
    expect([refused.status, refused.body.error?.code]).toEqual([403, 'model_not_allowed']);
    expect((await get(url, others, bearer(alicesNarrow))).status).toBe(200);
    const next = await create(
      url,
      { previous_response_id: id, model: 'other' },
      bearer(alicesNarrow),
    );
    expect([next.status, next.body.error?.code]).toEqual([403, 'model_not_allowed']);
  });

  test('no client names the id under which a response is stored', async () => {
    const { url } = gateway;
    const { id } = (await create(url, {}, bearer(alice))).body;
    const stolen = await create(url, { request_id: id }, bearer(bob));
    expect([stolen.status, stolen.body.error]).toMatchObject([
      400,
      { code: 'unsupported_parameter', param: 'request_id' },
    ]);
    expect((await create(url, { request_id: null }, bearer(bob))).status).toBe(200);
  });

  test('requests by id are of the limits and the log of their tenant', async () => {
    const { url } = gateway;
    const { id } = (await create(url, {}, bearer(alice))).body;
    const requestId = `of-alice-${engine}`;
    const got = await get(url, id, { ...bearer(alice), 'x-request-id': requestId });
    expect(got.headers.get('x-ratelimit-limit-requests')).toBe('1000');
    expect(await logged(gateway, requestId)).toMatchObject({
      tenant: 'alice',
      key_id: 'all',
      model: 'm',
    });
  });

  test('a reload that puts the tenants in another order gives nobody the responses of another', async () => {
    const { url } = gateway;
    const { id } = (await create(url, {}, bearer(alice))).body;
    const { tenants } = scene.file();
    gateway.writeConfig(scene.file({ tenants: tenants!.toReversed() }));
    expect((await adminPost(gateway.adminUrl, token, 'reload')).status).toBe(200);
    expect((await get(url, id, bearer(alice))).status).toBe(200);
    expect((await get(url, id, bearer(bob))).status).toBe(404);
  });

  test('an unknown id is asked of nobody, although only one replica could have it', async () => {
    const next = await create(
      gateway.url,
      { model: 'other', previous_response_id: 'resp_d-9' },
      bearer(bob),
    );
    expect([next.status, servedBy(next)]).toEqual([404, null]);
  });
});

test('the table forgets the oldest, never more than it must, and the gateway says so', async () => {
  const replicas = await startAll();
  const models = [{ name: 'm', replicas: replicas.map(({ url }, i) => ({ url, name: names[i] })) }];
  await withGateway({ config: { memory: { responses: 16 }, models } }, async (gateway) => {
    const ids: string[] = [];
    for (let i = 0; i < 60; i++) ids.push((await create(gateway.url)).body.id);
    const statuses = await Promise.all(ids.map(async (id) => (await get(gateway.url, id)).status));
    const known = statuses.filter((status) => status === 200).length;
    expect(new Set(statuses)).toEqual(new Set([200, 404]));
    expect(known).toBe(16);
    expect(statuses.at(-1)).toBe(200);
    expect(await count(gateway, 'evicted')).toBe(60 - 16);
  });
  for (const replica of replicas) await replica.close();
});

test('after the replica has died: 503, and once it is back what the replica says', async () => {
  await withReplicas(1, { name: 'a' }, async ([first]) => {
    const second = await replicaInProcess({ name: 'b' });
    const config: ConfigInput = {
      // A probe of the one that lives may be slow on a busy machine; the dead one refuses at once.
      health: { ...quickHealth, unhealthy_after: 1 },
      models: [
        {
          name: 'm',
          replicas: [
            { url: first!.url, name: 'a' },
            { url: second.url, name: 'b' },
          ],
        },
      ],
    };
    await withGateway({ config }, async (gateway) => {
      let id = '';
      while (makerOf(id) !== 'a') id = (await create(gateway.url)).body.id;
      await first!.kill();
      const cluster = async () => (await gateway.cluster()).replicas;
      const isDead = ({ name, healthy }: { name: string; healthy: boolean }): boolean =>
        name === 'a' && !healthy;
      await reached(cluster, (all) => all.some(isDead), 'the dead one is seen');
      for (const answer of [
        await get(gateway.url, id),
        await create(gateway.url, { previous_response_id: id }),
      ]) {
        expect([answer.status, answer.body.error?.code]).toEqual([503, 'response_unavailable']);
        expect(answer.headers.get('retry-after')).not.toBe(null);
      }
      expect(servedBy(await create(gateway.url))).toBe('b');
      const port = Number(new URL(first!.url).port);
      await withReplicas(1, { name: 'a', port }, async () => {
        await reached(cluster, (all) => all.every(({ healthy }) => healthy), 'it is back');
        const got = await get(gateway.url, id);
        expect([got.status, servedBy(got)]).toEqual([404, 'a']);
        expect(got.body.error?.message).toContain(`'${id}' not found`);
      });
    });
    await second.close();
  });
});

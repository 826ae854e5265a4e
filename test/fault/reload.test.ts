/** SIGHUP and POST /admin/reload: what a new file may change, and what happens to a wrong one. */
import { rmSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import type { LoadResult } from '../../src/load/generator.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { adminPost } from '../support/admin-post.ts';
import {
  expectQuiet,
  type GatewayProcess,
  gatewayProcess,
  withGateway,
} from '../support/gateway.ts';
import { replicaInProcess } from '../support/replica.ts';
import {
  chatBody,
  chatSeries,
  load,
  model,
  openStream,
  post,
  quickHealth,
  untilReplica,
  withReplicas,
} from '../support/scenario.ts';
import { readSse } from '../support/sse-ledger.ts';

const token = 'reload-token';
const profile = 'uniform:2ms-6ms';
type ReplicaRow = ConfigInput['models'][number]['replicas'][number];

/** The file of these tests; every test changes its replicas. */
function file(replicas: readonly ReplicaRow[], more: Omit<ConfigInput, 'models'> = {}) {
  return {
    admin: { token },
    log: { level: 'info' as const },
    ...more,
    models: [{ name: model, policy: 'round_robin' as const, replicas: [...replicas] }],
  };
}

const row = (name: string, { url }: Replica, more: Partial<ReplicaRow> = {}): ReplicaRow => ({
  name,
  url,
  ...more,
});

/** SIGHUP; resolves with what the log then says, once that holds the message. */
async function hangUp(gateway: GatewayProcess, message: string): Promise<string> {
  const from = gateway.output().length;
  const said = (): string => gateway.output().slice(from);
  gateway.kill('SIGHUP');
  await expect.poll(said, { interval: 10, timeout: 5000 }).toContain(message);
  return said();
}

const change = (gateway: GatewayProcess, page: string, body?: object) =>
  adminPost(gateway.adminUrl, token, page, body);

const reload = (gateway: GatewayProcess) => change(gateway, 'reload');

const servedBy = (replicas: readonly Replica[]): number =>
  replicas.reduce((sum, replica) => sum + replica.stats().served, 0);

/** Every request was answered 200, and by one replica once. */
function expectNothingLost({ metrics }: LoadResult, replicas: readonly Replica[]): void {
  expect(metrics.failed).toBe(0);
  expect([...metrics.statuses.keys()]).toEqual([200]);
  expect(servedBy(replicas)).toBe(metrics.sent);
  for (const replica of replicas) {
    expect(replica.stats()).toMatchObject({ aborted: 0, failed: 0, ids_repeated: 0 });
  }
}

test('SIGHUP under load adds one replica and removes another, and nothing is lost', async () => {
  await withReplicas(3, { profile }, async (replicas) => {
    const [a, b, c] = replicas as [Replica, Replica, Replica];
    await withGateway({ config: file([row('a', a), row('b', b)]) }, async (gateway) => {
      const running = load(gateway, { durationMs: 2000, connections: 24 });
      await a.until(({ served }) => served > 100);
      gateway.writeConfig(file([row('b', b), row('c', c)]));
      await hangUp(gateway, 'config reloaded');
      await c.until(({ served }) => served > 100);
      expectNothingLost(await running, replicas);
      const { replicas: shown } = await gateway.cluster();
      expect(shown.map(({ name }) => name)).toEqual(['b', 'c']);
      const before = a.stats().started;
      for (let i = 0; i < 10; i++) await post(gateway.url, chatBody('x'));
      expect(a.stats().started).toBe(before);
      await expectQuiet(gateway);
    });
  });
});

test('replicas come and go twenty times under load, and nothing is lost', async () => {
  await withReplicas(3, { profile }, async (replicas) => {
    const [a, b, c] = replicas as [Replica, Replica, Replica];
    const first = file([row('a', a), row('b', b)]);
    const second = file([row('b', b), row('c', c)]);
    await withGateway({ config: first }, async (gateway) => {
      const running = load(gateway, { durationMs: 3000, connections: 24 });
      for (let i = 0; i < 20; i++) {
        gateway.writeConfig(i % 2 === 0 ? second : first);
        expect(await reload(gateway)).toMatchObject({ status: 200 });
      }
      expectNothingLost(await running, replicas);
      await expectQuiet(gateway);
      const { replicas: shown } = await gateway.cluster();
      expect(shown.map(({ name }) => name).toSorted()).toEqual(['a', 'b']);
    });
  });
});

test('the only replica of a model moves to another address, and nothing is lost', async () => {
  await withReplicas(2, { profile }, async (replicas) => {
    const [old, young] = replicas as [Replica, Replica];
    await withGateway({ config: file([row('a', old)]) }, async (gateway) => {
      const length = 100;
      const prompt = `nonce=n [[len=${length}]]`;
      const body = chatBody(`${prompt} [[fault:hold-after=3]]`, { max_tokens: length });
      const stream = await openStream(gateway.url, body);
      await stream.until((text) => text.includes(':2:'));
      const running = load(gateway, { durationMs: 1500, connections: 16 });
      await old.until(({ served }) => served > 50);
      gateway.writeConfig(file([row('a', young)]));
      // The held stream keeps the old replica busy: the reload does not wait for it.
      expect(await reload(gateway)).toEqual({
        status: 200,
        body: { added: [], replaced: ['a'], reweighed: [], removed: [], changed: [] },
      });
      await young.until(({ served }) => served > 50);
      const { replicas: shown } = await gateway.cluster();
      expect(shown.map(({ name, state, url }) => ({ name, state, url }))).toEqual([
        { name: 'a', state: 'active', url: young.url },
        { name: 'a', state: 'draining', url: old.url },
      ]);
      const { metrics } = await running;
      expect(metrics.failed).toBe(0);
      expect(servedBy(replicas)).toBe(metrics.sent);
      old.gate.release();
      const { text, cut } = await stream.ended;
      const series = chatSeries(`${prompt} [[fault:hold-after=3]]`);
      expect(cut).toBe(false);
      expect(readSse(new TextEncoder().encode(text), series)).toMatchObject({
        ...{ tokens: length, exact: true, sawDone: true },
      });
      await expect.poll(async () => (await gateway.cluster()).replicas.length).toBe(1);
      await expectQuiet(gateway);
    });
  });
});

/** Four clients that ask again and again until they are stopped. */
function startTraffic(gateway: GatewayProcess): { stop(): Promise<number[]> } {
  let stopped = false;
  const statuses: number[] = [];
  const client = async (): Promise<void> => {
    while (!stopped) statuses.push((await post(gateway.url, chatBody('x [[len=1]]'))).status);
  };
  const clients = Promise.all([client(), client(), client(), client()]);
  clients.catch(() => {}); // a test that failed has closed the gateway
  return {
    async stop() {
      stopped = true;
      await clients;
      return statuses;
    },
  };
}

/** What the probe of a server says while it loads its model. */
const loading = [{ fault: 'status=503', on: 'models' as const }];
const rowsOf = async (gateway: GatewayProcess): Promise<object[]> =>
  (await gateway.cluster()).replicas.map(({ name, url, state }) => ({ name, url, state }));

test.each([
  ['the replica moves to a server', 'a'],
  ['the replica is removed and another added, on a server', 'b'],
])('%s that still loads its model: the old one serves until that is done', async (_, name) => {
  await withReplicas(2, { profile }, async (replicas) => {
    const [old, young] = replicas as [Replica, Replica];
    young.setFaults(loading);
    const more = { health: quickHealth };
    await withGateway({ config: file([row('a', old)], more) }, async (gateway) => {
      const traffic = startTraffic(gateway);
      await old.until(({ served }) => served > 50);
      gateway.writeConfig(file([row(name, young)], more));
      expect((await reload(gateway)).status).toBe(200);
      const { served } = old.stats();
      for (let i = 0; i < 20; i++) {
        expect((await post(gateway.url, chatBody('x'))).status).toBe(200);
      }
      expect(old.stats().served).toBeGreaterThanOrEqual(served + 20);
      expect(await rowsOf(gateway)).toEqual([
        { name, url: young.url, state: 'active' },
        { name: 'a', url: old.url, state: 'active' },
      ]);
      young.setFaults([]);
      await young.until((stats) => stats.served > 50);
      await expect.poll(() => rowsOf(gateway)).toHaveLength(1);
      const statuses = await traffic.stop();
      expect(new Set(statuses)).toEqual(new Set([200]));
      expect(servedBy(replicas)).toBe(statuses.length + 20);
    });
  });
});

test('a replica leaves at once when another of its model is healthy', async () => {
  await withReplicas(3, {}, async (replicas) => {
    const [a, b, young] = replicas as [Replica, Replica, Replica];
    young.setFaults(loading);
    await withGateway({ config: file([row('a', a), row('b', b)]) }, async (gateway) => {
      gateway.writeConfig(file([row('a', young), row('b', b)]));
      expect((await reload(gateway)).status).toBe(200);
      await expect.poll(() => rowsOf(gateway)).toHaveLength(2);
      expect((await post(gateway.url, chatBody('x'))).status).toBe(200);
      expect(b.stats().served).toBe(1);
    });
  });
});

test('a weight of 0 takes a replica out of use, and its row stays', async () => {
  await withReplicas(2, {}, async ([a, b]) => {
    await withGateway({ config: file([row('a', a!), row('b', b!)]) }, async (gateway) => {
      gateway.writeConfig(file([row('a', a!, { weight: 0 }), row('b', b!)]));
      expect(await reload(gateway)).toMatchObject({ status: 200, body: { reweighed: ['a'] } });
      for (let i = 0; i < 10; i++) {
        const answer = await post(gateway.url, chatBody('x'));
        expect(answer.headers.get('x-sluice-replica')).toBe('b');
      }
      expect((await gateway.cluster()).replicas[0]).toMatchObject({ name: 'a', weight: 0 });
    });
  });
});

test('a replica that is being removed cannot be taken back, and one that was not drained in time can', async () => {
  await withReplicas(2, {}, async ([a, b]) => {
    const config = file([row('a', a!), row('b', b!)], { drain: { timeout: '3s' } });
    await withGateway({ config }, async (gateway) => {
      const ask = async (action: string): Promise<unknown> => {
        const { status, body } = await change(gateway, `replicas/a/${action}`);
        return [status, (body as { state?: string }).state];
      };
      const held = Promise.all([0, 1].map(() => post(gateway.url, chatBody('[[hold]]'))));
      await a!.gate.arrivals(1);
      const removal = ask('remove');
      await untilReplica(gateway, 'a', ({ state }) => state === 'draining');
      expect(await ask('undrain')).toEqual([409, undefined]);
      expect(await removal).toEqual([409, undefined]);
      expect(await ask('undrain')).toEqual([200, 'active']);
      const again = ask('remove');
      await untilReplica(gateway, 'a', ({ state }) => state === 'draining');
      expect(await ask('undrain')).toEqual([409, undefined]);
      for (const replica of [a!, b!]) replica.gate.release();
      expect(await again).toEqual([200, 'removed']);
      for (const { status } of await held) expect(status).toBe(200);
    });
  });
});

test('a reload brings back what the admin listener had removed', async () => {
  await withReplicas(2, {}, async ([a, b]) => {
    await withGateway({ config: file([row('a', a!), row('b', b!)]) }, async (gateway) => {
      expect((await change(gateway, 'replicas/a/remove')).status).toBe(200);
      expect(await reload(gateway)).toMatchObject({ status: 200, body: { added: ['a'] } });
      await untilReplica(gateway, 'a', ({ healthy, state }) => healthy && state === 'active');
    });
  });
});

test.runIf(process.platform === 'linux')(
  'replicas that do not fit the descriptor limit are refused',
  async () => {
    const tight = { listen: { max_connections: 50 } };
    const wrapper = ['prlimit', '--nofile=400:400'];
    await withReplicas(2, {}, async ([a, b]) => {
      // 50 clients, 128 of its own and 10 for `a` leave 212 of 400.
      const config = file([row('a', a!, { max_in_flight: 8 })], tight);
      await withGateway({ config, wrapper }, async (gateway) => {
        const refusal = {
          status: 409,
          body: { error: { message: expect.stringMatching(/up to 438 open files.*limit is 400/) } },
        };
        const added = row('b', b!, { max_in_flight: 200 });
        expect(await change(gateway, 'replicas', { ...added, model })).toMatchObject(refusal);
        gateway.writeConfig(file([row('a', a!, { max_in_flight: 8 }), added], tight));
        expect(await reload(gateway)).toMatchObject(refusal);
        expect(await rowsOf(gateway)).toEqual([{ name: 'a', url: a!.url, state: 'active' }]);
        // Replaced, both are there for a time: 10 + 200 fit, 200 + 202 do not.
        gateway.writeConfig(file([row('a', a!, { max_in_flight: 160 })], tight));
        expect(await reload(gateway)).toMatchObject({ status: 200 });
        await expect.poll(() => rowsOf(gateway)).toHaveLength(1);
        gateway.writeConfig(file([row('a', a!, { max_in_flight: 161 })], tight));
        expect((await reload(gateway)).status).toBe(409);
        expect((await post(gateway.url, chatBody('x'))).status).toBe(200);
      });
    });
  },
);

describe('a file that cannot be applied leaves the old state alone', () => {
  let replica: Replica;
  let gateway: GatewayProcess;
  const good = () => file([row('a', replica)]);

  beforeAll(async () => {
    replica = await replicaInProcess({ profile });
    gateway = await gatewayProcess({ config: good() });
  });

  afterAll(async () => {
    await gateway.finish();
    await replica.close();
  });

  const cases: readonly [string, () => void, RegExp][] = [
    ['bad YAML', () => gateway.writeConfig('models: [\n  { name: m,'), /sluice\.yaml:\d+:\d+/],
    [
      'an unknown key',
      () => gateway.writeConfig({ ...good(), timeuots: {} } as ConfigInput),
      /sluice\.yaml:\d+:\d+ timeuots: unknown key \(did you mean \\"timeouts\\"\?\)/,
    ],
    [
      'no replica left',
      () => gateway.writeConfig('models: [{ name: m, replicas: [] }]'),
      /sluice\.yaml:1:\d+ models\.0\.replicas/,
    ],
    [
      'a key that needs a restart',
      () => gateway.writeConfig({ ...good(), queue: { max: 1 } }),
      /these keys need a restart: queue\.max/,
    ],
    [
      'a model more',
      () => {
        const { models, ...rest } = good();
        const more = { name: 'n', replicas: [{ url: replica.url }] };
        gateway.writeConfig({ ...rest, models: [...models, more] });
      },
      /these keys need a restart: models\.1/,
    ],
    [
      'more replicas at once than the table has rows',
      () => {
        // The table holds 256: there is no room for another `a` beside the one that serves.
        const more = Array.from({ length: 255 }, (_, i) => ({ url: `http://127.0.0.1:${i + 1}` }));
        gateway.writeConfig(file([row('a', replica, { max_in_flight: 7 }), ...more]));
      },
      /the replica table has no room for that many at once/,
    ],
    ['no file any more', () => rmSync(gateway.configFile), /sluice\.yaml/],
  ];

  test.each(cases)('%s', async (_, spoil, complaint) => {
    const before = replica.stats().served;
    const running = load(gateway, { durationMs: 500, connections: 8 });
    await replica.until(({ served }) => served > before + 10);
    spoil();
    const said = await hangUp(gateway, 'config not reloaded; the old one stays');
    expect(said).toMatch(complaint);
    const refused = await reload(gateway);
    expect([400, 409]).toContain(refused.status);
    expect(JSON.stringify(refused.body)).toMatch(complaint);
    const { metrics } = await running;
    expect(metrics.failed).toBe(0);
    expect(replica.stats().served - before).toBe(metrics.sent);
    expect((await gateway.cluster()).replicas).toMatchObject([{ name: 'a', healthy: true }]);
    // A good file after it works as if nothing had been.
    gateway.writeConfig(good());
    expect(await reload(gateway)).toMatchObject({ status: 200 });
  });
});

/**
 * A budget that gateways share by way of a real Redis, through the whole gateways: it is one budget, whoever
 * dies, takes over or does not answer.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { readState, stateFileOf } from '../../src/ledger/state-file.ts';
import { inBillionths } from '../../src/lib/price.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { adminPost } from '../support/admin-post.ts';
import { freePort } from '../support/free-port.ts';
import { type GatewayProcess, gatewayProcess } from '../support/gateway.ts';
import { hasRedis, RedisServer } from '../support/redis-server.ts';
import { replicaInProcess } from '../support/replica.ts';
import { type Answer, chatBody, post, total } from '../support/scenario.ts';
import { crash, faultEnv, restarts } from '../support/thread-faults.ts';
import { eventually } from '../support/until.ts';

const token = 'budgets';
const names = ['few', 'lent', 'open', 'shut', 'wide'] as const;
type Name = (typeof names)[number];
const key = newKey();
/** Of an answer of ten tokens. */
const cost = 0.01;
const budgets: Record<Name, object> = {
  few: { budget: { month: 0.1 } },
  /** Spent by the second gateway alone. */
  lent: { budget: { month: 0.1 } },
  open: { budget: { month: 1 } },
  shut: { budget: { month: 1 }, failure_mode: 'closed' },
  wide: { budget: { month: 1000 } },
};
const waitMs = 20_000;
const testMs = 120_000;

describe.skipIf(!hasRedis)('one budget, two gateways (skipped without redis-server)', () => {
  let folder: string;
  let redis: RedisServer;
  let replica: Replica;
  let one: GatewayProcess;
  let two: GatewayProcess;
  let fewServed = 0;
  let wideServed = 0;

  async function start(name: string, supervisor = false): Promise<GatewayProcess> {
    const config: ConfigInput = {
      // Both processes of one that is taken over from have the same.
      ...(supervisor && { listen: { port: await freePort() } }),
      admin: { token, ...(supervisor && { port: await freePort() }) },
      limits: { store: 'redis', gateways: 2, redis: { urls: [redis.url] } },
      usage: { file: join(folder, `${name}.ndjson`) },
      tenants: names.map((tenant) => ({
        ...{ name: tenant, keys: [{ id: 'one', sha256: sha256Of(`${key}-${tenant}`) }] },
        ...budgets[tenant],
      })),
      models: [{ name: 'm', price: { output: 1000 }, replicas: [{ url: replica.url }] }],
    };
    return gatewayProcess({ config, supervisor, env: faultEnv });
  }
  const ask = (gateway: GatewayProcess, name: Name): Promise<Answer> =>
    post(gateway.url, chatBody('[[len=10]]', { max_tokens: 10 }), {
      authorization: `Bearer ${key}-${name}`,
    });
  async function spent(gateway: GatewayProcess, name: Name): Promise<number> {
    const page = await fetch(`${gateway.adminUrl}/admin/tenants`, {
      headers: { authorization: `Bearer ${token}` },
    });
    const { tenants } = (await page.json()) as {
      tenants: { name: string; budget: { month: { spent: number } } }[];
    };
    return tenants.find((each) => each.name === name)!.budget.month.spent;
  }
  /** So many requests of it were served by anybody, and each counts once. */
  async function bothKnow(name: Name, requests: number): Promise<void> {
    for (const gateway of [one, two]) {
      const wanted = Math.round(requests * cost * 1e9) / 1e9;
      await eventually(
        `${requests} requests are known`,
        async () => (await spent(gateway, name)) === wanted,
        waitMs,
      );
    }
  }
  const isUp = async (gateway: GatewayProcess): Promise<boolean> =>
    total(await gateway.metrics(), 'sluice_budget_store_up') === 1;

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'sluice-shared-budgets-'));
    redis = await RedisServer.start();
    replica = await replicaInProcess({ profile: 'instant' });
    one = await start('one');
    two = await start('two', true);
  }, testMs);
  afterAll(async () => {
    await one?.finish();
    await two?.finish();
    await replica?.close();
    await redis?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  test('it is spent for both, and both say how much was', async () => {
    for (const gateway of [one, two]) expect(await isUp(gateway)).toBe(true);
    for (let i = 0; i < 8; i++) {
      expect((await ask(i % 2 === 0 ? one : two, 'few')).status).toBe(200);
    }
    await bothKnow('few', 8);
    fewServed = 8;
    for (const gateway of [one, two]) {
      await eventually(
        'it is refused',
        async () => {
          const { status } = await ask(gateway, 'few');
          if (status === 200) fewServed++;
          return status === 429;
        },
        waitMs,
      );
    }
    expect(fewServed).toBeGreaterThanOrEqual(10);
    await bothKnow('few', fewServed);
    const { headers, text } = await ask(two, 'few');
    expect(JSON.parse(text).error.code).toBe('insufficient_quota');
    expect(headers.get('x-should-retry')).toBe('false');
    expect((await ask(two, 'open')).status).toBe(200);
    await bothKnow('open', 1);
  });

  test(
    'one is killed and comes back: nothing is lost to the other, nothing counts twice',
    async () => {
      for (let i = 0; i < 5; i++) expect((await ask(one, 'wide')).status).toBe(200);
      for (let i = 0; i < 5; i++) expect((await ask(two, 'wide')).status).toBe(200);
      await bothKnow('wide', 10);
      one.kill('SIGKILL');
      await one.exited;
      expect((await ask(two, 'wide')).status).toBe(200);
      await one.close();
      one = await start('one');
      // From the first request on it knows what others have spent.
      expect((await ask(one, 'few')).status).toBe(429);
      for (let i = 0; i < 4; i++) expect((await ask(one, 'wide')).status).toBe(200);
      wideServed = 15;
      await bothKnow('wide', wideServed);
    },
    testMs,
  );

  test(
    'one process takes over from another while requests come: each counts once',
    async () => {
      const before = wideServed;
      let isOver = false;
      const asking = (async () => {
        while (!isOver) if ((await ask(two, 'wide')).status === 200) wideServed++;
      })();
      two.kill('SIGUSR2');
      await two.starts(2);
      isOver = true;
      await asking;
      expect(wideServed).toBeGreaterThan(before);
      await bothKnow('wide', wideServed);
      await eventually('one process is left', () => two.servingPids.length === 1, waitMs);
      expect((await ask(two, 'wide')).status).toBe(200);
      wideServed++;
      await bothKnow('wide', wideServed);
    },
    testMs,
  );

  test(
    'Redis hangs: the open one goes on, the closed one is a 503, and both count on behind it',
    async () => {
      const before = await spent(one, 'open');
      redis.signal('SIGSTOP');
      try {
        await eventually(
          'it is known',
          async () => !(await isUp(one)) && !(await isUp(two)),
          waitMs,
        );
        for (const gateway of [one, two]) {
          expect((await ask(gateway, 'open')).status).toBe(200);
          expect((await ask(gateway, 'few')).status, 'spent is spent').toBe(429);
          const refused = await ask(gateway, 'shut');
          expect(refused.status).toBe(503);
          expect(JSON.parse(refused.text).error.code).toBe('limits_unavailable');
          expect(refused.headers.get('retry-after-ms')).toBe('1000');
        }
        await eventually('own counts', async () => (await spent(one, 'open')) > before, waitMs);
      } finally {
        redis.signal('SIGCONT');
      }
      for (const gateway of [one, two]) {
        await eventually('it answers again', () => isUp(gateway), waitMs);
        expect((await ask(gateway, 'shut')).status).toBe(200);
        const text = 'the store of budgets does not answer';
        await eventually('the log says so', () => gateway.output().includes(text), waitMs);
      }
      await bothKnow('open', 3);
      await bothKnow('shut', 2);
    },
    testMs,
  );

  test(
    'Redis hangs and the ledger dies: what others have spent is not to be had again',
    async () => {
      const isSpent = async (gateway: GatewayProcess): Promise<boolean> =>
        (await ask(gateway, 'lent')).status === 429;
      await eventually('it is spent there', () => isSpent(two), waitMs);
      // Without a request here: of those it knows by itself.
      const isHeard = async (): Promise<boolean> => (await spent(one, 'lent')) >= 0.1;
      await eventually('it is heard of here', isHeard, waitMs);
      expect(await isSpent(one)).toBe(true);
      const state = stateFileOf(join(folder, 'one.ndjson'));
      const kept = async (): Promise<number> => {
        const months = Object.values((await readState(state))?.heard?.months ?? {});
        return Math.max(0, ...months.map(({ lent = 0 }) => lent));
      };
      await eventually('it is kept', async () => (await kept()) >= inBillionths(0.1), waitMs);
      redis.signal('SIGSTOP');
      try {
        await eventually('Redis is away', async () => !(await isUp(one)), waitMs);
        await crash(one, 'ledger', 'timer', 'throw', 0, token);
        const isBack = async (): Promise<boolean> => (await restarts(one, 'ledger')) === 1;
        await eventually('it is started again', isBack, waitMs);
        const before = await spent(one, 'wide');
        expect((await ask(one, 'wide')).status).toBe(200);
        wideServed++;
        await eventually('it counts', async () => (await spent(one, 'wide')) > before, waitMs);
        expect(await isUp(one)).toBe(false);
        expect(await isSpent(one), 'spent is spent').toBe(true);
      } finally {
        redis.signal('SIGCONT');
      }
      await bothKnow('wide', wideServed);
      expect(await isSpent(one)).toBe(true);
    },
    testMs,
  );

  test(
    'Redis comes back empty, and one gateway is started again meanwhile',
    async () => {
      await redis.kill();
      await eventually('it is known', async () => !(await isUp(one)), waitMs);
      expect((await one.stop()).code).toBe(0);
      await one.close();
      one = await start('one');
      expect((await ask(one, 'open')).status).toBe(200);
      expect((await ask(one, 'shut')).status).toBe(503);
      await redis.startAgain();
      await bothKnow('open', 4);
      await bothKnow('few', fewServed);
      expect((await ask(one, 'few')).status).toBe(429);
      expect((await adminPost(one.adminUrl, token, 'reload')).status).toBe(200);
      expect((await ask(one, 'few')).status).toBe(429);
    },
    testMs,
  );
});

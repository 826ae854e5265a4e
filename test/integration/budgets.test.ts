/**
 * Budgets of tenants through the whole gateway: what is spent is what events cost, who has spent it is told
 * when to come again, and it stays spent over reloads, restarts and the death of the ledger. Both engines.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { endOfDay, endOfMonth } from '../../src/ledger/spending.ts';
import { stateFileOf } from '../../src/ledger/state-file.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { adminPost } from '../support/admin-post.ts';
import { type GatewayProcess, gatewayProcess, testEngines } from '../support/gateway.ts';
import { replicaInProcess } from '../support/replica.ts';
import { type Answer, chatBody, post } from '../support/scenario.ts';
import { crash, faultEnv, faultToken, inject, restarts } from '../support/thread-faults.ts';
import { eventually } from '../support/until.ts';

const names = ['free', 'day', 'month', 'both'] as const;
type Name = (typeof names)[number];
const keys = Object.fromEntries(names.map((name) => [name, newKey()])) as Record<Name, string>;

interface Amount {
  readonly budget: number | null;
  readonly spent: number;
}
interface BudgetView {
  readonly day: Amount;
  readonly month: Amount;
  readonly refused_until: string | null;
}

/** Of an answer of ten tokens. */
const cost = 0.01;
const price = { output: 1000 };

describe.each(testEngines)('budgets, engine %s', (engine) => {
  let folder: string;
  let replica: Replica;
  let gateway: GatewayProcess;

  const file = (more: Partial<Record<Name, object>> = {}): ConfigInput => {
    const budgets: Partial<Record<Name, object>> = {
      day: { day: 0.03 },
      month: { month: 0.02 },
      both: { day: 1, month: 2 },
      ...more,
    };
    return {
      listen: { engine },
      admin: { token: faultToken },
      threads: { acceptors: 2 },
      usage: { file: join(folder, 'usage.ndjson') },
      tenants: names.map((name) => ({
        ...{ name, keys: [{ id: 'one', sha256: sha256Of(keys[name]) }] },
        ...(budgets[name] === undefined ? {} : { budget: budgets[name] }),
      })),
      models: [{ name: 'm', price, replicas: [{ url: replica.url }] }],
    };
  };
  const ask = (name: Name): Promise<Answer> =>
    post(gateway.url, chatBody('[[len=10]]', { max_tokens: 10 }), {
      authorization: `Bearer ${keys[name]}`,
    });
  async function budgetOf(name: Name): Promise<BudgetView | null> {
    const page = await fetch(`${gateway.adminUrl}/admin/tenants`, {
      headers: { authorization: `Bearer ${faultToken}` },
    });
    const { tenants } = (await page.json()) as { tenants: { name: string; budget: BudgetView }[] };
    return tenants.find((each) => each.name === name)!.budget;
  }
  const spentBy = async (name: Name): Promise<number> => (await budgetOf(name))!.month.spent;
  const start = async (): Promise<void> => {
    gateway = await gatewayProcess({ config: file(), env: faultEnv });
  };
  const stop = async (): Promise<void> => {
    expect((await gateway.stop()).code).toBe(0);
    await gateway.close();
  };

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'sluice-budgets-'));
    replica = await replicaInProcess({ profile: 'instant' });
    await start();
  });
  afterAll(async () => {
    await gateway?.finish();
    await replica?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  test('events and the ledger say the same, to the last digit', async () => {
    for (let i = 0; i < 7; i++) expect((await ask('both')).status).toBe(200);
    await eventually('it is summed up', async () => (await spentBy('both')) >= 0.07);
    expect(await budgetOf('both')).toEqual({
      day: { budget: 1, spent: 0.07 },
      month: { budget: 2, spent: 0.07 },
      refused_until: null,
    });
    const events = [0, 1].flatMap((n) =>
      readFileSync(join(folder, `usage.${n}.ndjson`), 'utf8')
        .trim()
        .split('\n')
        .filter(Boolean),
    );
    expect(events.length).toBe(7);
    for (const line of events) expect(JSON.parse(line)).toMatchObject({ cost, currency: 'USD' });
    expect(await budgetOf('free')).toBe(null);
  });

  test.each([
    ['day', 3, endOfDay],
    ['month', 2, endOfMonth],
  ] as const)(
    'spent for this %s: no replica is asked, and the client is told when',
    async (...of) => {
      const [name, count, endOf] = of;
      for (let i = 0; i < count; i++) expect((await ask(name)).status).toBe(200);
      await eventually('it is refused', async () => (await ask(name)).status === 429);
      const before = replica.stats().started;
      const nowMs = Date.now();
      const { headers, text } = await ask(name);
      expect(JSON.parse(text).error).toMatchObject({
        ...{ type: 'insufficient_quota', code: 'insufficient_quota', param: null },
      });
      expect(headers.get('x-should-retry')).toBe('false');
      const waitMs = Number(headers.get('retry-after-ms'));
      expect(Math.abs(nowMs + waitMs - endOf(nowMs))).toBeLessThan(5000);
      expect(headers.get('retry-after')).toBe(String(Math.ceil(waitMs / 1000)));
      expect(replica.stats().started).toBe(before);
      expect((await budgetOf(name))!.refused_until).toBe(new Date(endOf(nowMs)).toISOString());
      expect((await ask('free')).status).toBe(200);
      const list = { headers: { authorization: `Bearer ${keys[name]}` } };
      expect((await fetch(`${gateway.url}/v1/models`, list)).status).toBe(200);
    },
  );

  test('the ledger dies: who is refused stays so, and what comes meanwhile is counted', async () => {
    const spent = await spentBy('both');
    await crash(gateway, 'ledger', 'timer', 'throw');
    await eventually('it is started again', async () => (await restarts(gateway, 'ledger')) >= 1);
    expect((await ask('day')).status).toBe(429);
    expect((await ask('both')).status).toBe(200);
    await eventually('it counts on', async () => (await spentBy('both')) > spent);
    expect(await spentBy('both')).toBe(Math.round((spent + cost) * 100) / 100);
    expect((await ask('day')).status).toBe(429);
    expect(gateway.output()).toContain('the ledger died');
  });

  test('the ledger hangs: a key is revoked all the same, and another ledger comes', async () => {
    const before = await restarts(gateway, 'ledger');
    await inject(gateway, { kind: 'stall', thread: 'ledger', ms: 60_000 });
    const { tenants, ...rest } = file();
    gateway.writeConfig({ ...rest, tenants: tenants!.filter(({ name }) => name !== 'free') });
    const startMs = performance.now();
    expect((await adminPost(gateway.adminUrl, faultToken, 'reload')).status).toBe(200);
    expect(performance.now() - startMs).toBeLessThan(20_000);
    expect((await ask('free')).status).toBe(401);
    await eventually(
      'it is started again',
      async () => (await restarts(gateway, 'ledger')) > before,
      15_000,
    );
    gateway.writeConfig(file());
    expect((await adminPost(gateway.adminUrl, faultToken, 'reload')).status).toBe(200);
    expect((await ask('free')).status).toBe(200);
    expect((await ask('day')).status).toBe(429);
  });

  test('a reload gives more, or less, and what is spent stays spent', async () => {
    gateway.writeConfig(file({ day: { day: 100 }, both: { month: 0.05 } }));
    expect((await adminPost(gateway.adminUrl, faultToken, 'reload')).status).toBe(200);
    // A ledger that was just started again first sums up.
    await eventually('it is let in', async () => (await ask('day')).status === 200);
    await eventually('it is refused', async () => (await ask('both')).status === 429);
    expect((await budgetOf('day'))!.day).toMatchObject({ budget: 100 });
    gateway.writeConfig(file());
    expect((await adminPost(gateway.adminUrl, faultToken, 'reload')).status).toBe(200);
    await eventually('it is refused', async () => (await ask('day')).status === 429);
    await eventually('it is let in', async () => (await ask('both')).status === 200);
  });

  test.each(['kept', 'lost'])(
    'a restart, the state file %s: refused from the first on',
    async (state) => {
      await eventually('all is summed up', async () => (await spentBy('both')) >= 0.09);
      const spent = await spentBy('both');
      await stop();
      if (state === 'lost') rmSync(stateFileOf(join(folder, 'usage.ndjson')));
      await start();
      expect((await ask('day')).status).toBe(429);
      expect((await ask('month')).status).toBe(429);
      expect(await spentBy('both')).toBe(spent);
      expect((await ask('both')).status).toBe(200);
      await eventually('it counts on', async () => (await spentBy('both')) > spent);
    },
  );
});

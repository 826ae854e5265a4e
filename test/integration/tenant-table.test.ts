/** As many tenants as a config may have: the gateway starts, lets in, changes them, and stays small. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { memory } from '../../scripts/bench/procfs.ts';
import { tenantsMax } from '../../src/config/capacities.ts';
import type { ConfigInput } from '../../src/config/schema.ts';
import { sha256Of } from '../../src/protocol/api-key.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { adminPost } from '../support/admin-post.ts';
import { withGateway } from '../support/gateway.ts';
import { replicaInProcess } from '../support/replica.ts';
import { chatBody, configOf, post } from '../support/scenario.ts';

const token = 'admin-of-many';
let replica: Replica;
beforeAll(async () => {
  replica = await replicaInProcess({ profile: 'instant' });
});
afterAll(() => replica?.close());

const keyOf = (round: number, tenant: number): string => `sk-round-${round}-tenant-${tenant}`;

/** Each with a key and limits. */
const configFor = (tenants: number, round = 0): ConfigInput =>
  configOf([replica], {
    ...{ admin: { token }, threads: { acceptors: 2 } },
    tenants: Array.from({ length: tenants }, (_, i) => ({
      ...{ name: `t${i}`, limits: { requests_per_minute: 600, concurrency: 10 } },
      keys: [{ id: 'one', sha256: sha256Of(keyOf(round, i)) }],
    })),
  });

interface Figures {
  readonly startMs: number;
  readonly reloadMs: number;
  readonly rssMb: number;
}

async function seen(tenants: number): Promise<Figures> {
  const started = performance.now();
  return withGateway({ config: configFor(tenants) }, async (gateway) => {
    const startMs = performance.now() - started;
    const ask = async (round: number, tenant: number): Promise<number> => {
      const headers = { authorization: `Bearer ${keyOf(round, tenant)}` };
      return (await post(gateway.url, chatBody('x'), headers)).status;
    };
    const last = tenants - 1;
    expect([await ask(0, 0), await ask(0, last), await ask(1, 0)]).toEqual([200, 200, 401]);
    gateway.writeConfig(configFor(tenants, 1));
    const before = performance.now();
    const reload = adminPost(gateway.adminUrl, token, 'reload');
    // Whoever asks meanwhile is let in by one of the two tables.
    const meanwhile = await Promise.all([0, 1].map((round) => ask(round, last)));
    expect(meanwhile).toContain(200);
    expect((await reload).status).toBe(200);
    const reloadMs = performance.now() - before;
    expect([await ask(1, 0), await ask(1, last), await ask(0, last)]).toEqual([200, 200, 401]);
    const headers = { authorization: `Bearer ${token}` };
    const page = await (await fetch(`${gateway.adminUrl}/admin/tenants`, { headers })).json();
    expect((page as { tenants: unknown[] }).tenants).toHaveLength(tenants);
    return { startMs, reloadMs, rssMb: memory(gateway.pid).rssMb };
  });
}

test('ten thousand tenants', async () => {
  const [few, many] = [await seen(1), await seen(tenantsMax)];
  for (const [name, { startMs, reloadMs, rssMb }] of Object.entries({ few, many })) {
    const times = `start ${startMs.toFixed(0)} ms, reload ${reloadMs.toFixed(0)} ms`;
    console.info(`${name} tenants: ${times}, ${rssMb.toFixed(0)} MB`);
  }
  // What reading a text of megabytes leaves to the collector, twice, is most of it.
  expect(many.rssMb - few.rssMb).toBeLessThan(1024);
}, 120_000);

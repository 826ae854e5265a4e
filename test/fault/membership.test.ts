/**
 * Replicas that operators take and give under load: T46, T47 and a storm of good and
 * broken config files, over the admin listener. SEED=n repeats a storm.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { createPrng } from '../../src/lib/prng.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { adminPost } from '../support/admin-post.ts';
import { ClientLoad, endsOf } from '../support/client-load.ts';
import { figure } from '../support/figures.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { configOf, model, total, withReplicas } from '../support/scenario.ts';
import { answerTokens, type Call, call, reached } from '../support/traffic.ts';

const token = 'membership-token';
const profile = 'tokens:ttft=4ms,itl=1ms';
const seed = Number(process.env.SEED ?? Date.now() % 1e9);

const change = async (gateway: GatewayProcess, page: string, body?: object): Promise<number> =>
  (await adminPost(gateway.adminUrl, token, page, body)).status;

const lostOf = (calls: readonly Call[]): number => calls.filter(({ end }) => end !== 'done').length;

/** Every call got all of its answer. */
function expectNothingLost(calls: readonly Call[]): void {
  expect(endsOf(calls)).toEqual({ done: calls.length });
  for (const c of calls) if (c.isStream) expect(c.tokens).toBe(answerTokens);
}

test.each(testEngines)(
  'T46: drained, taken back, removed and added under load, engine %s',
  async (engine) => {
    await withReplicas(3, { profile }, async (replicas) => {
      const config = configOf(replicas, { listen: { engine }, admin: { token } });
      await withGateway({ config }, async (gateway) => {
        const long = call(gateway.port, {
          ...{ nonce: 'long', stream: true, tokens: 400, tags: '[[len=400]]' },
          extra: { user: 'stays' },
        });
        await long.until(({ tokens }) => tokens > 0);
        const load = new ClientLoad(gateway.port, 12, 't46');
        const [, , third] = replicas as [Replica, Replica, Replica];
        const rowOf = async () =>
          (await gateway.cluster()).replicas.find(({ name }) => name === 'r3');
        for (let round = 0; round < 3; round++) {
          expect(await change(gateway, 'replicas/r3/drain')).toBe(200);
          await reached(rowOf, (row) => row?.in_flight === 0, 'it is drained');
          const { started } = third.stats();
          const before = load.calls.length;
          await reached(
            async () => load.calls.length,
            (count) => count > before + 24,
            'others serve',
          );
          expect(third.stats().started).toBe(started);
          expect(await change(gateway, 'replicas/r3/undrain')).toBe(200);
          await third.until((stats) => stats.started > started);
          expect([200, 202]).toContain(await change(gateway, 'replicas/r3/remove'));
          await reached(rowOf, (row) => row === undefined, 'it is gone');
          const added = { model, name: 'r3', url: third.url };
          expect([200, 201, 202]).toContain(await change(gateway, 'replicas', added));
          const sinceAdded = third.stats().started;
          await third.until((stats) => stats.started > sinceAdded);
        }
        expectNothingLost([...(await load.stop()), await long.ended].filter((c) => c !== long));
        expect([long.end, long.tokens]).toEqual(['done', 400]);
        figure('T46', 'requests lost', lostOf(load.calls), `of ${load.calls.length}`);
      });
    });
  },
);

const broken: readonly ((good: string) => string)[] = [
  () => 'models: [\n  { name: m,',
  (good) => `${good}\nunknown_key: 1`,
  () => 'models: []',
  () => '',
  (good) => good.replace('"round_robin"', '"no_such_policy"'),
  (good) => good.slice(0, good.length / 2),
  () => '\u0000\u0001\u0002',
];

test('T47: a storm of 50 good and broken files under load loses nothing', {
  timeout: 120_000,
}, async () => {
  const random = createPrng(seed);
  await withReplicas(4, { profile }, async (replicas) => {
    const fileWith = (which: readonly Replica[]): ConfigInput => {
      const rows = which.map((replica) => ({
        ...{ url: replica.url, name: `r${replicas.indexOf(replica) + 1}` },
        max_in_flight: 64 + random.below(64),
      }));
      return configOf(which, { admin: { token } }, { policy: 'round_robin', replicas: rows });
    };
    await withGateway({ config: fileWith(replicas) }, async (gateway) => {
      const failures = async (): Promise<number> =>
        total(await gateway.metrics(), 'sluice_config_reloads_total', { result: 'failed' });
      const load = new ClientLoad(gateway.port, 8, 't47');
      let refused = 0;
      let taken = 0;
      for (let i = 0; i < 50; i++) {
        const some = replicas.filter(() => random.below(10) < 6);
        gateway.writeConfig(fileWith(some.length === 0 ? replicas : some));
        const isBroken = random.below(2) === 0;
        if (isBroken) {
          const spoil = broken[random.below(broken.length)]!;
          writeFileSync(gateway.configFile, spoil(readFileSync(gateway.configFile, 'utf8')));
        }
        const failedBefore = await failures();
        const status = await change(gateway, 'reload');
        // A replica that still leaves may hold the name that a good file asks for.
        if (isBroken) expect(status, `SEED=${seed}, file ${i}`).toBe(400);
        else expect([200, 409], `SEED=${seed}, file ${i}`).toContain(status);
        if (status === 200) taken++;
        else {
          refused++;
          expect(await failures()).toBe(failedBefore + 1);
        }
      }
      expect(taken).toBeGreaterThan(0);
      const calls = await load.stop();
      expectNothingLost(calls);
      figure(
        'T47',
        'requests lost',
        lostOf(calls),
        `of ${calls.length} over 50 files, ${refused} refused`,
      );
    });
  });
});

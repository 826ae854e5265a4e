/**
 * F12: a replica that refuses the key of the gateway answers at once, so to a policy that counts what is
 * in flight it looks the best. Its health path asks for no key: only the pause of such a replica keeps
 * it from taking the retry budget of everybody.
 */
import { describe, expect, test } from 'vitest';
import { expectQuiet, testEngines, withGateway } from '../support/gateway.ts';
import { chatBody, configOf, load, model, post, total, withReplicas } from '../support/scenario.ts';

const key = 'sk-of-the-fleet';
const health = { path: '/health' } as const;
const pauseMs = 1000;

describe.each(testEngines)('F12, engine %s', (engine) => {
  test('beside a good replica it costs no client an answer, and few retries', async () => {
    await withReplicas(2, { profile: 'uniform:2ms-4ms', apiKey: key }, async (replicas) => {
      const [bad, good] = replicas.map(({ url }, i) => ({ url, name: `r${i + 1}` }));
      const config = {
        ...configOf(replicas, { listen: { engine }, health }),
        models: [
          {
            name: model,
            policy: 'least_in_flight' as const,
            replicas: [
              { ...bad!, api_key: 'sk-of-another' },
              { ...good!, api_key: key },
            ],
          },
        ],
      };
      await withGateway({ config }, async (gateway) => {
        const connections = 16;
        const { metrics, durationMs } = await load(gateway, { durationMs: 2000, connections });
        expect(metrics.statuses).toEqual(new Map([[200, metrics.sent]]));
        expect(replicas[1]!.stats().served).toBe(metrics.sent);
        const retried = total(await gateway.metrics(), 'sluice_replica_retries_total', {
          replica: 'r1',
        });
        expect(retried).toBeGreaterThan(0);
        // Whoever came before its first answer, once for each second that it was left alone.
        const rounds = Math.floor(durationMs / pauseMs) + 1;
        expect(retried).toBeLessThanOrEqual(rounds * connections);
        const { healthy, breaker } = (await gateway.cluster()).replicas[0]!;
        expect([healthy, breaker], 'neither probes nor breaker had a part in it').toEqual([
          true,
          'closed',
        ]);
        await expectQuiet(gateway);
      });
    });
  });

  test('alone it is named to its clients, at once', async () => {
    await withReplicas(1, { apiKey: key }, async ([replica]) => {
      const rows = [{ url: replica!.url, name: 'r1', api_key: 'sk-of-another' }];
      const config = {
        ...configOf([replica!], { listen: { engine }, health }),
        models: [{ name: model, replicas: rows }],
      };
      await withGateway({ config }, async (gateway) => {
        for (let i = 0; i < 3; i++) {
          const answer = await post(gateway.url, chatBody('x'));
          expect(answer.status).toBe(502);
          expect(JSON.parse(answer.text).error.code).toBe('replica_unauthorized');
        }
        await expectQuiet(gateway);
      });
    });
  });
});

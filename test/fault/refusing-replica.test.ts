/**
 * A replica that refuses connections fails at once, so to a policy that counts what is in flight it
 * looks the best. Probes are slow here: only the pause of such a replica protects the others' clients.
 */
import { describe, expect, test } from 'vitest';
import { nowMs } from '../../src/lib/clock.ts';
import { expectQuiet, testEngines, withGateway } from '../support/gateway.ts';
import { chatBody, configOf, load, post, total, withReplicas } from '../support/scenario.ts';

const pauseMs = 200;
const health = { interval: '10m', unhealthy_after: 100 } as const;

describe.each(testEngines)('engine %s', (engine) => {
  const more = { listen: { engine }, health };

  test('beside a good replica it costs no client an answer, and few retries', async () => {
    await withReplicas(2, { profile: 'uniform:2ms-4ms' }, async (replicas) => {
      const config = configOf(replicas, more, { policy: 'least_in_flight' });
      await withGateway({ config }, async (gateway) => {
        await replicas[0]!.listen(false);
        const connections = 16;
        const { metrics, durationMs } = await load(gateway, { durationMs: 2000, connections });
        const page = await gateway.metrics();
        const refused = total(page, 'sluice_replica_errors_total', { replica: 'r1' });
        const retried = total(page, 'sluice_replica_retries_total', { replica: 'r1' });
        expect(metrics.failed).toBe(0);
        expect(metrics.statuses).toEqual(new Map([[200, metrics.sent]]));
        expect(replicas[1]!.stats().served).toBe(metrics.sent);
        // It was asked, and then at most by every client once per pause.
        expect(refused).toBeGreaterThan(0);
        expect(refused).toBeLessThanOrEqual(connections * (Math.floor(durationMs / pauseMs) + 1));
        expect(retried).toBe(refused);
        const { healthy } = (await gateway.cluster()).replicas[0]!;
        expect(healthy, 'the probes had no part in it').toBe(true);
        await expectQuiet(gateway);
      });
    });
  });

  test('alone it is a 502 soon, and nothing stays in flight', async () => {
    await withReplicas(1, {}, async ([replica]) => {
      await withGateway({ config: configOf([replica!], more) }, async (gateway) => {
        await replica!.listen(false);
        const started = nowMs();
        const answer = await post(gateway.url, chatBody('x'));
        const ms = nowMs() - started;
        expect(answer.status).toBe(502);
        expect(JSON.parse(answer.text).error.code).toBe('all_attempts_failed');
        expect(ms).toBeGreaterThanOrEqual(2 * pauseMs);
        expect(ms).toBeLessThan(2000);
        const startedMany = nowMs();
        const many = await Promise.all(
          Array.from({ length: 20 }, () => post(gateway.url, chatBody('x'))),
        );
        expect(nowMs() - startedMany).toBeLessThan(2000);
        for (const { status } of many) expect(status).toBe(502);
        await expectQuiet(gateway);
      });
    });
  });
});

/** The load of the live evaluation against a gateway: one record for each request, of what became of it. */
import { expect, test } from 'vitest';
import { model } from '../../scripts/bench/replicas.ts';
import { evenRates, ofPhase, rates } from '../../scripts/live/lab.ts';
import { LiveLoad } from '../../scripts/live/load.ts';
import { liveFairness, tailsOf } from '../../scripts/live/measures.ts';
import { heavy, tenantCount } from '../../scripts/live/requests.ts';
import { expectQuiet, withGateway } from '../support/gateway.ts';
import { configOf, expectServedOnce, total, withReplicas } from '../support/scenario.ts';
import { eventually } from '../support/until.ts';

test('open and closed loops of ten tenants are recorded as the replicas saw them', async () => {
  await withReplicas(2, { model }, (replicas) =>
    withGateway({ config: configOf(replicas, {}, { name: model }) }, async (gateway) => {
      const load = new LiveLoad(gateway.port, 7);
      const run = await load.open([
        { seconds: 0.5, rates: evenRates(200) },
        { seconds: 0.5, rates: rates(100, 0) },
      ]);
      const closed = await load.closed(8, 0.3);
      load.close();
      expect(tailsOf(run.records)).toMatchObject({ served: run.records.length, lost: 0 });
      expect(new Set(ofPhase(run, 0).map(({ tenant }) => tenant)).size).toBe(tenantCount);
      expect(new Set(ofPhase(run, 1).map(({ tenant }) => tenant))).toEqual(new Set([heavy]));
      for (const { queueMs, firstUs, endUs, sentUs, intendedUs } of run.records) {
        expect(queueMs).toBeGreaterThanOrEqual(0);
        expect([intendedUs, sentUs, firstUs, endUs].toSorted((a, b) => a - b)).toEqual([
          ...[intendedUs, sentUs, firstUs, endUs],
        ]);
      }
      expect(liveFairness(run).lightWaitMs.p99).toBeGreaterThanOrEqual(0);
      expectServedOnce(replicas, run.records.length + closed.records.length);
      await expectQuiet(gateway);
    }),
  );
});

test('what is turned away is refused, not lost', async () => {
  await withReplicas(1, { model, hold: true }, ([replica]) => {
    const config = configOf([], { queue: { max: 0 } });
    const models = [{ name: model, replicas: [{ url: replica!.url, max_in_flight: 1 }] }];
    return withGateway({ config: { ...config, models } }, async (gateway) => {
      const load = new LiveLoad(gateway.port, 7);
      const running = load.open([{ seconds: 0.5, rates: evenRates(100) }]);
      await replica!.gate.arrivals(1);
      await eventually('one is refused', async () => {
        return total(await gateway.metrics(), 'sluice_requests_total', { code: '429' }) > 0;
      });
      replica!.gate.holdAll = false;
      replica!.gate.release();
      const { records } = await running;
      load.close();
      const { refused, lost, served } = tailsOf(records);
      expect([refused > 0, lost]).toEqual([true, 0]);
      expect(replica!.stats().served).toBe(served);
    });
  });
});

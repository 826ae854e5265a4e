/** Replicas that cut before their head (T06) or send a head and nothing more (T09), under load. */
import { expect, test } from 'vitest';
import { nowMs } from '../../src/lib/clock.ts';
import { ClientLoad, endsOf } from '../support/client-load.ts';
import { figure } from '../support/figures.ts';
import { testEngines, withGateway } from '../support/gateway.ts';
import { inTime } from '../support/in-time.ts';
import { configOf, sum, withReplicas } from '../support/scenario.ts';
import { answerTokens, call, reached } from '../support/traffic.ts';

const profile = 'tokens:ttft=4ms,itl=1ms';
const health = { interval: '10m' } as const;

test.each(testEngines)(
  'T06: every third request is reset before its head, engine %s',
  async (engine) => {
    await withReplicas(4, { profile }, async (replicas) => {
      replicas[0]!.setFaults([{ fault: 'reset=headers', every: 3 }]);
      const config = configOf(replicas, { listen: { engine }, health }, { policy: 'round_robin' });
      await withGateway({ config }, async (gateway) => {
        const load = new ClientLoad(gateway.port, 8, 't06');
        await reached(
          async () => replicas[0]!.stats().faults_applied,
          (faults) => faults >= 30,
          'thirty resets',
          20_000,
        );
        const calls = await load.stop();
        expect(endsOf(calls)).toEqual({ done: calls.length });
        const resets = replicas[0]!.stats().faults_applied;
        const started = sum(replicas.map((replica) => replica.stats().started));
        expect(started - calls.length).toBe(resets);
        expect((await gateway.cluster()).replicas[0]!.breaker).toBe('closed');
        figure(
          'T06',
          'client errors',
          calls.filter(({ end }) => end !== 'done').length,
          `of ${calls.length}, ${resets} resets`,
        );
      });
    });
  },
);

const firstTokenMs = 400;

test.each(testEngines)('T09: a head and no byte is no progress, engine %s', async (engine) => {
  await withReplicas(2, { profile }, async (replicas) => {
    replicas[0]!.setFaults([{ fault: 'stall=body' }]);
    const more = {
      ...{ listen: { engine }, health, breaker: { mode: 'off' as const } },
      retry: { budget: 1, budget_min: 100 },
      timeouts: { first_token: `${firstTokenMs}ms` as const },
    };
    const config = configOf(replicas, more, { policy: 'round_robin' });
    await withGateway({ config }, async (gateway) => {
      let turn = 0;
      await inTime(firstTokenMs + 1000, async () => {
        const startedMs = nowMs();
        const calls = Array.from({ length: 6 }, () =>
          call(gateway.port, { nonce: `t09-${turn++}`, stream: true }),
        );
        for (const c of calls)
          expect([(await c.ended).end, c.tokens]).toEqual(['done', answerTokens]);
        const tookMs = nowMs() - startedMs;
        figure(
          'T09',
          `answered by another, ${engine}`,
          tookMs,
          `ms, first-token clock ${firstTokenMs} ms`,
        );
        return tookMs;
      });
      await replicas[0]!.until(({ in_flight, aborted }) => in_flight === 0 && aborted > 0);
    });
  });
});

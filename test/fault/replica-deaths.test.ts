/**
 * Replicas that die, freeze, restart and come back, as processes that get signals: T01, T04, T05, T16
 * and T17 of the acceptance battery. SLUICE_FULL=1 takes the load and the times of the battery.
 */
import { describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { nowMs } from '../../src/lib/clock.ts';
import { ClientLoad, endsOf } from '../support/client-load.ts';
import { figure } from '../support/figures.ts';
import { freePort } from '../support/free-port.ts';
import { type GatewayProcess, withGateway } from '../support/gateway.ts';
import { inTime } from '../support/in-time.ts';
import { type ReplicaProcess, replicaProcess, withReplicas } from '../support/replica.ts';
import { chatBody, configOf, post } from '../support/scenario.ts';
import { answerTokens, type Call, call, quantile, reached } from '../support/traffic.ts';

const isFull = process.env.SLUICE_FULL === '1';
const profile = isFull ? 'tokens:ttft=50ms,itl=50ms' : 'tokens:ttft=5ms,itl=5ms';
const generous = { budget: 1, budget_min: 1000 };
const health = { interval: '500ms', timeout: '500ms' } as const;

/** Runs `use` over four replicas that are one process each. */
function withFour(
  more: Omit<ConfigInput, 'models'>,
  use: (gateway: GatewayProcess, replicas: ReplicaProcess[]) => Promise<void>,
): Promise<void> {
  return withReplicas(4, { profile }, (replicas) =>
    withGateway({ config: configOf(replicas, more) }, (gateway) => use(gateway, replicas)),
  );
}

const firstTokenOf = (c: Call): Promise<number> => c.until(({ tokens }) => tokens > 0).then(nowMs);

describe('T01: a replica is killed before the heads of 50 requests', () => {
  test('all are answered by the others, soon', () =>
    inTime(500, async () => {
      let added = 0;
      await withFour({ retry: generous, health }, async (gateway, [first]) => {
        await first!.setFaults([{ fault: 'stall=headers' }]);
        const calls = Array.from({ length: 220 }, (_, i) =>
          call(gateway.port, { nonce: `t01-${i}`, stream: true }),
        );
        const others = calls.map(firstTokenOf);
        await reached(
          () => first!.stats(),
          ({ in_flight }) => in_flight >= 50,
          'fifty of them are at the first',
        );
        const killedMs = nowMs();
        await first!.kill();
        const lateMs = (await Promise.all(others)).filter((atMs) => atMs > killedMs);
        expect(lateMs.length).toBeGreaterThanOrEqual(50);
        for (const c of calls)
          expect([(await c.ended).end, c.tokens]).toEqual(['done', answerTokens]);
        figure('T01', 'lost', calls.filter(({ end }) => end !== 'done').length);
        added = quantile(lateMs, 0.99) - killedMs;
      });
      figure('T01', 'p99 added time to first token', added, 'ms');
      return added;
    }));
});

const stallMs = 1000;
const breaker = { mode: 'window' } as const;

describe('T04, T05: a replica is frozen and thawed', () => {
  test('streams on it are ended by the token clock, nobody is sent to it, and it comes back slowly', async () => {
    const slowStartMs = isFull ? 10_000 : 3000;
    const timeouts = { inter_token: `${stallMs}ms`, first_token: `${stallMs}ms` } as const;
    const config = { timeouts, breaker, health, retry: generous, slow_start: `${slowStartMs}ms` };
    await withFour(config as Omit<ConfigInput, 'models'>, async (gateway, [first, ...rest]) => {
      const held = Array.from({ length: 40 }, (_, i) =>
        call(gateway.port, { nonce: `t04-${i}`, stream: true, tags: '[[len=4000]]', tokens: 4000 }),
      );
      await Promise.all(held.map(firstTokenOf));
      const before = (await first!.stats()).started;
      expect(before).toBe(10);
      const frozenMs = nowMs();
      first!.stop();
      await reached(
        async () => held.filter(({ endedAt }) => endedAt > 0).length,
        (ended) => ended === before,
        'the streams of the frozen one have ended',
      );
      const told = held.filter(({ endedAt }) => endedAt > 0);
      for (const c of told) expect(c.end, c.body.toString().slice(-300)).toBe('stream-error');
      const detectedMs = Math.max(...told.map(({ endedAt }) => endedAt)) - frozenMs;
      figure('T04', 'told after', detectedMs, `ms, stall limit ${stallMs} ms`);
      expect(detectedMs).toBeLessThan(stallMs + 1000);
      for (const c of held) c.leave();
      await reached(
        () => gateway.cluster(),
        ({ replicas }) => !replicas[0]!.healthy || replicas[0]!.breaker !== 'closed',
        'it is out',
        isFull ? 1000 : 10_000,
      );
      const requests = async (): Promise<number> => (await gateway.cluster()).replicas[0]!.requests;
      const sent = await requests();
      for (let i = 0; i < 20; i++)
        expect((await post(gateway.url, chatBody(`${i}`))).status).toBe(200);
      // A probe of a breaker that is half open may be one of them.
      expect((await requests()) - sent).toBeLessThanOrEqual(1);

      first!.cont();
      await reached(
        () => gateway.cluster(),
        ({ replicas }) => replicas[0]!.healthy && replicas[0]!.breaker === 'closed',
        'it is back',
        30_000,
      );
      const counts = async (): Promise<number[]> =>
        (await gateway.cluster()).replicas.map(({ requests: count }) => count);
      const atStart = await counts();
      const load = new ClientLoad(gateway.port, 16, 't05');
      const backMs = nowMs();
      let worst = 0;
      await reached(
        async () => {
          const now = await counts();
          const added = now.map((count, i) => count - atStart[i]!);
          const all = added.reduce((a, b) => a + b, 0);
          if (all >= 100) worst = Math.max(worst, (4 * added[0]!) / all);
          return nowMs() - backMs;
        },
        (sinceMs) => sinceMs > slowStartMs,
        'the slow start is over',
        slowStartMs + 10_000,
      );
      const calls = await load.stop();
      for (const c of calls) expect(c.end, c.body.toString()).toBe('done');
      figure('T05', 'largest share of the one that is back', worst, 'of a fair one');
      expect(worst).toBeGreaterThan(0);
      expect(worst).toBeLessThanOrEqual(2);
      expect(rest.length).toBe(3);
    });
  }, 90_000);
});

describe('T16: all replicas are down', () => {
  test('503 at once with retry-after, nobody waits; the first that is back serves', async () => {
    const port = await freePort();
    await withReplicas(1, { profile, port }, ([replica]) =>
      withGateway({ config: configOf([replica!], { health }) }, async (gateway) => {
        await replica!.kill();
        await reached(
          () => gateway.ready(),
          ({ ready }) => !ready,
          'not ready',
        );
        await inTime(50, async () => {
          const times: number[] = [];
          for (let i = 0; i < 50; i++) {
            const startedMs = nowMs();
            const answer = await post(gateway.url, chatBody(`${i}`));
            times.push(nowMs() - startedMs);
            expect(answer.status).toBe(503);
            expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0);
          }
          expect((await gateway.cluster()).queue_depth).toBe(0);
          const p99 = quantile(times, 0.99);
          figure('T16', 'p99 of a refusal', p99, 'ms');
          return p99;
        });
        const again = await replicaProcess({ profile, port });
        try {
          const backMs = nowMs();
          await reached(
            async () => (await post(gateway.url, chatBody('back'))).status,
            (status) => status === 200,
            'it serves again',
            5000,
          );
          figure('T16', 'served again after', nowMs() - backMs, 'ms');
          expect(nowMs() - backMs).toBeLessThan(2000);
        } finally {
          await again.close();
        }
      }),
    );
  });
});

describe('T17: a replica restarts again and again', () => {
  const rounds = isFull ? 20 : 4;
  test(`${rounds} times: no request fails, and its state changes twice each time`, async () => {
    const port = await freePort();
    const log = { level: 'info' } as const;
    await withReplicas(1, { profile }, ([other]) =>
      withReplicas(1, { profile, port }, async ([first]) => {
        const config = configOf([first!, other!], { retry: generous, health, log });
        await withGateway({ config }, async (gateway) => {
          const load = new ClientLoad(gateway.port, 8, 't17', () => ({ stream: false }));
          const isUp = async (): Promise<boolean> => (await gateway.cluster()).replicas[0]!.healthy;
          let running = first!;
          for (let round = 0; round < rounds; round++) {
            await running.terminate();
            await reached(isUp, (up) => !up, 'it is down');
            running = await replicaProcess({ profile, port });
            await reached(isUp, (up) => up, 'it is up');
          }
          const calls = await load.stop();
          await running.terminate();
          expect(endsOf(calls)).toEqual({ done: calls.length });
          const changes = [
            ...gateway
              .output()
              .matchAll(
                /replica is (?:un)?healthy.*?"replica":"r1"|"replica":"r1".*?replica is (?:un)?healthy/g,
              ),
          ].length;
          figure('T17', 'state changes per restart', changes / rounds);
          expect(changes).toBeGreaterThanOrEqual(2 * rounds);
          // Its first verdict, and that of its last end.
          expect(changes).toBeLessThanOrEqual(2 * rounds + 2);
        });
      }),
    );
  }, 180_000);
});

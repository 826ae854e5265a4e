/**
 * Replicas that die, freeze, restart and come back, as processes that get signals: T01, T04, T05, T16
 * and T17 of the acceptance battery. SLUICE_BATTERY=1 takes its times, SLUICE_FULL=1 its load as well.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { nowMs } from '../../src/lib/clock.ts';
import { quantile } from '../../src/lib/quantile.ts';
import { ClientLoad, endsOf } from '../support/client-load.ts';
import { figure } from '../support/figures.ts';
import { freePort } from '../support/free-port.ts';
import { type GatewayProcess, withGateway } from '../support/gateway.ts';
import { inTime } from '../support/in-time.ts';
import { type ReplicaProcess, replicaProcess, withReplicas } from '../support/replica.ts';
import { chatBody, configOf, post, sum } from '../support/scenario.ts';
import { answerTokens, type Call, call, reached } from '../support/traffic.ts';
import { eventually } from '../support/until.ts';

const isFull = process.env.SLUICE_FULL === '1';
const isWhole = isFull || process.env.SLUICE_BATTERY === '1';
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

/** Shares of the first of four, 1 being a fair one: of each second, and the largest since the start. */
async function sharesOf(
  gateway: GatewayProcess,
  durationMs: number,
): Promise<{ shares: number[]; worst: number }> {
  const counts = async (): Promise<number[]> =>
    (await gateway.cluster()).replicas.map(({ requests }) => requests);
  const start = await counts();
  const startMs = nowMs();
  const shares: number[] = [];
  let second = start;
  let worst = 0;
  const look = async (): Promise<number> => {
    const now = await counts();
    const sinceMs = nowMs() - startMs;
    if (sinceMs >= (shares.length + 1) * 1000) {
      shares.push(shareOfFirst(second, now).share);
      second = now;
    }
    const { share, all } = shareOfFirst(start, now);
    if (all >= 100) worst = Math.max(worst, share);
    return sinceMs;
  };
  await reached(look, (ms) => ms > durationMs, 'the slow start is over', durationMs + 10_000);
  return { shares, worst };
}

function shareOfFirst(before: readonly number[], now: readonly number[]) {
  const added = now.map((count, i) => count - before[i]!);
  const all = sum(added);
  return { all, share: (now.length * added[0]!) / all };
}

const stallMs = 1000;
const breaker = { mode: 'window' } as const;

describe('T04, T05: a replica is frozen and thawed', () => {
  test('streams on it are ended by the token clock, nobody is sent to it, and it comes back slowly', async () => {
    const slowStartMs = isWhole ? 10_000 : 3000;
    const timeouts = { inter_token: `${stallMs}ms`, first_token: `${stallMs}ms` } as const;
    const config = { timeouts, breaker, health, retry: generous, slow_start: `${slowStartMs}ms` };
    await withFour(config as Omit<ConfigInput, 'models'>, async (gateway, [first]) => {
      const begunMs = nowMs();
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

      // In a cluster that is younger than this no start is slow.
      await sleep(Math.max(0, begunMs + slowStartMs + 500 - nowMs()));
      const load = new ClientLoad(gateway.port, isFull ? 64 : 16, 't05');
      first!.cont();
      await reached(
        () => gateway.cluster(),
        ({ replicas }) => replicas[0]!.healthy && replicas[0]!.breaker === 'closed',
        'it is back',
        30_000,
      );
      const { shares, worst } = await sharesOf(gateway, slowStartMs);
      const calls = await load.stop();
      for (const c of calls) expect(c.end, c.body.toString()).toBe('done');
      const perSecond = shares.map((share) => share.toFixed(2)).join(' ');
      figure('T05', 'share of the one that is back, per second', perSecond, 'of a fair one');
      figure('T05', 'largest since it is back', worst, 'of a fair one');
      for (const share of [...shares, worst]) expect(share).toBeLessThanOrEqual(2);
      expect(shares[0], 'it starts slowly').toBeLessThan(1);
      expect(shares.at(-1), 'it is used').toBeGreaterThan(0);
    });
  }, 90_000);
});

describe('T16: all replicas are down', () => {
  const clients = 20;
  const turns = 20;
  /** From one request of a client to the next, at most. */
  const turnMs = 200;
  /** One takes two seconds, and its worst four answers decide. */
  const cheapTries = 10;

  /** Times of the refusals that `clients` get beside each other, and how deep a queue was seen. */
  async function refusals(gateway: GatewayProcess): Promise<{ times: number[]; depth: number }> {
    const times: number[] = [];
    let depth = 0;
    const client = async (name: number): Promise<void> => {
      for (let turn = 0; turn < turns; turn++) {
        // Not as fast as they can: a machine that is used up says nothing about refusals.
        await sleep((turnMs * ((7 * name + turn) % clients)) / clients);
        const startedMs = nowMs();
        const answer = await post(gateway.url, chatBody(`${name} ${turn}`));
        times.push(nowMs() - startedMs);
        expect(answer.status).toBe(503);
        expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(0);
        if (name === 0) depth = Math.max(depth, (await gateway.cluster()).queue_depth);
      }
    };
    await Promise.all(Array.from({ length: clients }, (_, name) => client(name)));
    return { times, depth };
  }

  test(
    '503 at once with retry-after, nobody waits; the first that is back serves',
    () =>
      inTime(2000, async () => {
        const port = await freePort();
        let servedMs = 0;
        await withReplicas(1, { profile, port }, ([first]) =>
          withReplicas(3, { profile }, (others) =>
            // Probes as by default: they say how soon it is back.
            withGateway({ config: configOf([first!, ...others]) }, async (gateway) => {
              const warm = new ClientLoad(gateway.port, clients, 't16', () => ({ stream: false }));
              await eventually('it is at work', () => warm.calls.length >= 10 * clients, 20_000);
              await warm.stop();
              const downMs = nowMs();
              await Promise.all([first!, ...others].map((replica) => replica.kill()));
              await reached(
                () => gateway.ready(),
                ({ ready }) => !ready,
                'not ready',
                20_000,
              );
              // Until then a replica is tried first: 502, or 503 where its breaker is open or its pause is on.
              figure('T16', 'seen as down after', nowMs() - downMs, 'ms, probes as by default');
              await inTime(
                50,
                async () => {
                  const { times, depth } = await refusals(gateway);
                  const p99 = quantile(times, 0.99);
                  figure('T16', `p99 of ${times.length} refusals, ${clients} clients`, p99, 'ms');
                  figure('T16', 'deepest queue meanwhile', depth);
                  expect(depth).toBe(0);
                  return p99;
                },
                cheapTries,
              );
              const asking = Array.from({ length: clients }, async (_, name) => {
                const body = chatBody(`back ${name}`);
                const serves = async () => (await post(gateway.url, body)).status === 200;
                await eventually('it serves again', serves, 20_000);
                return nowMs();
              });
              const again = await replicaProcess({ profile, port });
              const backMs = nowMs();
              try {
                servedMs = Math.max(...(await Promise.all(asking))) - backMs;
                figure('T16', `all ${clients} served again after`, servedMs, 'ms');
              } finally {
                await again.close();
              }
            }),
          ),
        );
        return servedMs;
      }),
    120_000,
  );
});

describe('T17: a replica restarts again and again', () => {
  const rounds = isWhole ? 20 : 8;
  test(`${rounds} times: no request fails, and its state changes twice each time`, async () => {
    const port = await freePort();
    const log = { level: 'info' } as const;
    await withReplicas(1, { profile }, ([other]) =>
      withReplicas(1, { profile, port }, async ([first]) => {
        const config = configOf([first!, other!], { retry: generous, health, log });
        await withGateway({ config }, async (gateway) => {
          const verdicts =
            /replica is (?:un)?healthy.*"replica":"r1"|"replica":"r1".*replica is (?:un)?healthy/g;
          const told = (): number => [...gateway.output().matchAll(verdicts)].length;
          await eventually('its first verdict is told', () => told() === 1);
          const load = new ClientLoad(gateway.port, 8, 't17', () => ({ stream: false }));
          const isUp = async (): Promise<boolean> => (await gateway.cluster()).replicas[0]!.healthy;
          const startedMs = nowMs();
          let running = first!;
          try {
            for (let round = 0; round < rounds; round++) {
              await running.terminate();
              await reached(isUp, (up) => !up, 'it is down');
              running = await replicaProcess({ profile, port });
              await reached(isUp, (up) => up, 'it is up');
            }
            const seconds = (nowMs() - startedMs) / 1000;
            const calls = await load.stop();
            expect(endsOf(calls)).toEqual({ done: calls.length });
            await eventually('every verdict is told', () => told() > 2 * rounds);
            const changes = told() - 1;
            const { ejections } = (await gateway.cluster()).replicas[0]!;
            figure(
              'T17',
              'restarts',
              rounds,
              `in ${seconds.toFixed(0)} s, ${calls.length} requests`,
            );
            figure('T17', 'state changes per restart', changes / rounds);
            figure('T17', 'left out by the breaker', ejections);
            expect(changes).toBe(2 * rounds);
            if (isWhole) expect(seconds).toBeLessThan(120);
          } finally {
            await running.close();
          }
        });
      }),
    );
  }, 240_000);
});

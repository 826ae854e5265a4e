/**
 * T33 and T34: a forwarder or the scheduler dies at every stage in every way, under load. The process
 * goes on, the thread is back within a second, every request has one honest end, nothing is left over.
 */
import { expect, test } from 'vitest';
import { type FaultStage, faultStages } from '../../src/lib/fault-point.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { ClientLoad, endsOf } from '../support/client-load.ts';
import { figure } from '../support/figures.ts';
import {
  expectQuiet,
  type GatewayProcess,
  type TestEngine,
  testEngines,
  withGateway,
} from '../support/gateway.ts';
import { expectHonest } from '../support/invariants.ts';
import { replicaInProcess } from '../support/replica.ts';
import { configOf, total, withReplicas } from '../support/scenario.ts';
import {
  crash,
  expectNoBlame,
  faultEnv,
  faultToken,
  inject,
  restarted,
  restartMsMax,
} from '../support/thread-faults.ts';
import { call, reached } from '../support/traffic.ts';

const allKinds = ['throw', 'exit', 'oom', 'terminate'] as const;
/** All of it takes minutes; `npm test` has a share in which each stage and each kind comes. */
const isWhole = process.env.SLUICE_BATTERY === '1';
const descriptorsSlack = 6;
const profile = 'tokens:ttft=4ms,itl=1ms';
const held = '[[fault:hold-after=3]]';

async function descriptorsAre(gateway: GatewayProcess, before: number): Promise<void> {
  await reached(
    () => gateway.slots(),
    ({ descriptors }) => descriptors <= before + descriptorsSlack,
    `descriptors back to ${before}`,
  );
}

type Case = readonly [
  engine: TestEngine,
  stage: FaultStage,
  kinds: readonly (typeof allKinds)[number][],
];

function casesOf(stages: readonly FaultStage[]): Case[] {
  const cases = testEngines.flatMap((engine) =>
    stages.map((stage, i): Case => {
      const kind = allKinds[i % allKinds.length]!;
      return [engine, stage, isWhole ? allKinds : [kind]];
    }),
  );
  // Which engine listens makes little difference to how a thread behind it dies.
  return isWhole ? cases : cases.slice(0, stages.length + 1);
}

test.each(casesOf(faultStages.forwarder))(
  'T33: forwarder, engine %s, stage %s',
  async (engine, stage, kinds) => {
    await withReplicas(2, { profile }, async (replicas) => {
      const more = {
        ...{ listen: { engine }, admin: { token: faultToken } },
        ...{ threads: { forwarders: 2 }, log: { level: 'warn' as const } },
      };
      await withGateway({ config: configOf(replicas, more), env: faultEnv }, async (gateway) => {
        const warm = new ClientLoad(gateway.port, 8, 'warm');
        await reached(
          async () => warm.calls.length,
          (n) => n > 40,
          'connections are open',
        );
        for (const c of await warm.stop()) expect(c.end, c.body.toString()).toBe('done');
        await expectQuiet(gateway);
        const { descriptors } = await gateway.slots();
        const restartsMs: number[] = [];
        let told = 0;
        for (const [i, how] of kinds.entries()) {
          const open = Array.from({ length: 8 }, (_, n) =>
            call(gateway.port, { nonce: `held-${how}-${n}`, tags: held, stream: true }),
          );
          await Promise.all(open.map((c) => c.until(({ tokens }) => tokens === 3)));
          const { rows } = await gateway.slots();
          const elsewhere = rows.filter(({ forwarder }) => forwarder === 1).length;
          expect(elsewhere).toBeGreaterThan(0);
          const load = new ClientLoad(gateway.port, 4, how);
          await crash(gateway, 'forwarder-0', stage, how, 5);
          const ms = await restarted(gateway, 'forwarder', i + 1);
          // The other forwarder's streams live; those of the dead one have been told.
          await reached(
            async () => open.filter(({ endedAt }) => endedAt > 0).length,
            (ended) => ended === open.length - elsewhere,
            'the streams of the dead forwarder have ended',
          );
          const lost = open.filter(({ endedAt }) => endedAt > 0);
          for (const c of lost) expect(c.end, c.body.toString()).toBe('stream-error');
          for (const replica of replicas) replica.gate.release();
          const rest = open.filter((c) => !lost.includes(c));
          for (const c of rest) expect((await c.ended).end, c.body.toString()).toBe('done');
          const calls = await load.stop();
          for (const c of [...calls, ...open]) expectHonest(c);
          await expectQuiet(gateway);
          await expectNoBlame(gateway);
          await descriptorsAre(gateway, descriptors);
          told += [...calls, ...open].filter(({ end }) => end === 'stream-error').length;
          const truncated = total(await gateway.metrics(), 'sluice_stream_truncated_total');
          expect(truncated, 'streams whose clients were told of an error').toBe(told);
          const ends = `${JSON.stringify(endsOf(calls))}; streams told ${lost.length}, untouched ${rest.length}`;
          figure('T33', `${engine}, ${stage}, ${how}`, `back after ${ms} ms; ${ends}`);
          restartsMs.push(ms);
        }
        expect(Math.min(...restartsMs)).toBeLessThanOrEqual(await restartMsMax());
        for (const replica of replicas) await replica.until(({ in_flight }) => in_flight === 0);
        expect((await gateway.stop()).code).toBe(0);
      });
    });
  },
  90_000,
);

/** The first breaks every stream behind a token or two, the second goes on with it. */
async function withBreakingReplica(
  use: (replicas: readonly Replica[]) => Promise<void>,
): Promise<void> {
  const replicas = [await replicaInProcess({ profile, name: 'a' })];
  try {
    replicas.push(await replicaInProcess({ profile, name: 'b' }));
    await use(replicas);
  } finally {
    for (const replica of replicas) await replica.close();
  }
}

test.each(casesOf(faultStages.forwarder))(
  'T33: streams that are continued, forwarder, engine %s, stage %s',
  async (engine, stage, kinds) => {
    await withBreakingReplica(async (replicas) => {
      const more = {
        ...{ listen: { engine }, admin: { token: faultToken }, breaker: { window: 1000 } },
        ...{ threads: { forwarders: 2 }, retry: { budget: 1, budget_min: 1000 } },
      };
      const rows = replicas.map(({ url }, i) => ({ url, name: 'ab'[i]!, weight: 1000 / 1e6 ** i }));
      const policy = 'weighted_least_connections' as const;
      const config = configOf(replicas, more, { policy, continuation: 'text', replicas: rows });
      await withGateway({ config, env: faultEnv }, async (gateway) => {
        let told = 0;
        for (const [i, how] of kinds.entries()) {
          // Half of them in the hands of the second replica, half of the first.
          const open = Array.from({ length: 16 }, (_, n) =>
            call(gateway.port, {
              ...{ nonce: `held-${how}-${n}`, stream: true },
              tags: n % 2 === 0 ? `[[fault@a:fin-after=2]] [[fault@b:hold-after=4]]` : held,
            }),
          );
          await Promise.all(open.map((c, n) => c.until(({ tokens }) => tokens === 4 - (n % 2))));
          const { rows: slots } = await gateway.slots();
          const elsewhere = slots.filter(({ forwarder }) => forwarder === 1).length;
          const load = new ClientLoad(gateway.port, 8, how, (client, turn) => {
            const tags = (client + turn) % 4 === 0 ? '' : `[[fault@a:fin-after=${1 + (turn % 9)}]]`;
            return { stream: true, tags };
          });
          await crash(gateway, 'forwarder-0', stage, how, 5);
          const ms = await restarted(gateway, 'forwarder', i + 1);
          await reached(
            async () => open.filter(({ endedAt }) => endedAt > 0).length,
            (ended) => ended === open.length - elsewhere,
            'the streams of the dead forwarder have ended',
          );
          for (const replica of replicas) replica.gate.release();
          const calls = [...(await load.stop()), ...open];
          for (const c of calls) {
            await c.ended;
            expectHonest(c);
            // Whole, or told: by an event, or with a status before the first byte.
            expect(['done', 'stream-error', 'http-error'], c.body.toString()).toContain(c.end);
          }
          await expectQuiet(gateway);
          const families = await gateway.metrics();
          const ends = endsOf(calls);
          told += ends['stream-error'] ?? 0;
          expect(total(families, 'sluice_stream_truncated_total')).toBe(told);
          const continued = total(families, 'sluice_stream_continuations_total', { result: 'ok' });
          expect(continued).toBeGreaterThan(8);
          const seen = `back after ${ms} ms; ${JSON.stringify(ends)}; ${continued} continued so far`;
          figure('T33', `continuation, ${engine}, ${stage}, ${how}`, seen);
        }
        for (const replica of replicas) {
          await replica.until(({ in_flight }) => in_flight === 0);
          expect(replica.stats().continuation_mismatches).toBe(0);
        }
      });
    });
  },
  90_000,
);

test.each(casesOf(faultStages.scheduler))(
  'T34: scheduler, engine %s, stage %s',
  async (engine, stage, kinds) => {
    await withReplicas(2, { profile }, async (replicas) => {
      const rows = replicas.map(({ url }, i) => ({ url, name: `r${i + 1}`, max_in_flight: 8 }));
      const more = { listen: { engine }, admin: { token: faultToken } };
      const config = configOf(replicas, more, { replicas: rows });
      await withGateway({ config, env: faultEnv }, async (gateway) => {
        const restartsMs: number[] = [];
        for (const [i, how] of kinds.entries()) {
          const open = Array.from({ length: 14 }, (_, n) =>
            call(gateway.port, { nonce: `held-${how}-${n}`, tags: held, stream: true }),
          );
          await Promise.all(open.map((c) => c.until(({ tokens }) => tokens === 3)));
          // Two places for 16 clients: most of them wait at any time.
          const load = new ClientLoad(gateway.port, 16, how);
          await reached(
            () => gateway.cluster(),
            (view) => view.queue_depth > 8,
            'a queue',
          );
          await crash(gateway, 'scheduler', stage, how, 5);
          const ms = await restarted(gateway, 'scheduler', i + 1);
          for (const replica of replicas) replica.gate.release();
          const calls = [...(await load.stop()), ...open];
          for (const c of calls) expect((await c.ended).end, c.body.toString()).toBe('done');
          for (const c of calls) expectHonest(c);
          await expectQuiet(gateway);
          await expectNoBlame(gateway);
          const told = JSON.stringify(endsOf(calls));
          figure('T34', `${engine}, ${stage}, ${how}`, `back after ${ms} ms; ${told}`);
          restartsMs.push(ms);
        }
        expect(Math.min(...restartsMs)).toBeLessThanOrEqual(await restartMsMax());
        expect((await gateway.stop()).code).toBe(0);
      });
    });
  },
  90_000,
);

test('T37: a scheduler that stalls for 200 ms loses nothing, for 3 s it is not ready meanwhile', async () => {
  await withReplicas(2, { profile }, async (replicas) => {
    const rows = replicas.map(({ url }, i) => ({ url, name: `r${i + 1}`, max_in_flight: 4 }));
    const more = { admin: { token: faultToken }, queue: { max: 12 } };
    const config = configOf(replicas, more, { replicas: rows });
    await withGateway({ config, env: faultEnv }, async (gateway) => {
      const short = new ClientLoad(gateway.port, 8, 'short');
      await inject(gateway, { kind: 'stall', thread: 'scheduler', ms: 200 });
      await reached(
        async () => short.calls.length,
        (n) => n > 80,
        'it goes on',
      );
      for (const c of await short.stop()) expect(c.end, c.body.toString()).toBe('done');
      await inject(gateway, { kind: 'stall', thread: 'scheduler', ms: 3000 });
      // More than eight places and twelve that may wait.
      const long = new ClientLoad(gateway.port, 40, 'long');
      await reached(
        () => gateway.ready(),
        ({ ready }) => !ready,
        'not ready',
        2000,
      );
      await reached(
        () => gateway.ready(),
        ({ ready }) => ready,
        'ready again',
      );
      let deepest = 0;
      await reached(
        async () => {
          deepest = Math.max(deepest, (await gateway.cluster()).queue_depth);
          return endsOf(long.calls)['http-error'] ?? 0;
        },
        (refused) => refused > 0,
        'what is too much is refused',
      );
      expect(deepest).toBeLessThanOrEqual(12);
      for (const c of await long.stop()) {
        if (c.end !== 'done') expect([c.status, c.errorCode]).toEqual([429, 'rate_limit_exceeded']);
      }
      expect(endsOf(long.calls).done).toBeGreaterThan(0);
      await expectQuiet(gateway);
      expect(gateway.output()).not.toContain('died');
      expect((await gateway.stop()).code).toBe(0);
    });
  });
});

test.each(['scheduler', 'forwarder'] as const)(
  'a %s that is silent is replaced',
  async (kind) => {
    await withReplicas(1, { profile }, async (replicas) => {
      const config = configOf(replicas, { admin: { token: faultToken } });
      await withGateway({ config, env: faultEnv }, async (gateway) => {
        const thread = kind === 'forwarder' ? 'forwarder-0' : kind;
        await inject(gateway, { kind: 'stall', thread, ms: 30_000 });
        await restarted(gateway, kind, 1);
        await gateway.said('has been silent for');
        expect((await call(gateway.port, { nonce: 'after' }).ended).end).toBe('done');
        await expectQuiet(gateway);
      });
    });
  },
  60_000,
);

test('more deaths in a minute than chance explains end the process; the supervisor starts another', async () => {
  await withReplicas(1, { profile }, async (replicas) => {
    const options = {
      ...{ config: configOf(replicas, { admin: { token: faultToken } }), env: faultEnv },
      supervisor: true,
    };
    await withGateway(options, async (gateway) => {
      const load = new ClientLoad(gateway.port, 4, 'deaths');
      for (let death = 1; death <= 6; death++) {
        await crash(gateway, 'scheduler', 'popped', 'throw');
        if (death < 6) await restarted(gateway, 'scheduler', death);
      }
      await gateway.said('the 6th thread within a minute');
      await gateway.starts(2);
      for (const c of await load.stop()) expectHonest(c);
      for (const replica of replicas) await replica.until(({ in_flight }) => in_flight === 0);
      expect((await call(gateway.port, { nonce: 'after' }).ended).end).toBe('done');
      await expectQuiet(gateway);
      expect((await gateway.stop()).code).toBe(0);
    });
  });
}, 90_000);

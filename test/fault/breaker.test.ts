/**
 * Replicas that answer and fail: left out by their breaker, tried by one request, back once that
 * succeeds. Probes find them well all the time: membership and breaker are separate facts.
 */
import { describe, expect, test } from 'vitest';
import type { Replica } from '../../src/replica/replica.ts';
import { ClientLoad, endsOf } from '../support/client-load.ts';
import { figure } from '../support/figures.ts';
import { expectQuiet, type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { chatBody, configOf, post, withReplicas } from '../support/scenario.ts';
import { eventually } from '../support/until.ts';

const health = { interval: '10m' } as const;
const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
/** What a busy replica asks for. */
const waitMs = 1000;
const prompts = (count: number): string[] => Array.from({ length: count }, (_, i) => `prompt ${i}`);

async function breakers(gateway: GatewayProcess): Promise<string[]> {
  return (await gateway.cluster()).replicas.map(({ breaker }) => breaker);
}

async function served(gateway: GatewayProcess, name: string): Promise<number> {
  return (await gateway.cluster()).replicas.find((replica) => replica.name === name)!.requests;
}

describe.each(testEngines)('engine %s', (engine) => {
  const log = { level: 'info' } as const;
  const config = { listen: { engine }, health, log, retry: { budget_min: 100 } } as const;

  // The scenario T8 of the second system: what fails is out, stays a member, and comes back.
  test('T15, System B T8: a replica that fails everything is out, and its clients do not notice', async () => {
    await withReplicas(3, { profile: 'uniform:5ms-10ms' }, async (replicas) => {
      const more = { ...config, breaker: { open: '10m' } } as const;
      await withGateway({ config: configOf(replicas, more) }, async (gateway) => {
        replicas[2]!.setFaults([{ fault: 'status=500' }]);
        // More than once where the machine is so busy that nobody is judged.
        await eventually(
          'r3 is out',
          async () => {
            const answers = await Promise.all(
              prompts(50).map((prompt) => post(gateway.url, chatBody(prompt, { max_tokens: 2 }))),
            );
            expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
            return (await breakers(gateway))[2] === 'open';
          },
          20_000,
        );
        const { healthy, errors, ejections } = (await gateway.cluster()).replicas[2]!;
        expect([healthy, ejections]).toEqual([true, 1]);
        expect(errors).toBeGreaterThan(5);
        const before = await served(gateway, 'r3');
        for (const prompt of prompts(10)) {
          const { headers } = await post(gateway.url, chatBody(prompt));
          expect(headers.get('x-sluice-replica')).not.toBe('r3');
        }
        expect(await served(gateway, 'r3')).toBe(before);
        await gateway.said('replica is left out: too many of its answers failed');
        await expectQuiet(gateway);
      });
    });
  });

  test('T15: it is back by one good request', async () => {
    await withReplicas(3, { profile: 'instant' }, async (replicas) => {
      const more = { ...config, breaker: { open: '300ms' }, slow_start: '0s' } as const;
      await withGateway({ config: configOf(replicas, more) }, async (gateway) => {
        replicas[2]!.setFaults([{ fault: 'status=500' }]);
        await eventually(
          'r3 is out',
          async () => {
            await Promise.all(prompts(10).map((prompt) => post(gateway.url, chatBody(prompt))));
            return (await breakers(gateway))[2] !== 'closed';
          },
          20_000,
        );
        replicas[2]!.setFaults([]);
        await eventually('r3 is back', async () => {
          for (const prompt of prompts(10)) {
            expect((await post(gateway.url, chatBody(prompt))).status).toBe(200);
          }
          return (await breakers(gateway))[2] === 'closed';
        });
        await gateway.said('replica is back');
        await expectQuiet(gateway);
      });
    });
  });

  test('T15: a replica that fails 30 % of its requests is out, and hardly a client notices', async () => {
    await withReplicas(4, { profile: 'uniform:2ms-4ms' }, async (replicas) => {
      // Breaker and retries as by default, but for the time that it stays out: it is counted once.
      const more = { listen: { engine }, health, breaker: { open: '10m' } } as const;
      const config = configOf(replicas, more, { policy: 'round_robin' });
      await withGateway({ config }, async (gateway) => {
        replicas[2]!.setFaults([{ fault: 'status=500', probability: 0.3, seed }]);
        const load = new ClientLoad(gateway.port, 8, 't15', () => ({ isShort: true, tokens: 2 }));
        await eventually('r3 is out', async () => (await breakers(gateway))[2] === 'open', 60_000);
        const [sent, atTrip] = [load.calls.length, replicas[2]!.stats().started];
        await eventually(
          'as many again',
          () => load.calls.length >= 2 * Math.max(sent, 500),
          60_000,
        );
        const calls = await load.stop();
        const { failed, started } = replicas[2]!.stats();
        const errors = calls.filter(({ end }) => end !== 'done').length / calls.length;
        figure('T15', 'client errors', 100 * errors, `% of ${calls.length}, SEED=${seed}`);
        figure('T15', 'trips after', atTrip, `requests, ${failed} of them failed`);
        expect(errors, `SEED=${seed}`).toBeLessThan(0.01);
        // At most those that were on their way.
        expect(started - atTrip).toBeLessThanOrEqual(8);
        expect(await breakers(gateway)).toEqual(['closed', 'closed', 'open', 'closed']);
        const others = replicas.filter((_, i) => i !== 2).map((replica) => replica.stats().served);
        for (const count of others) expect(count).toBeGreaterThan(calls.length / 5);
        await expectQuiet(gateway);
      });
    });
  }, 150_000);

  test.each([0.3, 0.9])(
    'T15: all fail a share of %d of their requests: half may be out and no more',
    async (probability) => {
      await withReplicas(4, { profile: 'uniform:2ms-4ms' }, async (replicas) => {
        const more = { ...config, breaker: { open: '10m' } } as const;
        await withGateway({ config: configOf(replicas, more) }, async (gateway) => {
          for (const [i, replica] of replicas.entries()) {
            replica.setFaults([{ fault: 'status=500', probability, seed: seed + i }]);
          }
          // Those that are out stay so, or each would be counted once more.
          const out = async (): Promise<number> => {
            const { replicas: rows } = await gateway.cluster();
            return rows.reduce((all, { ejections }) => all + ejections, 0);
          };
          let most = 0;
          const load = new ClientLoad(gateway.port, 8, 't15', () => ({ isShort: true, tokens: 2 }));
          const look = async (): Promise<number> => (most = Math.max(most, await out()));
          await eventually('half are out', async () => (await look()) >= 2, 60_000);
          const sent = load.calls.length;
          await eventually(
            'more fail',
            async () => {
              await look();
              return load.calls.length >= sent + 400;
            },
            30_000,
          );
          await load.stop();
          figure(
            'T15',
            `ejected, all fail ${100 * probability} %`,
            25 * (await look()),
            '% of fleet',
          );
          expect(most, `SEED=${seed}`).toBe(2);
          await expectQuiet(gateway);
        });
      });
    },
    120_000,
  );

  test.each([429, 503])(
    'T14: a replica busy with %d is left alone as it asks, and its breaker is not moved',
    async (status) => {
      await withReplicas(2, { profile: 'instant' }, async (replicas) => {
        await withGateway({ config: configOf(replicas, config) }, async (gateway) => {
          const [busy, other] = replicas as [Replica, Replica];
          const ask = async (): Promise<void> => {
            const { status: answered, headers } = await post(gateway.url, chatBody('x'));
            expect([answered, headers.get('x-sluice-replica')]).toEqual([200, 'r2']);
          };
          busy.setFaults([{ fault: `status=${status};retry-after=${waitMs / 1000}` }]);
          await eventually(
            'it has been asked a third time',
            async () => {
              await ask();
              return busy.stats().started === 3;
            },
            10 * waitMs,
          );
          const asked = busy.ledger();
          const waits = asked.slice(1).map(({ start }, i) => start - asked[i]!.endAt);
          figure(
            'T14',
            `asked again after ${status}, soonest`,
            Math.min(...waits),
            `ms of ${waitMs}`,
          );
          for (const ms of waits) expect(ms).toBeGreaterThanOrEqual(waitMs);

          // By many at the same time, once one has been told.
          busy.setFaults([{ fault: `status=${status};retry-after=60` }]);
          await eventually('it is told once more', async () => {
            await ask();
            return busy.stats().started === 4;
          });
          const load = new ClientLoad(gateway.port, 8, `t14-${status}`);
          await eventually('two hundred calls', () => load.calls.length >= 200, 30_000);
          const calls = await load.stop();
          expect(endsOf(calls)).toEqual({ done: calls.length });
          figure('T14', `re-asks within the window of ${status}`, busy.stats().started - 4);
          expect(busy.stats().started).toBe(4);

          // Nobody else is left: clients are told what the replicas said, and none of these is asked.
          other.setFaults([{ fault: `status=${status};retry-after=60` }]);
          expect((await post(gateway.url, chatBody('x'))).status).toBe(status);
          const atOther = other.stats().started;
          for (const prompt of prompts(10)) {
            const refused = await post(gateway.url, chatBody(prompt));
            expect(refused.status).toBe(status);
            expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
          }
          expect([busy.stats().started, other.stats().started]).toEqual([4, atOther]);
          const { replicas: rows } = await gateway.cluster();
          expect(rows.map(({ breaker, ejections }) => [breaker, ejections])).toEqual([
            ['closed', 0],
            ['closed', 0],
          ]);
          await expectQuiet(gateway);
        });
      });
    },
    60_000,
  );
});

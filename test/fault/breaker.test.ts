/**
 * Replicas that answer and fail: left out by their breaker, tried by one request, back once that
 * succeeds. Probes find them well all the time: membership and breaker are separate facts.
 */
import { describe, expect, test } from 'vitest';
import { expectQuiet, type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { chatBody, configOf, post, withReplicas } from '../support/scenario.ts';
import { eventually } from '../support/until.ts';

const health = { interval: '10m' } as const;
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
        await eventually('r3 is out', async () => {
          const answers = await Promise.all(
            prompts(50).map((prompt) => post(gateway.url, chatBody(prompt, { max_tokens: 2 }))),
          );
          expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
          return (await breakers(gateway))[2] === 'open';
        });
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
        await eventually('r3 is out', async () => {
          await Promise.all(prompts(10).map((prompt) => post(gateway.url, chatBody(prompt))));
          return (await breakers(gateway))[2] !== 'closed';
        });
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

  test('T15: half of the fleet may be out and no more, whatever fails', async () => {
    await withReplicas(4, { profile: 'uniform:2ms-4ms' }, async (replicas) => {
      await withGateway({ config: configOf(replicas, config) }, async (gateway) => {
        for (const replica of replicas) {
          replica.setFaults([{ fault: 'status=500', probability: 0.9 }]);
        }
        const out = async (): Promise<number> =>
          (await breakers(gateway)).filter((state) => state !== 'closed').length;
        for (let round = 0; round < 12 || (round < 60 && (await out()) < 2); round++) {
          await Promise.all(prompts(16).map((prompt) => post(gateway.url, chatBody(prompt))));
          expect(await out()).toBeLessThanOrEqual(2);
        }
        expect(await out()).toBe(2);
        await expectQuiet(gateway);
      });
    });
  });

  test('T14: a busy replica is paused as it asks, and its breaker is not moved', async () => {
    await withReplicas(2, { profile: 'instant' }, async (replicas) => {
      await withGateway({ config: configOf(replicas, config) }, async (gateway) => {
        replicas[0]!.setFaults([{ fault: 'status=503;retry-after=60' }]);
        for (const prompt of prompts(40)) {
          expect((await post(gateway.url, chatBody(prompt))).status).toBe(200);
        }
        expect(await served(gateway, 'r1')).toBe(1);
        expect(await breakers(gateway)).toEqual(['closed', 'closed']);
        await expectQuiet(gateway);
      });
    });
  });
});

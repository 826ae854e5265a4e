/** Limits that two gateways share by way of a real Redis: together they let in what one bucket has. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hasRedis } from '../support/redis-server.ts';
import { SharedLimitsScene } from '../support/shared-limits.ts';

describe.skipIf(!hasRedis)(
  'limits in one Redis, of two gateways (skipped without redis-server)',
  () => {
    let scene: SharedLimitsScene;
    beforeAll(async () => {
      scene = await SharedLimitsScene.start(
        2,
        {
          rate: { limits: { requests_per_minute: 6000, burst: '1s' } },
          few: { limits: { requests_per_minute: 6, burst: '60s' } },
          tokens: { limits: { output_tokens_per_minute: 6000, burst: '60s' } },
          wide: { limits: { requests_per_minute: 600_000 } },
          model: { model_limits: { m: { requests_per_minute: 2, burst: '60s' } } },
        },
        // On a busy machine an answer may take longer than what is usual, and all are to count here.
        { timeout: '5s' },
      );
    });
    afterAll(() => scene?.close());

    test('10,000 requests: what one bucket has, and little less', async () => {
      const [perSecond, burst] = [100, 100];
      const started = performance.now();
      const ends = await Promise.all(
        scene.gateways.map((gateway) => scene.ends(gateway, 'rate', 4, 5000)),
      );
      const most = burst + (perSecond * (performance.now() - started)) / 1000;
      const count = (status: number): number =>
        ends.reduce((sum, statuses) => sum + (statuses.get(status) ?? 0), 0);
      expect(count(200) + count(429)).toBe(10_000);
      expect(count(429), 'more was asked for than there was').toBeGreaterThan(1000);
      for (const gateway of scene.gateways) expect(await scene.calls(gateway, 'failed')).toBe(0);
      expect(count(200)).toBeLessThanOrEqual(most);
      expect(count(200)).toBeGreaterThanOrEqual(0.8 * most);
    });

    test('what one has used the other has not, to the last one', async () => {
      const [one, other] = scene.gateways as [
        (typeof scene.gateways)[0],
        (typeof scene.gateways)[0],
      ];
      const statuses: number[] = [];
      for (let i = 0; i < 10; i++) {
        statuses.push((await scene.ask(i % 2 === 0 ? one : other, 'few')).status);
      }
      expect(statuses.filter((status) => status === 200)).toHaveLength(6);
      const refused = await scene.ask(one, 'few');
      expect(refused.status).toBe(429);
      expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(5);
      expect(refused.headers.get('x-ratelimit-limit-requests')).toBe('6');
      expect(refused.headers.get('x-ratelimit-remaining-requests')).toBe('0');
      const ofModel = [one, other, one].map((gateway) => scene.ask(gateway, 'model'));
      expect((await Promise.all(ofModel)).map(({ status }) => status).sort()).toEqual([
        200, 200, 429,
      ]);
    });

    test('tokens that were set aside and not used are there for the other gateway', async () => {
      for (let i = 0; i < 20; i++) {
        const gateway = scene.gateways[i % 2]!;
        const answer = await scene.ask(gateway, 'tokens', { max_tokens: 2000 });
        expect(answer.status, `request ${i}`).toBe(200);
      }
    });

    test('most requests make no call', async () => {
      const gateway = scene.gateways[0]!;
      const before = await scene.calls(gateway);
      const requests = 3000;
      expect((await scene.ends(gateway, 'wide', 8, requests)).get(200)).toBe(requests);
      expect((await scene.calls(gateway)) - before).toBeLessThan(requests / 10);
    });
  },
);

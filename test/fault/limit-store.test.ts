/**
 * T48: the store of shared limits is down, hung or slow, or there and takes no writes, and back. Requests go by the failure mode of their
 * tenant, none later than the time limit of the store; and the limiter thread dies.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { figure } from '../support/figures.ts';
import type { GatewayProcess } from '../support/gateway.ts';
import { hasRedis, RedisServer } from '../support/redis-server.ts';
import { SharedLimitsScene } from '../support/shared-limits.ts';
import { crash, restarted } from '../support/thread-faults.ts';
import { eventually } from '../support/until.ts';

describe.skipIf(!hasRedis)('a store that fails (skipped without redis-server)', () => {
  let scene: SharedLimitsScene;
  let gateway: GatewayProcess;
  beforeAll(async () => {
    scene = await SharedLimitsScene.start(2, {
      wide: { limits: { requests_per_minute: 600_000 } },
      shut: { limits: { requests_per_minute: 600_000 }, failure_mode: 'closed' },
      share: { limits: { requests_per_minute: 20, burst: '60s' } },
      // Closed, so that only the store lets it in.
      few: { limits: { requests_per_minute: 1, burst: '60s' }, failure_mode: 'closed' },
    });
    gateway = scene.gateways[0]!;
  });
  /** Of a store that is a replica for a while. */
  let master: RedisServer | undefined;
  afterAll(async () => {
    await scene?.close();
    await master?.close();
  });

  /** One after the other: the first find out that the store is gone, the others know it. */
  async function through(tenant: string, count: number) {
    const statuses = new Set<number>();
    let worst = 0;
    for (let i = 0; i < count; i++) {
      const started = performance.now();
      statuses.add((await scene.ask(gateway, tenant)).status);
      worst = Math.max(worst, performance.now() - started);
    }
    return { statuses, worst };
  }

  test.each([
    ['down', () => scene.redis.kill(), () => scene.redis.startAgain()],
    ['hung', () => scene.redis.signal('SIGSTOP'), () => scene.redis.signal('SIGCONT')],
    [
      'full (OOM)',
      () => scene.redis.cli('config', 'set', 'maxmemory', '1'),
      () => scene.redis.cli('config', 'set', 'maxmemory', '0'),
    ],
    [
      'no master any more (READONLY)',
      async () => {
        master = await RedisServer.start();
        scene.redis.cli('replicaof', '127.0.0.1', String(master.port));
      },
      () => scene.redis.cli('replicaof', 'no', 'one'),
    ],
    ['500 ms slow', () => scene.line.setDelay(250), () => scene.line.setDelay(0)],
  ])('T48: the store is %s, and back', async (how, breaks, mends) => {
    await eventually('the store answers', () => scene.isUp(gateway));
    const usual = await through('wide', 50);
    expect(usual.statuses).toEqual(new Set([200]));
    await breaks();
    try {
      const open = await through('wide', 100);
      const closed = await through('shut', 20);
      expect(open.statuses, 'nobody is refused').toEqual(new Set([200]));
      const added = Math.max(open.worst, closed.worst) - usual.worst;
      figure('T48', `${how}: added to the slowest while it answers`, Math.max(0, added), 'ms');
      expect(added).toBeLessThan(60);
      await eventually('it is known to be away', async () => !(await scene.isUp(gateway)));
      expect((await through('shut', 5)).statuses).toEqual(new Set([503]));
      const refused = await scene.ask(gateway, 'shut');
      expect(refused.headers.get('retry-after-ms')).toBe('1000');
      expect(JSON.parse(refused.text).error.code).toBe('limits_unavailable');
      // The share of one of two gateways, and what may have come back of it since the last time.
      let allowed = 0;
      for (let i = 0; i < 20; i++) {
        if ((await scene.ask(gateway, 'share')).status === 200) allowed++;
      }
      expect(allowed).toBeLessThanOrEqual(10);
    } finally {
      await mends();
    }
    await eventually('the store answers again', () => scene.isUp(gateway));
    expect((await through('shut', 5)).statuses).toEqual(new Set([200]));
  });

  test('the script is gone from the store: no call fails, and nobody hears of it', async () => {
    await eventually('the store answers', () => scene.isUp(gateway));
    const failed = await scene.calls(gateway, 'failed');
    const calls = await scene.calls(gateway);
    expect(scene.redis.cli('script', 'flush')).toBe('OK');
    const one = await scene.ask(gateway, 'share');
    expect([200, 429]).toContain(one.status);
    expect(await scene.calls(gateway)).toBeGreaterThan(calls);
    expect(await scene.calls(gateway, 'failed')).toBe(failed);
    expect((await through('shut', 20)).statuses).toEqual(new Set([200]));
    expect(await scene.isUp(gateway)).toBe(true);
  });

  test('a limiter that dies is back, and nobody is refused or let in for it', async () => {
    for (const each of scene.gateways) {
      await eventually('the store answers', () => scene.isUp(each));
    }
    const asked = async (): Promise<number> => (await scene.ask(gateway, 'few')).status;
    await eventually('its one request is let in', async () => (await asked()) === 200);
    const statuses = new Set<number>();
    let isOver = false;
    const asking = (async () => {
      while (!isOver) statuses.add((await scene.ask(gateway, 'wide')).status);
    })();
    const back = restarted(gateway, 'limiter', 1);
    await crash(gateway, 'limiter', 'asked', 'throw');
    await back;
    isOver = true;
    await asking;
    expect(statuses).toEqual(new Set([200]));
    await eventually('the store answers', () => scene.isUp(gateway));
    for (const each of scene.gateways) {
      await eventually('the store refuses the next', async () => {
        const { status } = await scene.ask(each, 'few');
        expect(status).not.toBe(200);
        return status === 429;
      });
    }
  });
});

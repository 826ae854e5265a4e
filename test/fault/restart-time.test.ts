/** T36: how long a gateway is away when its process is killed, and a second one that serves meanwhile. */
import { expect, test } from 'vitest';
import { nowMs } from '../../src/lib/clock.ts';
import { ClientLoad, endsOf } from '../support/client-load.ts';
import { figure } from '../support/figures.ts';
import { freePort } from '../support/free-port.ts';
import { expectQuiet, type GatewayProcess, withGateway } from '../support/gateway.ts';
import { chatBody, configOf, post, withReplicas } from '../support/scenario.ts';
import { call, reached } from '../support/traffic.ts';

test('T36: a gateway process that is killed is back on its port within 2 s', async () => {
  const port = await freePort();
  await withReplicas(1, { profile: 'instant' }, ([replica]) => {
    const config = configOf([replica!], { listen: { port } });
    const startedMs = nowMs();
    return withGateway({ supervisor: true, config }, (gateway) => killOnce(gateway, startedMs));
  });

  async function killOnce(gateway: GatewayProcess, startedMs: number): Promise<void> {
    // 2 s on a machine with time to spare; on a busy one, three times what the first start took.
    const limitMs = Math.max(2000, 3 * (nowMs() - startedMs));
    expect(gateway.port).toBe(port);
    const first = gateway.servingPid;
    const killedMs = nowMs();
    process.kill(first, 'SIGKILL');
    await gateway.starts(2);
    expect((await post(gateway.url, chatBody('x'))).status).toBe(200);
    figure('T36', 'back after', nowMs() - killedMs, 'ms');
    expect(nowMs() - killedMs).toBeLessThan(limitMs);
    expect(gateway.servingPid).not.toBe(first);
    expect(gateway.port).toBe(port);
    expect((await gateway.stop()).code).toBe(0);
  }
});

test('T36: of two gateways on one port one is killed; what it did not hold is served', async () => {
  const port = await freePort();
  await withReplicas(1, { profile: 'tokens:ttft=4ms,itl=1ms' }, async ([replica]) => {
    const config = configOf([replica!], { listen: { port } });
    const unquiet = 'calls to its port were those of two gateways';
    await withGateway({ config, unquiet }, (stays) =>
      withGateway({ config }, async (dies) => {
        const held = '[[fault:hold-after=2]]';
        const streams = Array.from({ length: 32 }, (_, i) =>
          call(port, { nonce: `held-${i}`, stream: true, tags: held }),
        );
        await Promise.all(streams.map((c) => c.until(({ tokens }) => tokens === 2)));
        const load = new ClientLoad(port, 16, 't36');
        await reached(
          async () => load.calls.length,
          (count) => count > 200,
          'both serve',
        );
        const inFlight = 16 + (await dies.cluster()).replicas[0]!.in_flight;
        const served = (await dies.cluster()).dispatched;
        expect(served).toBeGreaterThan(0);
        dies.kill('SIGKILL');
        await dies.exited;
        replica!.gate.release();
        const after = new ClientLoad(port, 16, 'after');
        await reached(
          async () => after.calls.length,
          (count) => count > 200,
          'the other serves',
        );
        const ends = endsOf(await after.stop());
        expect(ends).toEqual({ done: after.calls.length });
        const before = [...(await load.stop()), ...streams];
        await Promise.all(before.map(({ ended }) => ended));
        const lost = before.filter((c) => c.end !== 'done');
        for (const c of lost) {
          expect(['broken', 'silent'], c.body.toString()).toContain(c.end);
          expect(c.isComplete).toBe(false);
        }
        expect(lost.length).toBeLessThanOrEqual(inFlight);
        figure(
          'T36',
          'lost of two gateways',
          lost.length,
          `of ${inFlight} in flight on the dead one`,
        );
        await expectQuiet(stays);
        expect((await stays.stop()).code).toBe(0);
      }),
    );
  });
});

/**
 * T36: how long a gateway is away when its process is killed or its acceptor dies in it, and a second
 * one that serves meanwhile.
 */
import { expect, test } from 'vitest';
import { nowMs } from '../../src/lib/clock.ts';
import { ClientLoad, endsOf } from '../support/client-load.ts';
import { figure } from '../support/figures.ts';
import { freePort } from '../support/free-port.ts';
import {
  expectQuiet,
  type GatewayProcess,
  type TestEngine,
  testEngines,
  withGateway,
} from '../support/gateway.ts';
import { expectHonest } from '../support/invariants.ts';
import { chatBody, configOf, post, withReplicas } from '../support/scenario.ts';
import { crash, faultEnv, faultToken } from '../support/thread-faults.ts';
import { type Call, call, reached } from '../support/traffic.ts';

const deaths = ['SIGKILL', 'oom', 'terminate'] as const;
type Death = (typeof deaths)[number];

/** SIGKILL of the process, or a death of its acceptor in the middle of what it admits. */
function strike(gateway: GatewayProcess, how: Death): Promise<void> | boolean {
  if (how === 'SIGKILL') return process.kill(gateway.servingPid, how);
  return crash(gateway, 'acceptor-0', 'admitted', how, 20);
}

/**
 * A thread of uWebSockets.js takes the process with it, mostly by an abort of Node, now and then by
 * SIGSEGV. One of node:http dies, and the gateway gives up.
 */
function endOf(engine: TestEngine, how: Death): RegExp {
  if (how === 'SIGKILL') return /process ended \(SIGKILL\)/;
  return engine === 'uws' ? /process ended \((SIGABRT|SIGSEGV)\)/ : /process ended \(exit 1\)/;
}

/** What clients of a process that died saw: an answer, or a connection that was cut and says so. */
function expectTold(calls: readonly Call[]): void {
  for (const c of calls) {
    expectHonest(c);
    expect(['done', 'broken', 'silent'], c.body.toString()).toContain(c.end);
  }
}

test.each(testEngines.flatMap((engine) => deaths.map((how) => [engine, how] as const)))(
  'T36: under load, engine %s, %s: the gateway is back on its port within 2 s',
  async (engine, how) => {
    const port = await freePort();
    await withReplicas(1, { profile: 'tokens:ttft=4ms,itl=1ms' }, async ([replica]) => {
      const more = { listen: { engine, port }, admin: { token: faultToken } };
      const config = configOf([replica!], more);
      const startedMs = nowMs();
      await withGateway({ supervisor: true, config, env: faultEnv }, async (gateway) => {
        // 2 s on a machine with time to spare; on a busy one, three times what the first start took.
        const limitMs = Math.max(2000, 3 * (nowMs() - startedMs));
        const first = gateway.servingPid;
        const tags = '[[fault:hold-after=2]]';
        const held = Array.from({ length: 8 }, (_, i) =>
          call(port, { nonce: `held-${i}`, stream: true, tags }),
        );
        await Promise.all(held.map((c) => c.until(({ tokens }) => tokens === 2)));
        const load = new ClientLoad(port, 16, 'before');
        await reached(
          async () => load.calls.length,
          (count) => count > 100,
          'it serves',
        );
        const struckMs = nowMs();
        await strike(gateway, how);
        await gateway.starts(2);
        expect((await post(gateway.url, chatBody('x'))).status).toBe(200);
        const backMs = nowMs() - struckMs;
        figure('T36', `${engine}, ${how}: back after`, backMs, 'ms');
        expect(backMs).toBeLessThan(limitMs);
        expect(gateway.servingPid).not.toBe(first);
        expect(gateway.port).toBe(port);
        expect(gateway.output()).toMatch(endOf(engine, how));
        replica!.gate.release();
        expectTold([...(await load.stop()), ...(await Promise.all(held.map((c) => c.ended)))]);
        const after = new ClientLoad(port, 16, 'after');
        await reached(
          async () => after.calls.length,
          (count) => count > 100,
          'it serves again',
        );
        const calls = await after.stop();
        expect(endsOf(calls)).toEqual({ done: calls.length });
        await expectQuiet(gateway);
        expect((await gateway.stop()).code).toBe(0);
      });
    });
  },
  60_000,
);

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

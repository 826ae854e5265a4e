/**
 * F15 of the failover scorecard: a replica under steady load dies and comes back. It is out once and in
 * once, tried by single requests before it gets more, given its share step by step, and has all of it
 * ten seconds later. Nobody sees an error.
 */
import { expect } from 'vitest';
import { ClientLoad, endsOf } from './client-load.ts';
import { expectQuiet, type TestEngine, withGateway } from './gateway.ts';
import { type ReplicaProcess, replicaProcess } from './replica.ts';
import { configOf, untilReplica } from './scenario.ts';

const clients = 4;
/** In a cluster that is younger than this no start is slow. */
const slowStartMs = 5000;
const deadMs = 2500;
const fairMs = 10_000;
const measuredMs = 3000;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export async function expectComeback(
  engine: TestEngine,
  seen: (outcome: string, ms: number) => void,
): Promise<void> {
  const profile = 'uniform:8ms-24ms';
  const replicas: ReplicaProcess[] = [];
  for (const name of ['r1', 'r2']) replicas.push(await replicaProcess({ profile, name }));
  const [first, second] = replicas as [ReplicaProcess, ReplicaProcess];
  const more = {
    ...{ listen: { engine }, health: { interval: '500ms', timeout: '500ms' } },
    ...{ log: { level: 'info' as const, sample: 0 }, retry: { budget_min: 100 } },
    slow_start: `${slowStartMs}ms`,
  } as const;
  const config = configOf(replicas, more, { policy: 'round_robin' });
  try {
    await withGateway({ config }, async (gateway) => {
      let isOver = false;
      const load = new ClientLoad(gateway.port, clients, `back-${engine}`, (_, i) => {
        return { stream: i % 2 === 0, isShort: true };
      });
      /** Whether it is in, each time that changes. */
      const states: boolean[] = [];
      const watched = (async () => {
        for (; !isOver; await sleep(20)) {
          const { healthy, breaker } = (await gateway.cluster()).replicas[0]!;
          const isIn = healthy && breaker === 'closed';
          if (isIn !== states.at(-1)) states.push(isIn);
        }
      })();
      const served = async (): Promise<number[]> =>
        (await Promise.all([first.stats(), second.stats()])).map((stats) => stats.served);
      const share = async (ms: number): Promise<number> => {
        const before = await served();
        await sleep(ms);
        const [a, b] = (await served()).map((count, i) => count - before[i]!) as [number, number];
        return a / (a + b);
      };
      await sleep(slowStartMs + 500);
      await first.listen(false);
      await untilReplica(gateway, 'r1', ({ healthy }) => !healthy);
      await sleep(deadMs);
      await first.listen(true);
      const backAt = performance.now();
      await untilReplica(gateway, 'r1', ({ healthy }) => healthy);
      const early = await share(1500);
      await sleep(Math.max(0, backAt + fairMs - performance.now()));
      const fair = await share(measuredMs);
      isOver = true;
      const calls = await load.stop();
      await watched;
      expect(endsOf(calls)).toEqual({ done: calls.length });
      seen(`share ${early.toFixed(2)}, then ${fair.toFixed(2)}`, fairMs);
      expect(states, 'out once, in once').toEqual([true, false, true]);
      expect((await gateway.cluster()).replicas[0]!.ejections).toBeLessThanOrEqual(1);
      expect(early, 'slow start: less than its share').toBeLessThan(0.45);
      expect(early, 'it is used').toBeGreaterThan(0);
      expect(fair).toBeGreaterThan(0.4);
      expect(fair).toBeLessThan(0.6);
      await expectQuiet(gateway);
    });
  } finally {
    for (const replica of replicas) await replica.close();
  }
}

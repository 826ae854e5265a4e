/** What is known of stored responses, and who is pinned by it, outlives the threads. Both engines. */
import { expect, test } from 'vitest';
import { testEngines, withGateway } from '../support/gateway.ts';
import { type ReplicaProcess, replicaProcess } from '../support/replica.ts';
import { dieAt, faultEnv, faultToken } from '../support/thread-faults.ts';
import { reached } from '../support/traffic.ts';

interface Response {
  readonly id: string;
}

const create = async (url: string, more: object = {}): Promise<[number, Response]> => {
  const answer = await fetch(`${url}/v1/responses`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: 'm', input: 'x', max_output_tokens: 4, ...more }),
  });
  return [answer.status, (await answer.json()) as Response];
};
const makerOf = (id: string): string => /^resp_(.+)-\d+$/.exec(id)?.[1] ?? '';
const nameOf = (i: number): string => `r-${i}`;

test.each(testEngines)('scheduler and forwarder die, engine %s', async (engine) => {
  const replicas: ReplicaProcess[] = [];
  try {
    for (let i = 0; i < 4; i++)
      replicas.push(await replicaProcess({ name: nameOf(i), profile: 'instant' }));
    const config = {
      ...{ listen: { engine }, admin: { token: faultToken }, log: { level: 'warn' as const } },
      ...{ threads: { forwarders: 1 } },
      models: [
        {
          name: 'm',
          replicas: replicas.map(({ url }, i) => ({ url, name: nameOf(i), max_in_flight: 1 })),
        },
      ],
    };
    await withGateway({ config, env: faultEnv }, async (gateway) => {
      const { url } = gateway;
      const ids: string[] = [];
      for (let i = 0; i < 12; i++) ids.push((await create(url))[1].id);
      const maker = makerOf(ids[0]!);
      const replica = replicas[Number(maker.slice(2))]!;
      const allAreFound = async (): Promise<void> => {
        for (const id of ids) {
          const got = await fetch(`${url}/v1/responses/${id}`);
          expect([got.status, got.headers.get('x-sluice-replica')]).toEqual([200, makerOf(id)]);
          await got.text();
        }
      };

      // One runs at the gate of the replica, two wait for it, and others are served meanwhile.
      const previous = { previous_response_id: ids[0]! };
      const first = create(url, { ...previous, input: '[[hold]]' });
      await replica.arrivals(1);
      const waiting = [create(url, previous), create(url, previous)];
      await reached(
        () => gateway.cluster(),
        ({ models }) => models.reduce((sum, { queue_depth }) => sum + queue_depth, 0) === 2,
        'two wait for the one replica',
      );
      await dieAt(gateway, ['scheduler', 'scheduler', 'popped'], async () => {
        const [status, passed] = await create(url);
        expect([status, makerOf(passed.id) === maker]).toEqual([200, false]);
      });
      await replica.release();
      for (const [ended, { id }] of await Promise.all([first, ...waiting])) {
        expect([ended, makerOf(id)]).toEqual([200, maker]);
        ids.push(id);
      }
      await allAreFound();

      // The forwarder dies with one in its hands: that one comes to the same replica again.
      const second = create(url, { ...previous, input: '[[hold]]' });
      await replica.arrivals(1);
      await dieAt(gateway, ['forwarder-0', 'forwarder', 'connecting'], async () => {
        const [ended, { id }] = await create(url);
        expect(ended).toBe(200);
        ids.push(id);
      });
      await replica.arrivals(1);
      await replica.release();
      const [ended, { id }] = await second;
      expect([ended, makerOf(id)]).toEqual([200, maker]);
      ids.push(id);
      await allAreFound();
    });
  } finally {
    for (const replica of replicas) await replica.close();
  }
});

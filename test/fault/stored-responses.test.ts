/** What is known of stored responses, and who is pinned by it, outlives the threads. Both engines. */
import { expect, test } from 'vitest';
import { testEngines, withGateway } from '../support/gateway.ts';
import { type ReplicaProcess, replicaProcess } from '../support/replica.ts';
import { create, get, makerOf, servedBy } from '../support/stored-responses.ts';
import { dieAt, faultEnv, faultToken } from '../support/thread-faults.ts';
import { reached } from '../support/traffic.ts';

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
      for (let i = 0; i < 12; i++) ids.push((await create(url)).body.id);
      const maker = makerOf(ids[0]!);
      const replica = replicas[Number(maker.slice(2))]!;
      const allAreFound = async (): Promise<void> => {
        for (const id of ids) {
          const got = await get(url, id);
          expect([got.status, servedBy(got)]).toEqual([200, makerOf(id)]);
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
        const { status, body } = await create(url);
        expect([status, makerOf(body.id) === maker]).toEqual([200, false]);
      });
      await replica.release();
      for (const { status, body } of await Promise.all([first, ...waiting])) {
        expect([status, makerOf(body.id)]).toEqual([200, maker]);
        ids.push(body.id);
      }
      await allAreFound();

      // The forwarder dies with one in its hands: that one comes to the same replica again.
      const second = create(url, { ...previous, input: '[[hold]]' });
      await replica.arrivals(1);
      await dieAt(gateway, ['forwarder-0', 'forwarder', 'connecting'], async () => {
        const { status, body } = await create(url);
        expect(status).toBe(200);
        ids.push(body.id);
      });
      await replica.arrivals(1);
      await replica.release();
      const { status, body } = await second;
      expect([status, makerOf(body.id)]).toEqual([200, maker]);
      ids.push(body.id);
      await allAreFound();
    });
  } finally {
    for (const replica of replicas) await replica.close();
  }
});

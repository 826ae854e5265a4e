/** Priorities of keys through a whole gateway. */
import { expect, test } from 'vitest';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import { withGateway } from '../support/gateway.ts';
import { chatBody, configOf, post, withReplicas } from '../support/scenario.ts';

test('of two who wait, the one whose key has the higher priority goes first', async () => {
  const [batch, live] = [newKey(), newKey()];
  const keys = [
    { id: 'batch', sha256: sha256Of(batch), priority: -20 },
    { id: 'live', sha256: sha256Of(live), priority: 40 },
  ];
  await withReplicas(1, { hold: true }, async ([replica]) => {
    const replicas = [{ url: replica!.url, name: 'r1', max_in_flight: 1 }];
    const tenants = [{ name: 't', priority: 10, keys }];
    const config = configOf([], { tenants }, { replicas });
    await withGateway({ config }, async (gateway) => {
      const order: string[] = [];
      const send = async (name: string, key: string): Promise<void> => {
        // A tenant that may not say so itself is not heard.
        const headers = { authorization: `Bearer ${key}`, 'x-sluice-priority': '90' };
        const answer = await post(gateway.url, chatBody(name, { max_tokens: 1 }), headers);
        expect(answer.status).toBe(200);
        order.push(name);
      };
      const waits = (count: number) =>
        expect.poll(async () => (await gateway.cluster()).queue_depth).toBe(count);
      const all = [send('first', batch)];
      await replica!.gate.arrivals(1);
      all.push(send('batch', batch));
      await waits(1);
      all.push(send('live', live));
      await waits(2);
      for (let served = 0; served < 3; served++) {
        await replica!.gate.arrivals(1);
        replica!.gate.release();
        await expect.poll(() => order.length).toBe(served + 1);
      }
      await Promise.all(all);
      expect(order).toEqual(['first', 'live', 'batch']);
    });
  });
});

/** Two acceptors and two forwarders share the work, and every request is served once. */
import { describe, expect, test } from 'vitest';
import { expectQuiet, testEngines, withGateway } from '../support/gateway.ts';
import { configOf, total, withReplicas } from '../support/scenario.ts';
import { answerTokens, call, reached } from '../support/traffic.ts';

const held = 64;
const more = 240;

describe.each(testEngines)('threads: two of each, engine %s', (engine) => {
  test('streams and whole answers, each exactly once', async () => {
    await withReplicas(2, { profile: 'tokens:ttft=2ms,itl=1ms' }, async (replicas) => {
      const config = configOf(replicas, {
        listen: { engine },
        threads: { acceptors: 2, forwarders: 2 },
      });
      await withGateway({ config }, async (gateway) => {
        const tags = '[[fault:hold-after=3]]';
        const first = Array.from({ length: held }, (_, i) =>
          call(gateway.port, { nonce: `held-${i}`, tags, stream: true }),
        );
        // All of them stand still in the middle: the table shows who has them.
        const { rows } = await reached(
          () => gateway.slots(),
          ({ states }) => states.streaming === held,
          'all stream',
        );
        for (const field of ['acceptor', 'forwarder'] as const) {
          const shares = [0, 1].map((n) => rows.filter((row) => row[field] === n).length);
          expect(shares[0]! + shares[1]!, field).toBe(held);
          // Forwarders get the next request by what they have, acceptors by the kernel's hash.
          if (field === 'forwarder') expect(shares).toEqual([held / 2, held / 2]);
          else expect(Math.min(...shares), `${field}: ${shares}`).toBeGreaterThan(held / 8);
          if (field === 'acceptor') {
            // Threads tell their connections with a heartbeat.
            await reached(
              () => gateway.slots(),
              ({ threads }) =>
                shares.every((share, n) =>
                  threads.some((t) => t.name === `acceptor-${n}` && t.connections === share),
                ),
              `connections of the acceptors: ${shares}`,
            );
          }
        }
        // The same streams go on beside others.
        const beside = Array.from({ length: 8 }, async (_, client) => {
          for (let i = 0; i < more / 8; i++) {
            const c = call(gateway.port, { nonce: `more-${client}-${i}`, stream: i % 2 === 0 });
            expect((await c.ended).end, c.body.toString()).toBe('done');
            if (c.isStream) expect(c.ledger).toMatchObject({ tokens: answerTokens, exact: true });
            if (i === 10 && client === 0) for (const { gate } of replicas) gate.release();
          }
        });
        await Promise.all(beside);
        for (const c of first) {
          expect((await c.ended).end, c.body.toString()).toBe('done');
          expect(c.ledger).toMatchObject({ tokens: answerTokens, exact: true, foreign: 0 });
        }
        await expectQuiet(gateway);
        const stats = replicas.map((replica) => replica.stats());
        expect(stats[0]!.served + stats[1]!.served).toBe(held + more);
        for (const one of stats) {
          expect(one).toMatchObject({ ids_repeated: 0, aborted: 0, failed: 0, in_flight: 0 });
          expect(one.served).toBeGreaterThan(0);
        }
        const metrics = await gateway.metrics();
        expect(total(metrics, 'sluice_requests_total', { code: '200' })).toBe(held + more);
      });
    });
  });
});

/**
 * The scheduler dies under load: no client takes what it got for a whole answer unless it is one, and
 * the supervisor's next gateway serves.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { expectQuiet, testEngines, withGateway } from '../support/gateway.ts';
import { configOf, withReplicas } from '../support/scenario.ts';
import { answerTokens, type Call, call, reached } from '../support/traffic.ts';

const faults = fileURLToPath(new URL('../support/gateway-faults.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'sluice-scheduler-'));
afterAll(() => rmSync(folder, { recursive: true }));

const streaming = 24;
const waiting = 8;

/** A client that goes on calling until its gateway is gone; its calls. */
async function callsUntilBroken(port: number, name: string): Promise<Call[]> {
  const calls: Call[] = [];
  for (;;) {
    const c = call(port, { nonce: `${name}-${calls.length}`, stream: calls.length % 2 === 0 });
    calls.push(await c.ended);
    if (c.end !== 'done') return calls;
  }
}

test.each(testEngines)('ADR 6: under the supervisor, engine %s', async (engine) => {
  const die = join(folder, `die-${engine}`);
  // Room for those that stream, a place in the queue for those that wait, and some that come and go.
  const options = { profile: 'tokens:ttft=2ms,itl=2ms' };
  await withReplicas(2, options, async (replicas) => {
    const rows = replicas.map(({ url }, i) => ({ url, name: `r${i + 1}`, max_in_flight: 16 }));
    const config = configOf(replicas, { listen: { engine } }, { replicas: rows });
    const nodeFlags = ['--import', faults];
    const env = { SLUICE_TEST_DIE_FILE: die };
    await withGateway({ config, nodeFlags, env, supervisor: true }, async (gateway) => {
      const { port } = gateway;
      const tags = '[[fault:hold-after=3]]';
      const streams = Array.from({ length: streaming }, (_, i) =>
        call(port, { nonce: `stream-${i}`, tags, stream: true }),
      );
      await Promise.all(streams.map((c) => c.until(({ tokens }) => tokens === 3)));
      const wholes = Array.from({ length: waiting }, (_, i) =>
        call(port, { nonce: `whole-${i}`, tags: '[[hold]]' }),
      );
      await reached(
        () => gateway.cluster(),
        (view) => view.replicas.every(({ in_flight }) => in_flight === 16),
        'the replicas are full',
      );
      const queued = Array.from({ length: waiting }, (_, i) =>
        call(port, { nonce: `queued-${i}`, stream: i % 2 === 0 }),
      );
      await reached(
        () => gateway.cluster(),
        ({ queue_depth }) => queue_depth === waiting,
        'the rest waits',
      );
      const busy = ['a', 'b'].map((name) => callsUntilBroken(port, name));
      writeFileSync(die, '');

      for (const c of [...streams, ...wholes, ...queued]) {
        const { end, ledger, body } = await c.ended;
        expect(['stream-error', 'http-error', 'broken', 'silent'], body.toString()).toContain(end);
        expect(ledger.sawDone, body.toString()).toBe(false);
        expect(c.isComplete && c.status === 200 && !c.isStream, 'a whole answer').toBe(false);
        // A cut connection or an error tells; a stream that ends by its framing must carry an error.
        if (end === 'silent') expect(c.isComplete).toBe(false);
        if (c.isStream && c.status === 200) {
          expect(ledger).toMatchObject({ exact: true, duplicates: 0, gaps: 0, foreign: 0 });
        }
      }
      for (const calls of await Promise.all(busy)) {
        for (const c of calls) if (c.end === 'done') expect(c.ledger.tokens % answerTokens).toBe(0);
      }
      await gateway.said('scheduler died');
      await gateway.said('injected');
      await gateway.starts(2);
      for (const replica of replicas) await replica.until(({ in_flight }) => in_flight === 0);
      for (let i = 0; i < 10; i++) {
        const c = await call(gateway.port, { nonce: `after-${i}`, stream: i % 2 === 0 }).ended;
        expect(c.end, c.body.toString()).toBe('done');
      }
      await expectQuiet(gateway);
      expect((await gateway.stop()).code).toBe(0);
    });
  });
});

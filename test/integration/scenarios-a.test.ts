/**
 * System A's own scenarios through the whole gateway; ids as in the inventory of prior art. Those that
 * measure are in scenarios-load.test.ts.
 */
import { spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { PolicyName } from '../../src/config/schema.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { expectQuiet, type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import {
  chatBody,
  chatSeries,
  configOf,
  countEvents,
  expectServedOnce,
  load,
  model,
  openStream,
  post,
  quickHealth,
  servedBy,
  untilReplica,
  withReplicas,
} from '../support/scenario.ts';
import { readSse } from '../support/sse-ledger.ts';

const program = resolve(import.meta.dirname, '../../src/main.ts');
async function replicaOf(gateway: GatewayProcess): Promise<string | null> {
  return (await post(gateway.url, chatBody('x'))).headers.get('x-sluice-replica');
}

describe.each(testEngines)('A-02 on %s', (engine) => {
  test('A-02: completions and chat, streams on the normal paths, health, metrics, cluster', async () => {
    await withReplicas(2, {}, async (replicas) => {
      const config = configOf(replicas, { listen: { engine } });
      await withGateway({ config }, async (gateway) => {
        const prompt = { model, prompt: 'hello', max_tokens: 3 };
        const text = await post(gateway.url, prompt, {}, '/v1/completions');
        expect(text.status).toBe(200);
        expect(JSON.parse(text.text)).toMatchObject({ object: 'text_completion' });
        const chat = await post(gateway.url, chatBody('hello'));
        expect(JSON.parse(chat.text)).toMatchObject({ object: 'chat.completion' });
        for (const [path, body] of [
          ['/v1/completions', prompt],
          ['/v1/chat/completions', chatBody('hello')],
        ] as const) {
          const stream = await post(gateway.url, { ...body, stream: true }, {}, path);
          expect(stream.headers.get('content-type')).toMatch(/^text\/event-stream/);
          expect(stream.text).toMatch(/\ndata: \[DONE\]\n\n$/);
        }
        expect((await fetch(`${gateway.url}/healthz`)).status).toBe(200);
        expect(await (await fetch(`${gateway.adminUrl}/healthz`)).json()).toEqual({ ok: true });
        const page = await fetch(`${gateway.adminUrl}/metrics`);
        expect(page.headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/);
        const cluster = await gateway.cluster();
        expect(cluster).toMatchObject({
          ...{ policy: 'marginal_cost', queue_depth: 0, dispatched: 4, dropped: 0, engine },
        });
        expect(cluster.replicas).toHaveLength(2);
        for (const [i, row] of cluster.replicas.entries()) {
          expect(row).toEqual({
            ...{ name: `r${i + 1}`, model, url: replicas[i]!.url, healthy: true, state: 'active' },
            ...{ breaker: 'closed', ejections: 0 },
            ...{ in_flight: 0, requests: replicas[i]!.stats().started, errors: 0 },
            ...{ weight: 1, max_in_flight: 256, adapters: [], reason: '', engine: null },
          });
        }
      });
    });
  });
});

const policies: readonly PolicyName[] = [
  ...(['round_robin', 'random', 'least_in_flight'] as const),
  ...(['power_of_two', 'weighted_least_connections'] as const),
];

test.each(policies)('A-09: %s is chosen by the config and spreads the load', async (policy) => {
  await withReplicas(4, { profile: 'uniform:2ms-4ms' }, async (replicas) => {
    const config = configOf(replicas, {}, { policy });
    await withGateway({ config }, async (gateway) => {
      expect((await gateway.cluster()).policy).toBe(policy);
      const { metrics } = await load(gateway, { requestsMax: 400, connections: 16 });
      expect(metrics.failed).toBe(0);
      expectServedOnce(replicas, 400);
      for (const served of servedBy(replicas)) expect(served).toBeGreaterThan(50);
      if (policy === 'round_robin') expect(servedBy(replicas)).toEqual([100, 100, 100, 100]);
      await expectQuiet(gateway);
    });
  });
});

test('A-05, A-07, A-10: turns skip the one that is down; full ones are passed over; nobody is a 503', async () => {
  await withReplicas(3, { hold: false }, async (replicas) => {
    const [a, b, c] = replicas as [Replica, Replica, Replica];
    const health = quickHealth;
    const turns = configOf(replicas, { health }, { policy: 'round_robin' });
    await withGateway({ config: turns }, async (gateway) => {
      const six: (string | null)[] = [];
      for (let i = 0; i < 6; i++) six.push(await replicaOf(gateway));
      expect(six).toEqual([...six.slice(0, 3), ...six.slice(0, 3)]);
      expect(six.toSorted()).toEqual(['r1', 'r1', 'r2', 'r2', 'r3', 'r3']);
      await b.listen(false);
      await untilReplica(gateway, 'r2', ({ healthy }) => !healthy);
      const ten: (string | null)[] = [];
      for (let i = 0; i < 10; i++) ten.push(await replicaOf(gateway));
      expect(ten.filter((name) => name === 'r2')).toEqual([]);
      expect(ten.filter((name) => name === 'r1')).toHaveLength(5);

      for (const replica of [a, c]) await replica.listen(false);
      for (const name of ['r1', 'r3']) await untilReplica(gateway, name, (r) => !r.healthy);
      const before = await gateway.cluster();
      for (let i = 0; i < 5; i++) {
        const answer = await post(gateway.url, chatBody('x'));
        expect(answer.status).toBe(503);
        expect(JSON.parse(answer.text).error.code).toBe('no_replica');
      }
      const after = await gateway.cluster();
      expect(after.dropped - before.dropped).toBe(5);
      expect(after.dispatched).toBe(before.dispatched);
      expect((await gateway.ready()).status).toBe(503);
    });
  });
});

test('A-06, A-07: loads of 5, 1, 3: the least loaded is picked, and the next when it is gone', async () => {
  await withReplicas(3, {}, async (replicas) => {
    const config = configOf(replicas, { health: quickHealth }, { policy: 'least_in_flight' });
    await withGateway({ config }, async (gateway) => {
      const held: Promise<unknown>[] = [];
      // All three are filled to five in turn, then two of them are let go down to 1 and 3.
      for (let i = 0; i < 15; i++) held.push(post(gateway.url, chatBody('[[hold]]')));
      await Promise.all(replicas.map((replica) => replica.gate.arrivals(5)));
      replicas[1]!.gate.release(4);
      replicas[2]!.gate.release(2);
      await untilReplica(gateway, 'r2', ({ in_flight }) => in_flight === 1);
      await untilReplica(gateway, 'r3', ({ in_flight }) => in_flight === 3);
      expect(await replicaOf(gateway)).toBe('r2');
      await replicas[1]!.listen(false);
      await untilReplica(gateway, 'r2', ({ healthy }) => !healthy);
      expect(await replicaOf(gateway)).toBe('r3');
      for (const replica of replicas) replica.gate.release();
      await Promise.all(held);
      await expectQuiet(gateway);
    });
  });
});

test('A-16: 30 requests in turns over 3 replicas are 30 dispatches of 10 each, queue empty', async () => {
  await withReplicas(3, {}, async (replicas) => {
    const config = configOf(replicas, {}, { policy: 'round_robin' });
    await withGateway({ config }, async (gateway) => {
      const answers = Array.from({ length: 30 }, () => post(gateway.url, chatBody('x')));
      for (const answer of await Promise.all(answers)) expect(answer.status).toBe(200);
      expect(servedBy(replicas)).toEqual([10, 10, 10]);
      await expectQuiet(gateway);
      expect(await gateway.cluster()).toMatchObject({ dispatched: 30, dropped: 0, queue_depth: 0 });
    });
  });
});

describe.each(testEngines)('A-17 on %s', (engine) => {
  test('A-17: a token is forwarded before the next one exists; nobody may buffer or cache', async () => {
    await withReplicas(1, {}, async ([replica]) => {
      const config = configOf([replica!], { listen: { engine } });
      await withGateway({ config }, async (gateway) => {
        const prompt = 'nonce=n [[len=3]] [[fault:hold-after=1]]';
        const stream = await openStream(gateway.url, chatBody(prompt, { max_tokens: 3 }));
        expect(stream.status).toBe(200);
        // Token 1 is held at the gate: whatever is here came before it was produced.
        await stream.until((text) => text.includes('n:0:'));
        await replica!.gate.arrivals(1);
        expect(stream.text()).not.toContain('n:1:');
        replica!.gate.release();
        const { text, cut } = await stream.ended;
        expect(cut).toBe(false);
        const ledger = readSse(new TextEncoder().encode(text), chatSeries(prompt));
        expect(ledger).toMatchObject({ tokens: 3, exact: true, sawDone: true });
        expect(countEvents(text)).toBeGreaterThanOrEqual(5);
        expect(stream.headers.get('content-type')).toMatch(/^text\/event-stream/);
        expect(stream.headers.get('cache-control')).toMatch(/no-cache/);
        expect(stream.headers.get('x-accel-buffering')).toBe('no');
        expect(stream.headers.get('server')).not.toBe('uvicorn');
      });
    });
  });
});

test('A-20: what a replica does wrong is never a 200', async () => {
  const table: readonly [string, number, string?][] = [
    ['status=500', 502, 'replica_error'],
    ['status=503', 503],
    ['status=429', 429],
    ['status=404', 404],
    ['status=400', 400],
    ['reset=headers', 502, 'connection_reset'],
    ['fin=headers', 502, 'connection_closed'],
    ['fin=body', 502],
    ['ok-error', 502, 'replica_error_body'],
    ['stall=headers', 502, 'headers_timeout'],
  ];
  await withReplicas(1, {}, async ([replica]) => {
    const timeouts = { answer: '300ms' };
    const config = configOf([replica!], { retry: { max_attempts: 1 }, timeouts });
    await withGateway({ config }, async (gateway) => {
      for (const [fault, status, code] of table) {
        const answer = await post(gateway.url, chatBody(`[[fault:${fault}]]`));
        expect(answer.status, `${fault}: ${answer.text}`).toBe(status);
        const { error } = JSON.parse(answer.text);
        expect(error.message, fault).toBeTypeOf('string');
        if (code !== undefined) expect(error.code, fault).toBe(code);
      }
      expect(
        (await fetch(`${gateway.url}/v1/nothing`, { method: 'POST', body: '{}' })).status,
      ).toBe(404);
      await expectQuiet(gateway);
    });
  });
});

test('A-22: sluice bench sends the classic body and reports rates and percentiles', async () => {
  await withReplicas(1, { profile: 'uniform:2ms-4ms' }, async ([replica]) => {
    await withGateway({ config: configOf([replica!]) }, async (gateway) => {
      const flags = ['--num-prompts', '100', '--connections', '8', '--model', model, '--json'];
      const child = spawn(process.execPath, [program, 'bench', '--target', gateway.url, ...flags]);
      let stdout = '';
      child.stdout.on('data', (chunk: Buffer) => {
        stdout += chunk.toString();
      });
      const code = await new Promise((done) => child.once('close', done));
      expect(code).toBe(0);
      const report = JSON.parse(stdout);
      expect(report).toMatchObject({ completed: 100, failed: 0 });
      for (const key of ['request_throughput', 'p50_e2el_ms', 'p95_e2el_ms', 'p99_e2el_ms']) {
        expect(report[key], key).toBeGreaterThan(0);
      }
      expect(replica!.stats().started).toBe(100);
      const { head, bodyBytes } = replica!.ledger()[0]!;
      expect(head).toContain('POST /v1/chat/completions');
      const classic = { model, messages: [{ role: 'user', content: 'hello' }], max_tokens: 16 };
      expect(bodyBytes).toBe(JSON.stringify(classic).length);
    });
  });
});

/** System A's own scenarios through the whole gateway; ids as in the inventory of prior art. */
import { spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { describe, expect, test } from 'vitest';
import type { PolicyName } from '../../src/config/schema.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { expectQuiet, type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import {
  chatBody,
  chatSeries,
  configOf,
  countEvents,
  load,
  model,
  openStream,
  post,
  quantileBucket,
  quickHealth,
  total,
  untilReplica,
  withReplicas,
} from '../support/scenario.ts';
import { readSse } from '../support/sse-ledger.ts';

const lagResolutionMs = 2;
const program = resolve(import.meta.dirname, '../../src/main.ts');
const servedBy = (replicas: readonly Replica[]): number[] =>
  replicas.map((replica) => replica.stats().served);
const sum = (counts: readonly number[]): number => counts.reduce((a, b) => a + b, 0);

/** WA-1: every request reached exactly one replica exactly once. */
function expectServedOnce(replicas: readonly Replica[], requests: number): void {
  expect(sum(servedBy(replicas))).toBe(requests);
  for (const replica of replicas) {
    expect(replica.stats()).toMatchObject({ ids_repeated: 0, failed: 0, aborted: 0 });
  }
}

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
          ...{ policy: 'power_of_two', queue_depth: 0, dispatched: 4, dropped: 0, engine },
        });
        expect(cluster.replicas).toHaveLength(2);
        for (const [i, row] of cluster.replicas.entries()) {
          expect(row).toEqual({
            ...{ name: `r${i + 1}`, model, url: replicas[i]!.url, healthy: true, state: 'active' },
            ...{ in_flight: 0, requests: replicas[i]!.stats().started, errors: 0 },
            ...{ weight: 1, max_in_flight: 256, reason: '' },
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

test('A-13: after 10,000 requests the counters equal those of client and replicas', async () => {
  await withReplicas(4, {}, async (replicas) => {
    await withGateway({ config: configOf(replicas) }, async (gateway) => {
      const machine = monitorEventLoopDelay({ resolution: lagResolutionMs });
      machine.enable();
      const { metrics } = await load(gateway, { requestsMax: 10_000, connections: 32 });
      machine.disable();
      expect(metrics.failed).toBe(0);
      expect(metrics.statuses.get(200)).toBe(10_000);
      expectServedOnce(replicas, 10_000);
      await expectQuiet(gateway);
      const page = await gateway.metrics();
      expect(total(page, 'sluice_requests_total')).toBe(10_000);
      expect(total(page, 'sluice_requests_total', { model, code: '200' })).toBe(10_000);
      expect(total(page, 'sluice_requests_in_flight')).toBe(0);
      expect(total(page, 'sluice_queue_depth')).toBe(0);
      expect(total(page, 'sluice_scheduler_dispatched_total')).toBe(10_000);
      expect(total(page, 'sluice_scheduler_dropped_total')).toBe(0);
      for (const name of ['request_duration', 'scheduling_latency', 'decision']) {
        expect(total(page, `sluice_${name}_seconds_count`), name).toBe(10_000);
      }
      for (const [i, served] of servedBy(replicas).entries()) {
        const replica = `r${i + 1}`;
        expect(total(page, 'sluice_replica_requests_total', { replica })).toBe(served);
        expect(total(page, 'sluice_replica_errors_total', { replica })).toBe(0);
        expect(total(page, 'sluice_replica_in_flight', { replica })).toBe(0);
        expect(total(page, 'sluice_replica_up', { replica })).toBe(1);
      }
      const p99 = quantileBucket(page, 'sluice_scheduling_latency_seconds', 0.99);
      // Everything runs on the same cores: a loop here that waits says that the threads there do.
      const lagMs = machine.percentile(99) / 1e6 - lagResolutionMs;
      const lag = `p99 lag of this process ${lagMs.toFixed(1)} ms`;
      console.info(`A-15: closed loop, scheduling p99 in (${p99.lower}, ${p99.upper}] s, ${lag}`);
      if (lagMs > 20) console.warn('A-15: the machine is starved, 50 ms are allowed');
      expect(p99.upper, lag).toBeLessThanOrEqual(lagMs > 20 ? 0.05 : 0.01);
    });
  });
});

test('A-15: the scheduler wakes within 50 ms for 99 of 100 requests that come alone', async () => {
  await withReplicas(1, {}, async ([replica]) => {
    await withGateway({ config: configOf([replica!]) }, async (gateway) => {
      const { metrics } = await load(gateway, { requestsMax: 500, connections: 1 });
      expect(metrics.statuses).toEqual(new Map([[200, 500]]));
      await expectQuiet(gateway);
      const page = await gateway.metrics();
      expect(total(page, 'sluice_scheduling_latency_seconds_count')).toBe(500);
      const p99 = quantileBucket(page, 'sluice_scheduling_latency_seconds', 0.99);
      console.info(`A-15: idle, scheduling p99 in (${p99.lower}, ${p99.upper}] s`);
      expect(p99.upper).toBeLessThanOrEqual(0.05);
    });
  });
});

test('A-14: a histogram has the bucket of every observation', async () => {
  await withReplicas(1, {}, async ([replica]) => {
    await withGateway({ config: configOf([replica!]) }, async (gateway) => {
      const slow = chatBody('[[fault:delay=120]]', { stream: true });
      for (let i = 0; i < 10; i++) await post(gateway.url, chatBody('x', { stream: true }));
      for (let i = 0; i < 10; i++) await post(gateway.url, slow);
      await expectQuiet(gateway);
      const page = await gateway.metrics();
      const name = 'sluice_time_to_first_token_seconds';
      expect(total(page, `${name}_count`)).toBe(20);
      expect(total(page, `${name}_bucket`, { le: '0.1' })).toBe(10);
      expect(total(page, `${name}_bucket`, { le: '+Inf' })).toBe(20);
      expect(quantileBucket(page, name, 0.5).upper).toBeLessThanOrEqual(0.1);
      expect(quantileBucket(page, name, 0.95).lower).toBeGreaterThanOrEqual(0.1);
      expect(total(page, `${name}_sum`)).toBeGreaterThan(1.2);
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
    const timeouts = { first_token: '300ms' };
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

test('A-21, A-23, A-24: 4 replicas of 8 to 24 ms, 5 s of 16 clients: all well, each served once', async () => {
  await withReplicas(4, { profile: 'uniform:8ms-24ms' }, async (replicas) => {
    await withGateway({ config: configOf(replicas) }, async (gateway) => {
      const idle = (await gateway.slots()).rss_bytes;
      const rss: number[] = [];
      const sampler = setInterval(async () => rss.push((await gateway.slots()).rss_bytes), 500);
      const { metrics, durationMs } = await load(gateway, { durationMs: 5000, connections: 16 });
      clearInterval(sampler);
      expect(metrics.failed).toBe(0);
      // 16 clients of 16 ms on average would be 1,000 per second; half of it allows a busy machine.
      expect(metrics.completed).toBeGreaterThan(2500);
      expectServedOnce(replicas, metrics.sent);
      const counts = servedBy(replicas);
      const mean = sum(counts) / 4;
      for (const served of counts) expect(Math.abs(served - mean) / mean).toBeLessThan(0.15);
      expect(metrics.e2el.summary().p50).toBeGreaterThanOrEqual(8);
      expect(metrics.e2el.summary().mean).toBeGreaterThan(15);
      expect((await fetch(`${gateway.url}/healthz`)).status).toBe(200);
      await expectQuiet(gateway);
      expect(rss.length).toBeGreaterThan(5);
      expect(Math.max(...rss)).toBeLessThan(250 * 1024 * 1024);
      expect(Math.max(...rss) - idle).toBeLessThan(60 * 1024 * 1024);
      const rps = Math.round((metrics.completed / durationMs) * 1000);
      const mib = (bytes: number): number => Math.round(bytes / 2 ** 20);
      console.info(`A-23: ${rps} rps; A-24: RSS ${mib(idle)} to ${mib(Math.max(...rss))} MiB`);
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

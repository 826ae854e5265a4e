/**
 * Metrics of the edge and of threads through the whole gateway, against what its clients saw: answers by
 * route, who was turned away and why, what limits decided, time per token, what replicas were expected to
 * have cached, CPU. Both engines.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import type { Family } from '../support/prometheus-text.ts';
import { countEvents, post, total, withReplicas } from '../support/scenario.ts';
import { call, reached } from '../support/traffic.ts';

const keys = { free: newKey(), few: newKey(), narrow: newKey(), poor: newKey() };
type Tenant = keyof typeof keys;
const bearer = (tenant: Tenant) => ({ authorization: `Bearer ${keys[tenant]}` });

const configOf = (engine: 'uws' | 'node', url: string): ConfigInput => {
  const tenant = (name: Tenant, more: object = {}) => ({
    ...{ name, keys: [{ id: 'k', sha256: sha256Of(keys[name]) }] },
    ...more,
  });
  return {
    ...{ listen: { engine }, queue: { max: 1 } },
    tenants: [
      tenant('free'),
      tenant('few', {
        limits: { requests_per_minute: 2, burst: '24h' },
        model_limits: {
          m: { requests_per_minute: 3, burst: '24h' },
          one: { concurrency: 4 },
        },
      }),
      tenant('narrow', { limits: { concurrency: 1 } }),
      // One that has series of its own no more.
      tenant('poor', {
        limits: { requests_per_minute: 1, burst: '1s' },
        model_limits: { one: { concurrency: 1 } },
      }),
    ],
    metrics: { tenants: 3 },
    models: [
      { name: 'm', policy: 'cache_aware', replicas: [{ url, name: 'r1' }] },
      { name: 'one', policy: 'round_robin', replicas: [{ url, name: 'r2', max_in_flight: 1 }] },
    ],
  };
};

/** Samples of a family, by their labels in the order of the alphabet. */
const samplesOf = (families: Map<string, Family>, name: string): Record<string, number> => {
  const samples = families.get(name)?.samples ?? new Map<string, number>();
  return Object.fromEntries(
    [...samples].map(([key, value]) => [
      key.slice(name.length).replaceAll(/^(\w*)\{|\}$|"/g, '$1'),
      value,
    ]),
  );
};

const get = async (gateway: GatewayProcess, path: string, init: RequestInit = {}) => {
  const response = await fetch(gateway.url + path, init);
  await response.arrayBuffer();
  return response.status;
};

test.each(testEngines)('%s: answers are counted by route, method and status', (engine) =>
  withReplicas(1, { profile: 'instant' }, async ([replica]) => {
    await withGateway({ config: configOf(engine, replica!.url) }, async (gateway) => {
      const headers = bearer('free');
      expect(await get(gateway, '/healthz')).toBe(200);
      expect(await get(gateway, '/healthz?probe=1')).toBe(200);
      expect(await get(gateway, '/v1/models', { headers })).toBe(200);
      expect(await get(gateway, '/v1/models')).toBe(401);
      expect(await get(gateway, '/v1/models/one', { headers })).toBe(200);
      expect(await get(gateway, '/v1/models/nobody', { headers })).toBe(404);
      for (let i = 0; i < 20; i++) expect(await get(gateway, `/random/${i}`)).toBe(404);
      expect(await get(gateway, '/v1/embeddings', { method: 'PUT', body: 'x' })).toBe(405);
      expect(await get(gateway, '/v1/embeddings', { method: 'POST', body: '{' })).toBe(401);
      expect((await post(gateway.url, '{', headers)).status).toBe(400);
      for (let i = 0; i < 3; i++) {
        expect((await call(gateway.port, { nonce: `n${i}`, headers }).ended).status).toBe(200);
      }
      const families = await gateway.metrics();
      expect(samplesOf(families, 'sluice_http_requests_total')).toEqual({
        'code=200,method=GET,route=/healthz': 2,
        'code=200,method=GET,route=/v1/models': 1,
        'code=401,method=GET,route=/v1/models': 1,
        'code=200,method=GET,route=/v1/models/{model}': 1,
        'code=404,method=GET,route=/v1/models/{model}': 1,
        'code=404,method=GET,route=other': 20,
        'code=405,method=other,route=other': 1,
        'code=401,method=POST,route=/v1/embeddings': 1,
        'code=400,method=POST,route=/v1/chat/completions': 1,
        'code=200,method=POST,route=/v1/chat/completions': 3,
      });
      const durations = samplesOf(families, 'sluice_http_request_duration_seconds');
      const counts = Object.entries(durations).filter(([key]) => key.startsWith('_count'));
      expect(Object.fromEntries(counts)).toEqual({
        '_countroute=/healthz': 2,
        '_countroute=/v1/models': 2,
        '_countroute=/v1/models/{model}': 2,
        '_countroute=other': 21,
        '_countroute=/v1/embeddings': 1,
        '_countroute=/v1/chat/completions': 4,
      });
    });
  }),
);

test.each(testEngines)(
  '%s: who is turned away for want of room, and what limits decide',
  (engine) =>
    withReplicas(1, { profile: 'instant' }, async ([replica]) => {
      await withGateway({ config: configOf(engine, replica!.url) }, async (gateway) => {
        const { gate } = replica!;
        const start = (tenant: Tenant, nonce: string, more: object = {}) =>
          call(gateway.port, { nonce, headers: bearer(tenant), ...more });
        const ask = async (tenant: Tenant, nonce: string, more: object = {}) =>
          (await start(tenant, nonce, more).ended).status;

        const held = start('free', 'held', { model: 'one', tags: '[[hold]]' });
        await gate.arrivals(1);
        const waits = start('free', 'waits', { model: 'one' });
        await reached(
          async () => total(await gateway.metrics(), 'sluice_queue_depth', { model: 'one' }),
          (depth) => depth === 1,
          'a request waits',
        );
        const full = await start('free', 'full', { model: 'one' }).ended;
        expect([full.status, full.errorCode]).toEqual([429, 'rate_limit_exceeded']);
        gate.release();
        expect([(await held.ended).status, (await waits.ended).status]).toEqual([200, 200]);

        const few = [await ask('few', 'f0'), await ask('few', 'f1'), await ask('few', 'f2')];
        const minutes = 24 * 60; // of a day
        expect(few).toEqual([200, 200, 200]);
        const narrow = start('narrow', 'n0', { tags: '[[hold]]' });
        await gate.arrivals(1);
        expect(total(await gateway.metrics(), 'sluice_ratelimit_remaining', narrowest)).toBe(0);
        expect(await ask('narrow', 'n1')).toBe(429);
        gate.release();
        expect((await narrow.ended).status).toBe(200);
        expect((await post(gateway.url, '{', bearer('narrow'))).status).toBe(400);
        const poor = [await ask('poor', 'p0'), await ask('poor', 'p1'), await ask('poor', 'p2')];
        expect(poor).toEqual([200, 429, 429]);

        const families = await gateway.metrics();
        expect(samplesOf(families, 'sluice_shed_total')).toEqual({
          'model=one,reason=queue_full': 1,
        });
        expect(samplesOf(families, 'sluice_ratelimit_decisions_total')).toEqual({
          'dimension=all,result=allowed,tenant=few': 3,
          'dimension=all,result=allowed,tenant=narrow': 1,
          'dimension=concurrency,result=refused,tenant=narrow': 1,
          'dimension=all,result=allowed,tenant=other': 1,
          'dimension=requests,result=refused,tenant=other': 2,
        });
        expect(samplesOf(families, 'sluice_ratelimit_remaining')).toEqual({
          'dimension=requests,tenant=few': 2 * minutes - 3,
          'dimension=concurrency,tenant=narrow': 1,
        });
        expect(samplesOf(families, 'sluice_ratelimit_model_remaining')).toEqual({
          'dimension=requests,model=m,tenant=few': 3 * minutes - 3,
          'dimension=concurrency,model=one,tenant=few': 4,
        });
      });
    }),
);
const narrowest = { tenant: 'narrow', dimension: 'concurrency' };

test.each(testEngines)('%s: time per token, and the cache that is expected', (engine) =>
  withReplicas(1, { profile: 'tokens:ttft=20ms,itl=10ms' }, async ([replica]) => {
    await withGateway({ config: configOf(engine, replica!.url) }, async (gateway) => {
      const headers = bearer('free');
      const tokens = 12;
      const tags = 'the same words again and again '.repeat(200);
      const stream = (nonce: string, more: object = {}) =>
        call(gateway.port, { nonce, headers, tokens, stream: true, tags, ...more }).ended;
      const extra = { stream_options: { include_usage: true } };
      const first = await stream('same', { extra });
      expect(countEvents(first.body.toString())).toBeGreaterThan(tokens);
      const before = await gateway.metrics();
      const queries = total(before, 'sluice_prefix_cache_queries_total', { model: 'm' });
      expect(queries).toBeGreaterThan(1000);
      expect(total(before, 'sluice_prefix_cache_hits_total', { model: 'm' })).toBe(0);
      const second = await stream('same', { extra });
      await call(gateway.port, { nonce: 'whole', headers, tokens, model: 'one' }).ended;

      const after = await gateway.metrics();
      const of = (name: string) => total(after, name, { model: 'm' });
      // The estimate has learnt from the first answer, so it need not be the same again.
      const more = of('sluice_prefix_cache_queries_total') - queries;
      expect(more).toBeGreaterThan(1000);
      const hits = of('sluice_prefix_cache_hits_total');
      expect(hits).toBeGreaterThan(0.8 * more);
      expect(hits).toBeLessThanOrEqual(more);
      expect(total(after, 'sluice_prefix_cache_queries_total', { model: 'one' })).toBe(0);

      const perToken = 'sluice_time_per_output_token_seconds';
      expect(of(`${perToken}_count`)).toBe(2);
      expect(total(after, `${perToken}_count`, { model: 'one' })).toBe(0);
      const clientMs = [first, second].map(
        (each) => (each.endedAt - each.startedAt) / (tokens - 1),
      );
      const seconds = of(`${perToken}_sum`);
      // From the first token to the end of the answer, which has the gaps between tokens in it.
      const gaps = of('sluice_inter_token_latency_seconds_sum');
      expect(gaps).toBeGreaterThan(0);
      expect(seconds).toBeGreaterThan((0.99 * gaps) / (tokens - 1));
      expect(seconds).toBeLessThan(clientMs.reduce((sum, ms) => sum + ms, 0) / 1e3);
    });
  }),
);

test.skipIf(process.platform !== 'linux').each(testEngines)(
  '%s: CPU by thread is that of the process (skipped where there is no /proc)',
  (engine) =>
    withReplicas(1, { profile: 'instant' }, async ([replica]) => {
      await withGateway({ config: configOf(engine, replica!.url) }, async (gateway) => {
        const byThread = async (): Promise<Record<string, number>> =>
          samplesOf(await gateway.metrics(), 'sluice_thread_cpu_seconds_total');
        const first = await byThread();
        const names = ['main', 'scheduler', 'acceptor-0', 'forwarder-0', 'other'];
        expect(Object.keys(first).toSorted()).toEqual(
          names.map((name) => `thread=${name}`).toSorted(),
        );
        const headers = bearer('free');
        const workers = ['thread=acceptor-0', 'thread=forwarder-0'];
        const haveWorked = async (): Promise<boolean> => {
          const now = await byThread();
          return workers.every((name) => now[name]! > first[name]!);
        };
        // A tick is 10 ms of work, however many requests that is here.
        for (let i = 0; i < 5000; i++) {
          await call(gateway.port, { nonce: `c${i}`, headers, stream: true }).ended;
          if (i % 100 === 99 && (await haveWorked())) break;
        }
        const before = processSeconds(gateway.servingPid);
        const second = await byThread();
        const after = processSeconds(gateway.servingPid);
        for (const [thread, seconds] of Object.entries(first)) {
          expect(second[thread], thread).toBeGreaterThanOrEqual(seconds);
        }
        for (const name of workers) {
          expect(second[name], name).toBeGreaterThan(first[name]!);
        }
        const all = Object.values(second).reduce((sum, each) => sum + each, 0);
        const rounding = 0.02 * threadsOf(gateway.servingPid); // two ticks of each thread
        expect(all).toBeGreaterThan(before - rounding);
        expect(all).toBeLessThan(after + rounding);
      });
    }),
);

const threadsOf = (pid: number): number => readdirSync(`/proc/${pid}/task`).length;

function processSeconds(pid: number): number {
  const [, user, system] = /\) (?:\S+ ){11}(\d+) (\d+)/.exec(
    readFileSync(`/proc/${pid}/stat`, 'latin1'),
  )!;
  return (Number(user) + Number(system)) / 100;
}

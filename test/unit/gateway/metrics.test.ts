import { spawnSync } from 'node:child_process';
import { beforeEach, describe, expect, test } from 'vitest';
import { thisMachine } from '../../../scripts/test/servers.ts';
import { GatewayMetrics, type MetricsSources } from '../../../src/gateway/metrics.ts';
import { nowMs } from '../../../src/lib/clock.ts';
import { createMetricsRegion } from '../../../src/shm/metrics.layout.ts';
import { MetricsReader, MetricsWriter } from '../../../src/shm/metrics.ts';
import { metrics, storedMetrics } from '../../../src/telemetry/catalogue.ts';
import {
  defaultMetricDims,
  errorTypeIndex,
  errorTypes,
  LimitDimension,
  LimitResult,
  methodIndex,
  Ring,
  routeIndex,
  Shed,
  Stage,
  statusCodes,
  statusIndex,
  TokenType,
} from '../../../src/telemetry/labels.ts';
import type { Metric } from '../../../src/telemetry/metric-kinds.ts';
import { type Family, parsePrometheusText } from '../../support/prometheus-text.ts';

const dims = defaultMetricDims;
const hostileName = 'we"ird\\na\nme';
const sources: MetricsSources = {
  sinks: () => [{ name: 'kafka', waiting: 3, lagSeconds: 1.5 }],
  overload: () => [{ resource: 'memory', stage: 'refuse_requests', share: 0.93, limit: 1000 }],
  models: () => [
    { row: 0, name: 'llama-3-8b', inFlight: 3, queueDepth: 7 },
    { row: 1, name: hostileName, inFlight: 0, queueDepth: 0 },
  ],
  replicas: () => [
    {
      ...{ row: 0, name: 'r1', model: 'llama-3-8b', up: true, inFlight: 3, breaker: 0 },
      adapters: 2,
      engine: { running: 9, waiting: 4, kvUsage: 0.75, kvCapacity: 1000 },
    },
    { row: 5, name: 'r2', model: hostileName, up: false, inFlight: 0, breaker: 1, adapters: 0 },
  ],
  tenants: () => [
    { index: 0, name: 'acme' },
    { index: 7, name: hostileName },
  ],
  threads: () => [
    { name: 'main', heartbeatAgeSeconds: 0.01, eventLoopUtilization: 0.25 },
    { name: 'scheduler', heartbeatAgeSeconds: 0.02 },
  ],
  threadCpu: () => new Map([['scheduler', 1.25]]),
  limitsLeft: () => [{ tenant: hostileName, dimension: 'input_tokens', left: 41 }],
  modelLimitsLeft: () => [{ tenant: 'acme', model: hostileName, dimension: 'requests', left: 3 }],
  ringDepths: () => ({ request: 1, dispatch: 2, event: 3, reply: 4, response: 5 }),
  slotsInUse: () => 10,
  arenaBytesInUse: () => 4096,
  httpConnections: () => 12,
  limitStoreUp: () => 1,
  budgetStoreUp: () => 1,
};
const build = { version: '0.1.0', node: process.version, engine: 'uws' };

let writer: MetricsWriter;
let reader: MetricsReader;
let page: GatewayMetrics;

beforeEach(() => {
  const regions = [createMetricsRegion(dims), createMetricsRegion(dims)];
  writer = new MetricsWriter(regions[0]!, dims);
  reader = new MetricsReader(dims, regions);
  page = new GatewayMetrics(dims, reader, sources, build, true);
});

async function scrape(): Promise<Map<string, Family>> {
  return parsePrometheusText(await page.render());
}

function sample(families: Map<string, Family>, key: string): number | undefined {
  const name = key.slice(0, key.indexOf('{')).replace(/_(bucket|sum|count)$/, '');
  return families.get(name)?.samples.get(key);
}

function fillEverySeries(): number {
  let lines = 0;
  const snapshot = reader.snapshot();
  for (const metric of storedMetrics) {
    for (let i = 0; i < snapshot.seriesCount(metric); i++) {
      if (metric.kind === 'counter') writer.add(metric, i, i + 1);
      else for (let us = 1; us < 1e9; us *= 7) writer.observe(metric, i, us * (i + 1));
      lines += 1;
    }
  }
  return lines;
}

describe('the page', () => {
  test('declares every metric of the catalogue with its help and type', async () => {
    const families = await scrape();
    for (const metric of Object.values<Metric>(metrics)) {
      const family = families.get(metric.name);
      expect(family, metric.name).toMatchObject({ type: metric.kind, help: metric.help });
    }
    expect(families.get('process_cpu_seconds_total')?.type).toBe('counter');
    expect(page.contentType).toMatch(/^text\/plain; version=0\.0\.4/);
  });

  test('shows what the gateway reads at the scrape', async () => {
    const families = await scrape();
    const expected = {
      'sluice_requests_in_flight{model="llama-3-8b"}': 3,
      'sluice_queue_depth{model="llama-3-8b"}': 7,
      'sluice_replica_up{model="llama-3-8b",replica="r1"}': 1,
      'sluice_replica_in_flight{model="llama-3-8b",replica="r1"}': 3,
      'sluice_replica_engine_running{model="llama-3-8b",replica="r1"}': 9,
      'sluice_replica_engine_waiting{model="llama-3-8b",replica="r1"}': 4,
      'sluice_replica_engine_kv_usage_ratio{model="llama-3-8b",replica="r1"}': 0.75,
      'sluice_ring_depth{ring="response"}': 5,
      'sluice_thread_heartbeat_age_seconds{thread="scheduler"}': 0.02,
      'sluice_event_loop_utilization{thread="main"}': 0.25,
      'sluice_event_loop_utilization{thread="scheduler"}': undefined,
      'sluice_thread_cpu_seconds_total{thread="scheduler"}': 1.25,
      'sluice_ratelimit_remaining{dimension="input_tokens",tenant="we\\"ird\\\\na\\nme"}': 41,
      'sluice_ratelimit_model_remaining{dimension="requests",model="we\\"ird\\\\na\\nme",tenant="acme"}': 3,
      'sluice_slots_in_use{}': 10,
      'sluice_arena_bytes_in_use{}': 4096,
      'sluice_http_connections{}': 12,
      [`sluice_build_info{engine="uws",node="${process.version}",version="0.1.0"}`]: 1,
    };
    for (const [key, value] of Object.entries(expected)) {
      expect(sample(families, key), key).toBe(value);
    }
  });

  test('names counters by model, code, replica, ring and type', async () => {
    writer.addPair(metrics.requests, 0, statusIndex(200), 5);
    writer.addPair(metrics.requests, dims.models, statusIndex(418), 2);
    writer.addPair(metrics.tokens, 0, TokenType.cached, 99);
    writer.add(metrics.replicaErrors, 0, 4);
    writer.add(metrics.ringFull, Ring.event, 6);
    writer.addTriple(
      metrics.httpRequests,
      routeIndex(23),
      methodIndex('POST'),
      statusIndex(200),
      3,
    );
    writer.addTriple(
      metrics.httpRequests,
      routeIndex(-1),
      methodIndex('BREW'),
      statusIndex(404),
      2,
    );
    writer.addPair(metrics.shed, 0, Shed.priority, 8);
    const { requests } = LimitDimension;
    writer.addTriple(metrics.limitDecisions, 0, requests, LimitResult.refused, 9);
    const families = await scrape();
    const expected = {
      'sluice_requests_total{code="200",model="llama-3-8b"}': 5,
      'sluice_requests_total{code="other",model="other"}': 2,
      'sluice_tokens_total{model="llama-3-8b",type="cached"}': 99,
      'sluice_replica_errors_total{model="llama-3-8b",replica="r1"}': 4,
      'sluice_http_requests_total{code="200",method="POST",route="/v1/responses/{id}/cancel"}': 3,
      'sluice_http_requests_total{code="404",method="other",route="other"}': 2,
      'sluice_shed_total{model="llama-3-8b",reason="priority"}': 8,
      'sluice_ratelimit_decisions_total{dimension="requests",result="refused",tenant="acme"}': 9,
      'sluice_ring_full_total{ring="event"}': 6,
      'sluice_ring_full_total{ring="request"}': 0,
      'sluice_scheduler_dispatched_total{}': 0,
    };
    for (const [key, value] of Object.entries(expected)) {
      expect(sample(families, key), key).toBe(value);
    }
    expect(families.get('sluice_requests_total')?.samples.size).toBe(2);
  });

  test('escapes names, so no name can forge a line', async () => {
    writer.add(metrics.streamTruncated, 1, 3);
    const families = await scrape();
    const key = 'sluice_stream_truncated_total{model="we\\"ird\\\\na\\nme"}';
    expect(sample(families, key)).toBe(3);
  });

  test('a model that is called other does not collide with the catch-all', async () => {
    const models = () => [{ row: 0, name: 'other', inFlight: 0, queueDepth: 0 }];
    page = new GatewayMetrics(dims, reader, { ...sources, models }, build);
    writer.add(metrics.streamTruncated, 0, 1);
    writer.add(metrics.streamTruncated, dims.models, 2);
    const families = await scrape();
    expect(sample(families, 'sluice_stream_truncated_total{model="other"}')).toBe(1);
    expect(sample(families, 'sluice_stream_truncated_total{model="_other"}')).toBe(2);
  });

  test('names tenants, and calls the others by one name that none of them has', async () => {
    writer.addPair(metrics.tenantRequests, 0, statusIndex(429), 2);
    writer.addPair(metrics.tenantRequests, 3, statusIndex(200), 9); // an index of nobody
    writer.addPair(metrics.tenantRequests, dims.tenants, statusIndex(200), 4);
    writer.addTriple(metrics.tenantTokens, 7, 1, TokenType.output, 5);
    writer.addTriple(metrics.tenantTokens, dims.tenants, dims.models, TokenType.cached, 6);
    const families = await scrape();
    const hostile = 'we\\"ird\\\\na\\nme';
    expect(Object.fromEntries(families.get('sluice_tenant_requests_total')!.samples)).toEqual({
      'sluice_tenant_requests_total{code="429",tenant="acme"}': 2,
      'sluice_tenant_requests_total{code="200",tenant="other"}': 4,
    });
    expect(Object.fromEntries(families.get('sluice_tenant_tokens_total')!.samples)).toEqual({
      [`sluice_tenant_tokens_total{model="${hostile}",tenant="${hostile}",type="output"}`]: 5,
      'sluice_tenant_tokens_total{model="other",tenant="other",type="cached"}': 6,
    });
    const tenants = () => [{ index: 0, name: 'other' }];
    page = new GatewayMetrics(dims, reader, { ...sources, tenants }, build);
    const { samples } = (await scrape()).get('sluice_tenant_requests_total')!;
    expect(samples.get('sluice_tenant_requests_total{code="429",tenant="other"}')).toBe(2);
    expect(samples.get('sluice_tenant_requests_total{code="200",tenant="_other"}')).toBe(4);
  });

  test('shows the histograms of a tenant once it has been observed, with nobody else’s', async () => {
    const durations = 'sluice_tenant_request_duration_seconds';
    const firstTokens = 'sluice_tenant_time_to_first_token_seconds';
    const counts = async (name: string) => {
      const { samples } = (await scrape()).get(name)!;
      return Object.fromEntries([...samples].filter(([key]) => key.startsWith(`${name}_count`)));
    };
    expect(await counts(durations)).toEqual({});
    writer.observe(metrics.tenantRequestDuration, 0, 900_000);
    writer.observe(metrics.tenantRequestDuration, 3, 900_000); // an index of nobody
    writer.observe(metrics.tenantRequestDuration, dims.tenants, 1_000_000);
    writer.observe(metrics.tenantRequestDuration, dims.tenants, 3_000_000);
    writer.observe(metrics.tenantFirstToken, 7, 70_000);
    expect(await counts(durations)).toEqual({
      [`${durations}_count{tenant="acme"}`]: 1,
      [`${durations}_count{tenant="other"}`]: 2,
    });
    const hostile = 'we\\"ird\\\\na\\nme';
    expect(await counts(firstTokens)).toEqual({ [`${firstTokens}_count{tenant="${hostile}"}`]: 1 });
    const { samples } = (await scrape()).get(durations)!;
    expect(samples.get(`${durations}_bucket{le="0.8",tenant="acme"}`)).toBe(0);
    expect(samples.get(`${durations}_bucket{le="1",tenant="acme"}`)).toBe(1);
    expect(samples.get(`${durations}_bucket{le="1",tenant="other"}`)).toBe(1);
    expect(samples.get(`${durations}_sum{tenant="other"}`)).toBe(4);
  });

  test('has the names of the GenAI conventions where they are wanted, and not else', async () => {
    const series = 1 * 3 + 2; // the second model, embeddings
    writer.observe(metrics.genaiDuration, series * errorTypes.length, 15_000);
    const [broken, gone] = [errorTypeIndex(200, false), errorTypeIndex(499, false)];
    writer.observe(metrics.genaiDuration, series * errorTypes.length + broken, 15_000);
    writer.observe(metrics.genaiDuration, series * errorTypes.length + gone, 15_000);
    writer.observe(metrics.genaiTokens, series * 2 + 1, 17e6);
    const { samples } = (await scrape()).get('gen_ai_client_token_usage')!;
    const model = 'gen_ai_request_model="we\\"ird\\\\na\\nme"';
    const labels = `gen_ai_operation_name="embeddings",${model},gen_ai_token_type="output"`;
    expect(samples.get(`gen_ai_client_token_usage_sum{${labels}}`)).toBe(17);
    expect([...samples.keys()].every((key) => key.includes('embeddings'))).toBe(true);
    const durations = (await scrape()).get('gen_ai_server_request_duration_seconds')!.samples;
    const counts = [...durations].filter(([name]) => name.includes('_count{'));
    expect(counts.map(([name]) => /error_type="([^"]*)"/.exec(name)?.[1])).toEqual([
      undefined,
      'client_gone',
      'stream_error',
    ]);
    expect(counts.map(([, count]) => count)).toEqual([1, 1, 1]);
    page = new GatewayMetrics(dims, reader, sources, build);
    expect([...(await scrape()).keys()].filter((name) => name.startsWith('gen_ai'))).toEqual([]);
  });

  test('shows a route once it was asked for', async () => {
    const shown = async () => {
      const { samples } = (await scrape()).get('sluice_http_request_duration_seconds')!;
      return [...samples.keys()].filter((key) => key.includes('_count{'));
    };
    expect(await shown()).toEqual([]);
    writer.observe(metrics.httpDuration, routeIndex(1), 5000);
    expect(await shown()).toEqual([
      'sluice_http_request_duration_seconds_count{route="/v1/chat/completions"}',
    ]);
  });

  test('leaves out the cells of rows that nobody owns', async () => {
    writer.add(metrics.replicaRequests, 4, 3);
    writer.add(metrics.streamTruncated, 9, 3);
    const families = await scrape();
    expect(families.get('sluice_replica_requests_total')?.samples.size).toBe(2);
    expect(families.get('sluice_stream_truncated_total')?.samples.size).toBe(2);
  });
});

describe('histograms', () => {
  test('have rising buckets, a count equal to the last one and a sum in seconds', async () => {
    for (const us of [8, 10, 11, 250, 99_000, 5_000_000]) {
      writer.observe(metrics.overhead, Stage.select, us);
    }
    const families = await scrape();
    const samples = families.get('sluice_overhead_seconds')!.samples;
    const of = (le: string) =>
      samples.get(`sluice_overhead_seconds_bucket{le="${le}",stage="select"}`);
    expect(['0.00001', '0.000025', '0.00025', '0.05', '0.1', '+Inf'].map(of)).toEqual([
      2, 3, 4, 4, 5, 6,
    ]);
    expect(samples.get('sluice_overhead_seconds_count{stage="select"}')).toBe(6);
    const sum = samples.get('sluice_overhead_seconds_sum{stage="select"}');
    expect(sum).toBeCloseTo((8 + 10 + 11 + 250 + 99_000 + 5_000_000) / 1e6, 12);
  });

  test('observations in every series keep the laws of the format', async () => {
    fillEverySeries();
    const families = await scrape();
    let checked = 0;
    for (const [name, { type, samples }] of families) {
      if (type !== 'histogram' || !name.startsWith('sluice_')) continue;
      const byLabels = new Map<string, [number, number][]>();
      for (const [key, value] of samples) {
        const [, upper = '', labels] = /_bucket\{le="([^"]+)",?(.*)\}$/.exec(key) ?? [];
        if (labels === undefined) continue;
        const bound = upper === '+Inf' ? Number.POSITIVE_INFINITY : Number(upper);
        byLabels.set(labels, [...(byLabels.get(labels) ?? []), [bound, value]]);
      }
      for (const [labels, buckets] of byLabels) {
        const sorted = buckets.toSorted((a, b) => a[0] - b[0]);
        expect(sorted).toEqual(buckets);
        const counts = sorted.map(([, count]) => count);
        expect(counts).toEqual(counts.toSorted((a, b) => a - b));
        expect(samples.get(`${name}_count{${labels}}`)).toBe(counts.at(-1));
        checked += 1;
      }
    }
    expect(checked).toBeGreaterThan(10);
  });

  test('two scrapes never show a counter fall, also over the reuse of a row', async () => {
    writer.add(metrics.replicaRequests, 0, 5);
    const key = 'sluice_replica_requests_total{model="llama-3-8b",replica="r1"}';
    expect(sample(await scrape(), key)).toBe(5);
    writer.add(metrics.replicaRequests, 0, 1);
    expect(sample(await scrape(), key)).toBe(6);
    reader.rebase('replica', 0);
    expect(sample(await scrape(), key)).toBe(0);
  });
});

test.skipIf(!thisMachine.has('promtool'))(
  'promtool finds nothing to complain about (skipped where promtool is not on the path)',
  async () => {
    fillEverySeries();
    const text = await page.render();
    const lint = spawnSync('promtool', ['check', 'metrics'], { input: text });
    expect(lint.stdout.toString() + lint.stderr.toString()).toBe('');
    expect(lint.status).toBe(0);
  },
);

test('a thousand series are rendered before anybody notices', async () => {
  const models = Array.from({ length: 40 }, (_, row) => ({
    ...{ row, name: `model-${row}`, inFlight: row, queueDepth: row },
  }));
  page = new GatewayMetrics(dims, reader, { ...sources, models: () => models }, build);
  for (const { row } of models) {
    for (let code = 0; code < 20; code++) writer.addPair(metrics.requests, row, code, 1);
    writer.observe(metrics.timeToFirstToken, row, 1000);
  }
  expect(statusCodes.length).toBeGreaterThan(20);
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 10; i++) {
    const start = nowMs();
    const text = await page.render();
    best = Math.min(best, nowMs() - start);
    expect(text.match(/^sluice_requests_total\{/gm)).toHaveLength(800);
  }
  console.info(`best of 10: ${best.toFixed(1)} ms`);
  // 5 ms on a machine with time to spare; another project's tests run beside this one.
  expect(best).toBeLessThan(100);
});

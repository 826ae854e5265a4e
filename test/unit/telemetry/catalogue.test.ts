import { expect, test } from 'vitest';
import { HedgeResult } from '../../../src/dispatch/decisions.ts';
import { routes } from '../../../src/protocol/routes.ts';
import { metrics, storedMetrics } from '../../../src/telemetry/catalogue.ts';
import {
  defaultMetricDims,
  fixedLabelValues,
  labelSize,
  methodIndex,
  modelIndex,
  routeIndex,
  statusCodes,
  statusIndex,
} from '../../../src/telemetry/labels.ts';
import { isStored, type Metric } from '../../../src/telemetry/metric-kinds.ts';
import { metricsMarkdown } from '../../../src/telemetry/metrics-page.ts';

const all: readonly Metric[] = Object.values(metrics);

test('names are unique, prefixed, and end as their type and unit demand', () => {
  expect(new Set(all.map((metric) => metric.name)).size).toBe(all.length);
  for (const metric of all) {
    expect(metric.name).toMatch(/^(sluice|gen_ai)_[a-z_]+$/);
    expect(metric.name.endsWith('_total'), metric.name).toBe(metric.kind === 'counter');
    if (metric.kind === 'histogram') expect(metric.name).toMatch(/_(seconds|token_usage)$/);
    if (metric.unit === 'seconds') expect(metric.name).toMatch(/_seconds(_total)?$/);
    expect(metric.help, metric.name).toMatch(/^\S.*\S$/);
    expect(metric.help).not.toContain('|');
  }
});

test('every metric of the contract is declared with its labels', () => {
  const contract: Record<string, string> = {
    sluice_requests_total: 'model code',
    sluice_requests_in_flight: 'model',
    sluice_request_duration_seconds: 'model',
    sluice_time_to_first_token_seconds: 'model',
    sluice_inter_token_latency_seconds: 'model',
    sluice_queue_depth: 'model',
    sluice_queue_time_seconds: 'model',
    sluice_scheduling_latency_seconds: '',
    sluice_decision_seconds: '',
    sluice_scheduler_dispatched_total: '',
    sluice_scheduler_dropped_total: '',
    sluice_overhead_seconds: 'stage',
    sluice_cancel_seconds: '',
    sluice_replica_up: 'replica model',
    sluice_replica_in_flight: 'replica model',
    sluice_replica_requests_total: 'replica model',
    sluice_replica_errors_total: 'replica model',
    sluice_ring_full_total: 'ring',
    sluice_thread_heartbeat_age_seconds: 'thread',
    sluice_build_info: 'version node engine',
  };
  const declared = Object.fromEntries(all.map(({ name, labels }) => [name, labels.join(' ')]));
  expect(declared).toMatchObject(contract);
});

test('buckets are those of vLLM, and microseconds for what the gateway adds', () => {
  const firstToken =
    '.001 .005 .01 .02 .04 .06 .08 .1 .25 .5 .75 1 2.5 5 7.5 10 20 40 80 160 640 2560';
  const interToken = '.01 .025 .05 .075 .1 .15 .2 .3 .4 .5 .75 1 2.5 5 7.5 10 20 40 80';
  const request = '.3 .5 .8 1 1.5 2 2.5 5 10 15 20 30 40 50 60 120 240 480 960 1920 7680';
  const seconds = (text: string): number[] => text.split(' ').map(Number);
  const micros = (text: string): number[] => seconds(text).map((us) => us / 1e6);
  const overhead = '10 25 50 100 250 500 1000 2500 5000 10000 25000 50000 100000';
  expect(metrics.timeToFirstToken.bounds).toEqual(seconds(firstToken));
  expect(metrics.interTokenLatency.bounds).toEqual(seconds(interToken));
  expect(metrics.requestDuration.bounds).toEqual(seconds(request));
  // One panel shows a tenant over its model.
  expect(metrics.tenantRequestDuration.bounds).toBe(metrics.requestDuration.bounds);
  expect(metrics.tenantFirstToken.bounds).toBe(metrics.timeToFirstToken.bounds);
  for (const metric of [metrics.overhead, metrics.schedulingLatency]) {
    expect(metric.bounds).toEqual(micros(overhead));
  }
  expect(metrics.decision.bounds).toEqual(micros(`1 2 5 ${overhead}`));
  // The promise for an abort, 250 ms, must be a bound, with bounds on both sides.
  expect(metrics.cancel.bounds).toContain(0.25);
  expect(metrics.cancel.bounds.at(-1)).toBeGreaterThan(0.25);
});

test('ids are dense and in the order of declaration', () => {
  expect(storedMetrics.map((metric) => metric.id)).toEqual(storedMetrics.map((_, index) => index));
  expect(storedMetrics).toEqual(all.filter(isStored));
});

test('each listed status has its own label and every other one shares the last', () => {
  for (const code of statusCodes) {
    expect(fixedLabelValues.code[statusIndex(code)]).toBe(String(code));
  }
  for (const code of [0, -1, 299, 418, 599, 600, 1e9, Number.NaN]) {
    expect(fixedLabelValues.code[statusIndex(code)], String(code)).toBe('other');
  }
});

test('each route has the label of its path, whatever its method; other ids and methods share the last', () => {
  for (const { id, path, suffix, method } of routes) {
    const label = fixedLabelValues.route[routeIndex(id)]!;
    expect(label.startsWith(path) && label.endsWith(suffix), label).toBe(true);
    expect(fixedLabelValues.method[methodIndex(method)]).toBe(method);
  }
  expect(new Set(fixedLabelValues.route).size).toBe(labelSize('route', defaultMetricDims));
  for (const id of [-1, 0, 29, 63, 64, 1e9]) {
    expect(fixedLabelValues.route[routeIndex(id)], String(id)).toBe('other');
  }
  for (const method of ['', 'get', 'PUT', 'OPTIONS', '__proto__', 'toString']) {
    expect(fixedLabelValues.method[methodIndex(method)], method).toBe('other');
  }
});

test('what became of hedges has the names of the brain, in its order', () => {
  expect(fixedLabelValues.end).toEqual(Object.keys(HedgeResult));
});

test('a model without a row of its own counts as other', () => {
  expect(modelIndex(3, defaultMetricDims)).toBe(3);
  expect(modelIndex(-1, defaultMetricDims)).toBe(64);
  expect(modelIndex(64, defaultMetricDims)).toBe(64);
  expect(() => modelIndex(0.5, defaultMetricDims)).toThrow();
});

test('the documentation page has one row for each metric', () => {
  const rows = metricsMarkdown()
    .split('\n')
    .filter((line) => /^\| `(sluice|gen_ai)_/.test(line));
  const histograms = all.filter((metric) => metric.kind === 'histogram');
  expect(rows).toHaveLength(all.length + histograms.length);
  for (const { name } of all) expect(rows.some((row) => row.includes(`\`${name}\``))).toBe(true);
});

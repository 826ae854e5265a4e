import { describe, expect, test } from 'vitest';
import { createPrng } from '../../../src/lib/prng.ts';
import { createMetricsRegion, placeMetricCells } from '../../../src/shm/metrics.layout.ts';
import { MetricsReader, MetricsWriter } from '../../../src/shm/metrics.ts';
import { metrics, storedMetrics } from '../../../src/telemetry/catalogue.ts';
import { Result, Ring, statusIndex } from '../../../src/telemetry/labels.ts';
import type { HistogramMetric } from '../../../src/telemetry/metric-kinds.ts';

const dims = { models: 3, replicas: 4, tenants: 2 };
const histograms = storedMetrics.filter((metric) => metric.kind === 'histogram');

function oneThread() {
  const region = createMetricsRegion(dims);
  return {
    region,
    writer: new MetricsWriter(region, dims),
    reader: new MetricsReader(dims, [region]),
  };
}

/** The definition: the first bucket whose upper bound is not below the value. */
function bucketByDefinition(metric: HistogramMetric, valueUs: number): number {
  const at = metric.bounds.findIndex((bound) => valueUs <= Math.round(bound * 1e6));
  return at < 0 ? metric.bounds.length : at;
}

describe('histograms', () => {
  test.each(histograms.map((metric) => [metric.name, metric] as const))(
    '%s puts a value on, below and above each bound into the right bucket',
    (_, metric) => {
      for (const bound of [0, ...metric.bounds]) {
        for (const step of [-0.5, 0, 0.5]) {
          const { writer, reader } = oneThread();
          const value = Math.max(bound * 1e6 + step, 0);
          writer.observe(metric, 0, value);
          const expected = new Float64Array(metric.bounds.length + 1);
          expected[bucketByDefinition(metric, value)] = 1;
          expect(reader.snapshot().buckets(metric, 0), `${value} us`).toEqual(expected);
        }
      }
    },
  );

  test('random values agree with the definition, and the sum is exact', () => {
    const seed = Number(process.env.SEED ?? 7);
    console.info(`SEED=${seed}`);
    const prng = createPrng(seed);
    const { writer, reader } = oneThread();
    for (const metric of histograms) {
      const last = reader.snapshot().seriesCount(metric) - 1;
      const expected = new Float64Array(metric.bounds.length + 1);
      let sum = 0;
      for (let i = 0; i < 2000; i++) {
        const value = prng.below(2 ** prng.below(33));
        writer.observe(metric, last, value);
        expected[bucketByDefinition(metric, value)]! += 1;
        sum += value;
      }
      expect(reader.snapshot().buckets(metric, last)).toEqual(expected);
      expect(reader.snapshot().sumSeconds(metric, last)).toBe(sum / 1e6);
    }
  });

  test('a negative duration counts as zero; what is no duration is a bug', () => {
    const { writer, reader } = oneThread();
    writer.observe(metrics.decision, 0, -3);
    expect(reader.snapshot().buckets(metrics.decision, 0)[0]).toBe(1);
    expect(reader.snapshot().sumSeconds(metrics.decision, 0)).toBe(0);
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() => writer.observe(metrics.decision, 0, value)).toThrow('not a duration');
    }
  });
});

describe('cells', () => {
  test('every series has cells of its own', () => {
    const { writer, reader } = oneThread();
    let mark = 0;
    const all = storedMetrics.flatMap((metric) => {
      const count = reader.snapshot().seriesCount(metric);
      return Array.from({ length: count }, (_, index) => ({ metric, index, mark: ++mark }));
    });
    for (const { metric, index, mark: n } of all) {
      if (metric.kind === 'counter') writer.add(metric, index, n);
      else writer.observe(metric, index, n);
    }
    const totals = reader.snapshot();
    for (const { metric, index, mark: n } of all) {
      if (metric.kind === 'counter') expect(totals.counter(metric, index)).toBe(n);
      else expect(totals.sumSeconds(metric, index)).toBe(n / 1e6);
    }
  });

  test('a pair of labels finds its series', () => {
    const { writer, reader } = oneThread();
    writer.addPair(metrics.requests, 2, statusIndex(503), 5);
    writer.addPair(metrics.replicaHealthChecks, 3, Result.failed, 2);
    const totals = reader.snapshot();
    const codes = totals.seriesCount(metrics.requests) / (dims.models + 1);
    expect(totals.counter(metrics.requests, 2 * codes + statusIndex(503))).toBe(5);
    expect(totals.counter(metrics.replicaHealthChecks, 3 * 2 + Result.failed)).toBe(2);
  });

  test('an index outside the labels never lands in another metric', () => {
    const { writer, reader } = oneThread();
    expect(() => writer.add(metrics.ringFull, 5, 1)).toThrow('out of range');
    expect(() => writer.add(metrics.ringFull, -1, 1)).toThrow('out of range');
    expect(() => writer.addPair(metrics.requests, 0, 1000, 1)).toThrow('out of range');
    expect(() => writer.addPair(metrics.requests, dims.models + 1, 0, 1)).toThrow('out of range');
    expect(() => writer.observe(metrics.queueTime, 4, 1)).toThrow('out of range');
    expect(() => writer.add(metrics.ringFull, 0, -1)).toThrow('only grows');
    for (const metric of storedMetrics) {
      if (metric.kind !== 'counter') continue;
      for (let i = 0; i < reader.snapshot().seriesCount(metric); i++) {
        expect(reader.snapshot().counter(metric, i)).toBe(0);
      }
    }
  });

  test('a region of other dimensions is refused', () => {
    const region = createMetricsRegion(dims);
    expect(() => new MetricsWriter(region, { ...dims, models: 4 })).toThrow('other counts');
    expect(() => new MetricsReader({ ...dims, replicas: 5 }, [region])).toThrow('other counts');
    expect(() => placeMetricCells({ ...dims, models: 0 })).toThrow();
  });
});

describe('totals', () => {
  test('are sums over the threads, also of those that came later', () => {
    const first = createMetricsRegion(dims);
    const second = createMetricsRegion(dims);
    const reader = new MetricsReader(dims, [first]);
    reader.addRegion(second);
    new MetricsWriter(first, dims).add(metrics.ringFull, Ring.request, 3);
    new MetricsWriter(second, dims).add(metrics.ringFull, Ring.request, 4);
    expect(reader.snapshot().counter(metrics.ringFull, Ring.request)).toBe(7);
  });

  test('do not fall when a thread is restarted on its region', () => {
    const { region, writer, reader } = oneThread();
    writer.add(metrics.lateEvents, 0, 41);
    const successor = new MetricsWriter(region, dims);
    expect(reader.snapshot().counter(metrics.lateEvents, 0)).toBe(41);
    successor.add(metrics.lateEvents, 0, 1);
    expect(reader.snapshot().counter(metrics.lateEvents, 0)).toBe(42);
  });

  test('stay exact where an int32 has wrapped', () => {
    const { writer, reader } = oneThread();
    writer.add(metrics.lateEvents, 0, 2 ** 40);
    writer.add(metrics.lateEvents, 0, 1);
    expect(reader.snapshot().counter(metrics.lateEvents, 0)).toBe(2 ** 40 + 1);
  });

  test('of a reused row start at zero and leave its neighbours alone', () => {
    const { writer, reader } = oneThread();
    for (const replica of [1, 2]) {
      writer.add(metrics.replicaRequests, replica, 10);
      writer.addPair(metrics.replicaHealthChecks, replica, Result.failed, 4);
    }
    writer.observe(metrics.queueTime, 2, 100);
    reader.rebase('replica', 2);
    reader.rebase('model', 2);
    writer.add(metrics.replicaRequests, 2, 1);
    const totals = reader.snapshot();
    expect(totals.counter(metrics.replicaRequests, 1)).toBe(10);
    expect(totals.counter(metrics.replicaRequests, 2)).toBe(1);
    expect(totals.counter(metrics.replicaHealthChecks, 2 * 2 + Result.failed)).toBe(0);
    expect(totals.counter(metrics.replicaHealthChecks, 1 * 2 + Result.failed)).toBe(4);
    expect(totals.buckets(metrics.queueTime, 2).every((n) => n === 0)).toBe(true);
    expect(totals.sumSeconds(metrics.queueTime, 2)).toBe(0);
    expect(() => reader.rebase('replica', 4)).toThrow('row out of range');
  });
});

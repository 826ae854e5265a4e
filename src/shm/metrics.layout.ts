/**
 * Metrics region: the counter and histogram cells of one thread.
 *
 * A cell is an f64 and has one writer, so an update is a plain load, add and store without atomics.
 * Why f64: integers are exact to 2^53, while an int32 of summed microseconds wraps within seconds
 * under load, and a pair of int32 needs a carry that a reader can see half done. The language lets
 * an f64 access tear, the machines we support (x64, arm64) do not: an aligned 8-byte load or store
 * is single-copy atomic there, and test/litmus/metrics.test.ts watches for it.
 * If the writer dies, each update has happened or has not; only the sum of a histogram can lack the
 * one observation whose bucket was counted. The region outlives its thread and its successor
 * continues in it, so no total ever falls.
 */
import { assert } from '../lib/assert.ts';
import { storedMetrics } from '../telemetry/catalogue.ts';
import { defaultMetricDims, labelSize, type MetricDims } from '../telemetry/labels.ts';
import type { StoredMetric } from '../telemetry/metric-kinds.ts';
import { ThreadId } from './control.layout.ts';
import { bytes, defineLayout } from './layout.ts';
import type { MemorySize } from './memory.ts';

export const MetricsLayout = defineLayout('metrics', {
  cells: bytes(
    'the thread of the region',
    'f64 cells in catalogue order; a histogram series is its bucket counts, then its sum in µs.',
  ),
});

/** Where the cells of each metric lie; arrays are indexed by metric id. */
export interface MetricCells {
  readonly total: number;
  /** First cell. */
  readonly base: Int32Array;
  /** Cells of one series. */
  readonly stride: Int32Array;
  /** Number of series. */
  readonly series: Int32Array;
}

/** Cells of one series: 1 for a counter; buckets, +Inf and sum for a histogram. */
function cellsPerSeries(metric: StoredMetric): number {
  return metric.kind === 'counter' ? 1 : metric.bounds.length + 2;
}

export function placeMetricCells(dims: MetricDims): MetricCells {
  assert(dims.models > 0);
  assert(dims.replicas > 0);
  const base = new Int32Array(storedMetrics.length);
  const stride = new Int32Array(storedMetrics.length);
  const series = new Int32Array(storedMetrics.length);
  let next = 0;
  for (const metric of storedMetrics) {
    base[metric.id] = next;
    stride[metric.id] = cellsPerSeries(metric);
    series[metric.id] = metric.series.reduce((n, label) => n * labelSize(label, dims), 1);
    next += stride[metric.id]! * series[metric.id]!;
  }
  return { total: next, base, stride, series };
}

export function createMetricsRegion(dims: MetricDims): SharedArrayBuffer {
  return MetricsLayout.create({ cells: placeMetricCells(dims).total * 8 });
}

/** One for each ThreadId. */
export function createMetricsRegions(size: MemorySize): SharedArrayBuffer[] {
  const threads = Array.from({ length: ThreadId.tracer(size) + 1 });
  return threads.map(() => createMetricsRegion(defaultMetricDims));
}

export function attachMetricCells(region: SharedArrayBuffer, dims: MetricDims): Float64Array {
  const { total } = placeMetricCells(dims);
  const { at } = MetricsLayout.attach(region, { cells: total * 8 });
  return new Float64Array(region, at.cells, total);
}

/**
 * Metrics in shared memory: each thread counts in its own region, the main thread sums at a scrape.
 *
 * MetricsWriter runs on any thread, never blocks and never allocates; an update costs tens of
 * nanoseconds (native-free-bench/metrics.ts). MetricsReader runs on the main thread.
 * Invariant: a cell only grows, so a total over the regions never falls between two snapshots.
 */
import { assert } from '../lib/assert.ts';
import { storedMetrics } from '../telemetry/catalogue.ts';
import { labelSize, type MetricDims } from '../telemetry/labels.ts';
import type { CounterMetric, HistogramMetric, StoredMetric } from '../telemetry/metric-kinds.ts';
import { attachMetricCells, type MetricCells, placeMetricCells } from './metrics.layout.ts';

/** Histogram bounds are padded to a power of two: the search is a fixed five steps. */
const boundsPadded = 32;

export class MetricsWriter {
  readonly #cells: Float64Array;
  readonly #place: MetricCells;
  /** Series of the second label of each metric; 1 when it has at most one. */
  readonly #inner: Int32Array;
  /** Series of the third label of each metric; 1 when it has at most two. */
  readonly #innermost: Int32Array;
  /** Upper bounds in whole microseconds, `boundsPadded` per metric id. */
  readonly #bounds: Float64Array;

  constructor(region: SharedArrayBuffer, dims: MetricDims) {
    this.#cells = attachMetricCells(region, dims);
    this.#place = placeMetricCells(dims);
    this.#inner = Int32Array.from(storedMetrics, ({ series }) =>
      series[1] === undefined ? 1 : labelSize(series[1], dims),
    );
    this.#innermost = Int32Array.from(storedMetrics, ({ series }) =>
      series[2] === undefined ? 1 : labelSize(series[2], dims),
    );
    this.#bounds = paddedBounds();
  }

  /** Adds to the series of the first label (0 when the metric has none). */
  add(metric: CounterMetric, index: number, n: number): void {
    assert(index >= 0 && index < this.#place.series[metric.id]!, 'series out of range');
    assert(n >= 0, 'a counter only grows');
    this.#cells[this.#place.base[metric.id]! + index]! += n;
  }

  /** Adds to the series of two labels, in the order of the catalogue. */
  addPair(metric: CounterMetric, first: number, second: number, n: number): void {
    const inner = this.#inner[metric.id]!;
    assert(second >= 0 && second < inner, 'series out of range');
    this.add(metric, first * inner + second, n);
  }

  /** Adds to the series of three labels, in the order of the catalogue. */
  addTriple(metric: CounterMetric, first: number, second: number, third: number, n: number): void {
    const inner = this.#inner[metric.id]!;
    const innermost = this.#innermost[metric.id]!;
    assert(second >= 0 && second < inner, 'series out of range');
    assert(third >= 0 && third < innermost, 'series out of range');
    this.add(metric, (first * inner + second) * innermost + third, n);
  }

  /** Counts one observation. A negative one (clocks of two threads differ by µs) counts as 0. */
  observe(metric: HistogramMetric, index: number, valueUs: number): void {
    const { base, stride, series } = this.#place;
    assert(index >= 0 && index < series[metric.id]!, 'series out of range');
    assert(valueUs < Number.POSITIVE_INFINITY, 'not a duration'); // NaN fails too
    const value = Math.max(valueUs, 0);
    const cells = stride[metric.id]!;
    const first = base[metric.id]! + index * cells;
    this.#cells[first + this.#bucketOf(metric.id, value)]! += 1;
    this.#cells[first + cells - 1]! += value;
  }

  /** How many bounds lie below `value`: a bucket includes its upper bound. */
  #bucketOf(id: number, value: number): number {
    const bounds = this.#bounds;
    let at = id * boundsPadded;
    at += bounds[at + 15]! < value ? 16 : 0;
    at += bounds[at + 7]! < value ? 8 : 0;
    at += bounds[at + 3]! < value ? 4 : 0;
    at += bounds[at + 1]! < value ? 2 : 0;
    at += bounds[at]! < value ? 1 : 0;
    return at - id * boundsPadded;
  }
}

function paddedBounds(): Float64Array {
  const bounds = new Float64Array(storedMetrics.length * boundsPadded).fill(
    Number.POSITIVE_INFINITY,
  );
  for (const metric of storedMetrics) {
    if (metric.kind !== 'histogram') continue;
    // Five steps tell 32 buckets apart: 31 bounds and +Inf.
    assert(metric.bounds.length < boundsPadded);
    const inUs = metric.bounds.map((seconds) => Math.round(seconds * 1e6));
    bounds.set(inUs, metric.id * boundsPadded);
  }
  return bounds;
}

/** Totals at one moment; a histogram's count is the sum of its buckets and cannot disagree. */
export class MetricsSnapshot {
  readonly dims: MetricDims;
  readonly #totals: Float64Array;
  readonly #place: MetricCells;

  constructor(totals: Float64Array, place: MetricCells, dims: MetricDims) {
    this.#totals = totals;
    this.#place = place;
    this.dims = dims;
  }

  seriesCount(metric: StoredMetric): number {
    return this.#place.series[metric.id]!;
  }

  counter(metric: CounterMetric, index: number): number {
    assert(index >= 0 && index < this.seriesCount(metric), 'series out of range');
    return this.#totals[this.#place.base[metric.id]! + index]!;
  }

  /** Counts per bucket (not cumulative), the last one for +Inf. A view: valid until the next take. */
  buckets(metric: HistogramMetric, index: number): Float64Array {
    const first = this.#firstCell(metric, index);
    return this.#totals.subarray(first, first + this.#place.stride[metric.id]! - 1);
  }

  sumSeconds(metric: HistogramMetric, index: number): number {
    const last = this.#firstCell(metric, index) + this.#place.stride[metric.id]! - 1;
    return this.#totals[last]! / 1e6;
  }

  #firstCell(metric: HistogramMetric, index: number): number {
    assert(index >= 0 && index < this.seriesCount(metric), 'series out of range');
    return this.#place.base[metric.id]! + index * this.#place.stride[metric.id]!;
  }
}

export class MetricsReader {
  readonly #dims: MetricDims;
  readonly #place: MetricCells;
  readonly #regions: Float64Array[] = [];
  /** What former owners of reused series had counted. */
  readonly #baseline: Float64Array;

  constructor(dims: MetricDims, regions: readonly SharedArrayBuffer[]) {
    this.#dims = dims;
    this.#place = placeMetricCells(dims);
    this.#baseline = new Float64Array(this.#place.total);
    for (const region of regions) this.addRegion(region);
  }

  addRegion(region: SharedArrayBuffer): void {
    this.#regions.push(attachMetricCells(region, this.#dims));
  }

  snapshot(): MetricsSnapshot {
    const totals = this.#sum();
    for (let i = 0; i < totals.length; i++) totals[i]! -= this.#baseline[i]!;
    return new MetricsSnapshot(totals, this.#place, this.#dims);
  }

  /**
   * Starts all series of a model or replica row at zero. Called when the row is given to another
   * model or replica; its series get another name, so for Prometheus no counter falls.
   */
  rebase(label: 'model' | 'replica', row: number): void {
    const totals = this.#sum();
    for (const metric of storedMetrics) {
      if (metric.series[0] !== label) continue;
      const rows = labelSize(label, this.#dims);
      assert(row >= 0 && row < rows, 'row out of range');
      const cells = (this.#place.series[metric.id]! / rows) * this.#place.stride[metric.id]!;
      const first = this.#place.base[metric.id]! + row * cells;
      this.#baseline.set(totals.subarray(first, first + cells), first);
    }
  }

  #sum(): Float64Array {
    const totals = new Float64Array(this.#place.total);
    for (const cells of this.#regions) {
      for (let i = 0; i < totals.length; i++) totals[i]! += cells[i]!;
    }
    return totals;
  }
}

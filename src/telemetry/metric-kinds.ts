/** The kinds of metrics: what a row of the catalogue says of each. */
import type { SeriesLabel } from './labels.ts';

export type ThreadRole =
  | 'main'
  | 'acceptor'
  | 'scheduler'
  | 'forwarder'
  | 'limiter'
  | 'ledger'
  | 'tracer';
export type Unit = 'seconds' | 'bytes' | 'ratio' | 'count' | 'info';

interface MetricBase {
  readonly name: string;
  readonly help: string;
  readonly unit: Unit;
  /** Label names as rendered, in this order. */
  readonly labels: readonly string[];
}
interface CellMetric extends MetricBase {
  /** Dense, unique among counters and histograms. */
  readonly id: number;
  /** Dimensions of the cells. `replica` renders as two labels: replica and the model it serves. */
  readonly series: readonly SeriesLabel[];
  readonly writers: readonly ThreadRole[];
}
export interface CounterMetric extends CellMetric {
  readonly kind: 'counter';
}
export interface HistogramMetric extends CellMetric {
  readonly kind: 'histogram';
  /** Upper bounds in the unit, rising; +Inf is implied. Observations are made in millionths of it. */
  readonly bounds: readonly number[];
}
export interface GaugeMetric extends MetricBase {
  readonly kind: 'gauge';
}
/** Kept outside the cells and read at a scrape, as a gauge is. */
export interface ReadCounterMetric extends MetricBase {
  readonly kind: 'counter';
}
export type ReadMetric = GaugeMetric | ReadCounterMetric;
export type StoredMetric = CounterMetric | HistogramMetric;
export type Metric = StoredMetric | ReadMetric;

export const isStored = (metric: Metric): metric is StoredMetric => 'id' in metric;

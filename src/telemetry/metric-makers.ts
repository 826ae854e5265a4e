/** How a metric of the catalogue is declared. Counters and histograms get their ids in that order. */
import { labelName, type SeriesLabel } from './labels.ts';
import type {
  CounterMetric,
  GaugeMetric,
  HistogramMetric,
  ReadCounterMetric,
  StoredMetric,
  ThreadRole,
  Unit,
} from './metric-kinds.ts';

/** Counters and histograms so far; the place of one is its id. */
export const stored: StoredMetric[] = [];
const labelsOf = (series: readonly SeriesLabel[]): readonly string[] =>
  series.flatMap((label) => (label === 'replica' ? ['replica', 'model'] : [labelName(label)]));

export function counter(
  name: string,
  series: readonly SeriesLabel[],
  writers: readonly ThreadRole[],
  help: string,
): CounterMetric {
  const labels = labelsOf(series);
  const id = stored.length;
  const metric = {
    ...({ kind: 'counter', id, name, help, unit: 'count' } as const),
    ...{ labels, series, writers },
  };
  stored.push(metric);
  return metric;
}

export function histogram(
  name: string,
  series: readonly SeriesLabel[],
  writers: readonly ThreadRole[],
  bounds: readonly number[],
  help: string,
  unit: HistogramMetric['unit'] = 'seconds',
): HistogramMetric {
  const labels = labelsOf(series);
  const id = stored.length;
  const metric = {
    ...({ kind: 'histogram', id, name, help, unit } as const),
    ...{ labels, series, writers, bounds },
  };
  stored.push(metric);
  return metric;
}

export const gauge = (
  name: string,
  labels: readonly string[],
  unit: Unit,
  help: string,
): GaugeMetric => ({
  kind: 'gauge',
  name,
  help,
  unit,
  labels,
});

/** A counter that somebody else keeps, such as the system. */
export const readCounter = (
  name: string,
  labels: readonly string[],
  unit: Unit,
  help: string,
): ReadCounterMetric => ({ kind: 'counter', name, help, unit, labels });

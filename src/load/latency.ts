/**
 * A latency histogram in microseconds: `node:perf_hooks` HdrHistogram, three significant digits, so
 * recording costs about 50 ns and its memory is fixed. Values are clamped to its range of 1 us to
 * 1 hour; a gap of zero counts as 1 us.
 */
import { createHistogram } from 'node:perf_hooks';

const highestUs = 3_600_000_000;

export interface LatencySummary {
  readonly count: number;
  readonly mean: number;
  readonly median: number;
  readonly std: number;
  readonly p50: number;
  readonly p90: number;
  readonly p95: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

export class Latency {
  readonly #histogram = createHistogram({ lowest: 1, highest: highestUs, figures: 3 });

  record(us: number): void {
    this.#histogram.record(us < 1 ? 1 : us > highestUs ? highestUs : Math.round(us));
  }

  get count(): number {
    return this.#histogram.count;
  }

  percentileMs(percent: number): number {
    return this.count === 0 ? 0 : this.#histogram.percentile(percent) / 1000;
  }

  /** All figures in milliseconds; all zero when nothing was recorded. */
  summary(): LatencySummary {
    const some = this.count > 0;
    const p50 = this.percentileMs(50);
    return {
      count: this.count,
      mean: some ? this.#histogram.mean / 1000 : 0,
      median: p50,
      std: some ? this.#histogram.stddev / 1000 : 0,
      p50,
      p90: this.percentileMs(90),
      p95: this.percentileMs(95),
      p99: this.percentileMs(99),
      p999: this.percentileMs(99.9),
      max: some ? this.#histogram.max / 1000 : 0,
    };
  }
}

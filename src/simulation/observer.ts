/**
 * Observer: what is only seen while a simulation runs. Step times, and how even the load is.
 *
 * Every 100 ms of virtual time it takes, over the replicas that are up, the largest value over the mean:
 * of the time spent in steps since the last sample, and of the prompt tokens that wait for a first
 * token. 1 is even, N is one replica with everything. An idle moment is neither, and is left out.
 */
import { Histogram } from './histogram.ts';

export const samplePeriodUs = 100_000;

/** Ratios are kept in hundredths. */
const ratioScale = 100;

export class Observer {
  /** Microseconds between two tokens of one request, once for each pair. */
  readonly itl = new Histogram();
  readonly busyRatio = new RatioSamples();
  readonly pendingRatio = new RatioSamples();
  readonly #busySeenUs: Float64Array;
  readonly #busyUs: Float64Array;
  #measuring = false;

  constructor(rows: number) {
    this.#busySeenUs = new Float64Array(rows);
    this.#busyUs = new Float64Array(rows);
  }

  /** The warm-up is over. */
  start(): void {
    this.#measuring = true;
  }

  step(durationUs: number, decodes: number): void {
    if (this.#measuring && decodes > 0) this.itl.add(durationUs, decodes);
  }

  /** `busyTotalUs`, `pendingTokens`: per row; `up`: rows that take part. */
  sample(busyTotalUs: Float64Array, pendingTokens: Float64Array, up: Uint8Array): void {
    for (let row = 0; row < up.length; row++) {
      const total = busyTotalUs[row] as number;
      this.#busyUs[row] = total - (this.#busySeenUs[row] as number);
      this.#busySeenUs[row] = total;
    }
    if (!this.#measuring) return;
    this.busyRatio.add(this.#busyUs, up);
    this.pendingRatio.add(pendingTokens, up);
  }
}

class RatioSamples {
  readonly #histogram = new Histogram();
  #sum = 0;

  get mean(): number {
    return this.#histogram.total === 0 ? 1 : this.#sum / this.#histogram.total;
  }

  get p99(): number {
    return this.#histogram.total === 0 ? 1 : this.#histogram.quantile(0.99) / ratioScale;
  }

  add(values: Float64Array, up: Uint8Array): void {
    let sum = 0;
    let max = 0;
    let count = 0;
    for (let row = 0; row < up.length; row++) {
      if (up[row] !== 1) continue;
      const value = values[row] as number;
      sum += value;
      if (value > max) max = value;
      count++;
    }
    if (sum <= 0) return;
    const ratio = (max * count) / sum;
    this.#sum += ratio;
    this.#histogram.add(Math.round(ratio * ratioScale));
  }
}

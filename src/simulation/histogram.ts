/**
 * Log-linear histogram of weighted whole numbers: 64 steps a power of two, so a value is known to
 * within 1.6 %. Pure; a fixed table, nothing is allocated per value.
 */
import { assert } from '../lib/assert.ts';

const stepBits = 6;
const steps = 1 << stepBits;
/** Values below 2^6 have a bucket each; above, each power of two has 64. */
const buckets = steps * (32 - stepBits);

export class Histogram {
  total = 0;
  readonly #weights = new Float64Array(buckets);

  /** `value`: below 2^31; a fraction is cut off. */
  add(value: number, weight = 1): void {
    assert(value >= 0 && value < 0x80000000, 'a value fits the histogram');
    const bucket = bucketOf(value | 0);
    this.#weights[bucket] = (this.#weights[bucket] as number) + weight;
    this.total += weight;
  }

  /** Smallest value with at least `share` of the weight at or below it; 0 when empty. */
  quantile(share: number): number {
    let rest = share * this.total;
    for (let bucket = 0; bucket < buckets; bucket++) {
      rest -= this.#weights[bucket] as number;
      if (rest <= 0 && (this.#weights[bucket] as number) > 0) return middleOf(bucket);
    }
    return 0;
  }

  /** Mean of the largest `share` of the weight; 0 when empty. */
  tailMean(share: number): number {
    if (this.total === 0) return 0;
    const wanted = share * this.total;
    let rest = wanted;
    let sum = 0;
    for (let bucket = buckets - 1; bucket >= 0 && rest > 0; bucket--) {
      const weight = Math.min(rest, this.#weights[bucket] as number);
      sum += weight * middleOf(bucket);
      rest -= weight;
    }
    return sum / wanted;
  }
}

function bucketOf(value: number): number {
  if (value < steps) return value;
  const shift = 31 - Math.clz32(value) - stepBits;
  return shift * steps + (value >>> shift);
}

function middleOf(bucket: number): number {
  if (bucket < 2 * steps) return bucket;
  const shift = Math.floor(bucket / steps) - 1;
  const low = (bucket - shift * steps) * 2 ** shift;
  return low + (2 ** shift - 1) / 2;
}

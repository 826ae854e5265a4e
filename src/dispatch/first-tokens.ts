/**
 * How late first tokens are: the time that 95 % of a model's requests of one length stay within. Pure;
 * allocates at construction only.
 *
 *   class     floor(log2(prompt tokens)): prefill takes its time by length
 *   bucket    quarter octave of the time, from 1 ms to 65 s; an answer is its upper end, at most 19 % more
 *   samples   halved at a thousand, so the estimate follows the traffic; below fifty there is none
 */
const quantile = 0.95;
const classes = 18;
const buckets = 64;
const perOctave = 4;
const fromUs = 1000;
const samplesMin = 50;
const samplesMax = 1000;

export class FirstTokens {
  readonly #counts: Float64Array;
  readonly #samples: Float64Array;
  readonly #lateUs: Float64Array;

  constructor(models: number) {
    this.#counts = new Float64Array(models * classes * buckets);
    this.#samples = new Float64Array(models * classes);
    this.#lateUs = new Float64Array(models * classes).fill(Number.POSITIVE_INFINITY);
  }

  /** Infinity while too little is known. */
  lateUs(model: number, promptTokens: number): number {
    return this.#lateUs[rowOf(model, promptTokens)] as number;
  }

  /** A first token came after `us`, or had not come until then. */
  learn(model: number, promptTokens: number, us: number): void {
    const row = rowOf(model, promptTokens);
    const counts = this.#counts.subarray(row * buckets, (row + 1) * buckets);
    const octaves = Math.log2(Math.max(us, fromUs) / fromUs);
    const bucket = Math.min(buckets - 1, Math.floor(octaves * perOctave));
    counts[bucket] = (counts[bucket] as number) + 1;
    let samples = (this.#samples[row] as number) + 1;
    if (samples >= samplesMax) {
      for (let i = 0; i < buckets; i++) counts[i] = (counts[i] as number) / 2;
      samples /= 2;
    }
    this.#samples[row] = samples;
    if (samples >= samplesMin) this.#lateUs[row] = upperEnd(counts, quantile * samples);
  }
}

const rowOf = (model: number, promptTokens: number): number =>
  model * classes + Math.min(classes - 1, 31 - Math.clz32(Math.max(1, promptTokens)));

/** Of the bucket that holds the sample of this rank, microseconds. */
function upperEnd(counts: Float64Array, rank: number): number {
  let bucket = 0;
  let below = counts[0] as number;
  while (below < rank && bucket < buckets - 1) below += counts[++bucket] as number;
  return fromUs * 2 ** ((bucket + 1) / perOctave);
}

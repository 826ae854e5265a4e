/** Figures of one policy over several seeds: the median, and the range it lies in. Pure. */

export interface Stat {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

export function statOf(values: readonly number[]): Stat {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? 0;
  const lower = sorted.length % 2 === 1 ? upper : (sorted[middle - 1] ?? upper);
  return { median: (lower + upper) / 2, min: sorted[0] ?? 0, max: sorted.at(-1) ?? 0 };
}

/** `85.2 [84.1-86.0]`; the range is left out when it does not show. */
export function statText(stat: Stat, digits: number): string {
  const [median, min, max] = [stat.median, stat.min, stat.max].map((v) => numberText(v, digits));
  return min === max ? `${median}` : `${median} [${min}-${max}]`;
}

export function numberText(value: number, digits: number): string {
  return Number.isFinite(value) ? value.toFixed(digits) : 'never';
}

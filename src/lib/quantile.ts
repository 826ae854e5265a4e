/** Quantiles of values that are all there. Pure. */

/** Smallest of the sorted values that at least `share` of them do not exceed; 0 for none. */
export function quantileOf(sorted: ArrayLike<number>, share: number): number {
  return sorted[Math.max(0, Math.ceil(share * sorted.length) - 1)] ?? 0;
}

/** The same of values in any order, which stay as they are. */
export const quantile = (values: readonly number[], share: number): number =>
  quantileOf(
    values.toSorted((a, b) => a - b),
    share,
  );

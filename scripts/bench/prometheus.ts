/** Reads one histogram out of Prometheus text and takes quantiles, saying between which bounds. */

/** Cumulative counts by upper bound, ascending; the last bound is Infinity. */
export type Buckets = readonly (readonly [bound: number, count: number])[];

export interface Quantile {
  /** Linear inside the bucket: the estimate Prometheus itself would give. */
  readonly value: number;
  readonly above: number;
  readonly upTo: number;
}

/** Adds the series of all label sets up. Throws when the page has no such histogram. */
export function readBuckets(text: string, name: string): Buckets {
  const sums = new Map<number, number>();
  for (const line of text.split('\n')) {
    if (!line.startsWith(`${name}_bucket`)) continue;
    const match = /le="([^"]+)"[^}]*\}\s+([0-9.eE+]+)/.exec(line);
    if (match === null) continue;
    const bound = match[1] === '+Inf' ? Number.POSITIVE_INFINITY : Number(match[1]);
    sums.set(bound, (sums.get(bound) ?? 0) + Number(match[2]));
  }
  if (sums.size === 0) throw new Error(`the metrics page has no histogram ${name}`);
  return [...sums].sort(([a], [b]) => a - b);
}

/** What was observed between two scrapes. */
export function bucketsBetween(before: Buckets, after: Buckets): Buckets {
  const old = new Map(before);
  return after.map(([bound, count]) => [bound, count - (old.get(bound) ?? 0)] as const);
}

export function observations(buckets: Buckets): number {
  return buckets.at(-1)?.[1] ?? 0;
}

export function quantile(buckets: Buckets, share: number): Quantile {
  const rank = share * observations(buckets);
  if (rank === 0) throw new Error('a histogram without observations has no quantiles');
  let above = 0;
  let below = 0;
  for (const [upTo, count] of buckets) {
    if (count >= rank) {
      const inside = (rank - below) / (count - below);
      const value = Number.isFinite(upTo) ? above + (upTo - above) * inside : upTo;
      return { value, above, upTo };
    }
    above = upTo;
    below = count;
  }
  throw new Error('cumulative counts do not reach their own total');
}

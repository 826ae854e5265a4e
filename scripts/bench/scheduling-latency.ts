/** The gateway's own histogram of its scheduling latency, as buckets and as figures. */
import { fetchText } from './children.ts';
import type { Figure } from './figures.ts';
import { type Buckets, observations, type Quantile, quantile, readBuckets } from './prometheus.ts';
import type { Target } from './targets.ts';

const quantiles = { P50: 0.5, P99: 0.99, 'P99.9': 0.999 } as const;

/** Microseconds. */
type Limits = Partial<Record<keyof typeof quantiles, Pick<Figure, 'floor' | 'aim'>>>;

/** Everything observed since the gateway started. */
export async function schedulingLatency({ adminUrl }: Target): Promise<Buckets> {
  const page = await fetchText(`${adminUrl}/metrics`);
  return readBuckets(page, 'sluice_scheduling_latency_seconds');
}

export function schedulingFigures(buckets: Buckets, limits: Limits): Figure[] {
  const latencies = Object.entries(quantiles).map(([name, share]): Figure => {
    const found = quantile(buckets, share);
    return {
      ...{ name: `scheduling latency ${name}`, value: found.value * 1e6, unit: 'us' },
      ...{ better: 'lower', detail: bounds(found), ...limits[name as keyof Limits] },
    };
  });
  const count = observations(buckets);
  return [
    ...latencies,
    { name: 'scheduling latency observations', value: count, unit: '', better: 'higher' },
  ];
}

export function boundsAsText(buckets: Buckets): Record<string, number> {
  return Object.fromEntries(buckets.map(([bound, count]) => [`le ${bound}`, count]));
}

function bounds({ above, upTo }: Quantile): string {
  return `in the bucket ${above * 1e6} to ${upTo * 1e6} us`;
}

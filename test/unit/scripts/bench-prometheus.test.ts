import { expect, test } from 'vitest';
import {
  bucketsBetween,
  observations,
  quantile,
  readBuckets,
} from '../../../scripts/bench/prometheus.ts';

const page = `# TYPE other_seconds histogram
other_seconds_bucket{le="+Inf"} 9
lat_seconds_bucket{model="a",le="0.001"} 50
lat_seconds_bucket{model="a",le="0.01"} 90
lat_seconds_bucket{model="a",le="+Inf"} 100
lat_seconds_bucket{le="0.001",model="b"} 50
lat_seconds_bucket{le="0.01",model="b"} 100
lat_seconds_bucket{le="+Inf",model="b"} 100
lat_seconds_sum{model="a"} 1
`;

test('series of one histogram are added up over their labels', () => {
  const buckets = readBuckets(page, 'lat_seconds');
  expect(buckets).toEqual([
    [0.001, 100],
    [0.01, 190],
    [Number.POSITIVE_INFINITY, 200],
  ]);
  expect(observations(buckets)).toBe(200);
});

test('a quantile is interpolated inside its bucket and names the bounds', () => {
  const buckets = readBuckets(page, 'lat_seconds');
  expect(quantile(buckets, 0.25)).toEqual({ value: 0.0005, above: 0, upTo: 0.001 });
  const { value, above, upTo } = quantile(buckets, 0.725);
  expect(value).toBeCloseTo(0.0055, 10);
  expect([above, upTo]).toEqual([0.001, 0.01]);
});

test('a quantile beyond the last bound is not guessed', () => {
  expect(quantile(readBuckets(page, 'lat_seconds'), 0.99)).toEqual({
    value: Number.POSITIVE_INFINITY,
    above: 0.01,
    upTo: Number.POSITIVE_INFINITY,
  });
});

test('only what was observed between two scrapes counts', () => {
  const before = readBuckets(page, 'lat_seconds');
  const after = before.map(([bound, count]) => [bound, count + (bound >= 0.01 ? 10 : 0)] as const);
  const between = bucketsBetween(before, after);
  expect(observations(between)).toBe(10);
  expect(quantile(between, 0.5).above).toBe(0.001);
});

test('a missing histogram and an empty one are errors, not zeros', () => {
  expect(() => readBuckets(page, 'absent_seconds')).toThrow('absent_seconds');
  const before = readBuckets(page, 'lat_seconds');
  expect(() => quantile(bucketsBetween(before, before), 0.5)).toThrow('without observations');
});

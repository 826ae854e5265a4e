import { expect, test } from 'vitest';
import { TenantSeries } from '../../../src/gateway/tenant-series.ts';
import { defaultMetricDims } from '../../../src/telemetry/labels.ts';

const named = (...names: string[]) => names.map((name) => ({ name }));
const other = defaultMetricDims.tenants;

test('the first tenants of the config have series, the rest share one', () => {
  const series = new TenantSeries(2);
  series.apply(named('a', 'b', 'c'));
  expect(['a', 'b', 'c', 'd'].map(series.indexOf)).toEqual([0, 1, other, other]);
  expect([...series.named()]).toEqual([
    { name: 'a', index: 0 },
    { name: 'b', index: 1 },
  ]);
});

test('whatever a reload brings, an index stays its tenant’s', () => {
  const series = new TenantSeries(3);
  series.apply(named('a', 'b'));
  series.apply(named('c', 'b', 'd'));
  expect(['a', 'b', 'c', 'd'].map(series.indexOf)).toEqual([0, 1, 2, other]);
  series.apply(named('d', 'a'));
  expect(['a', 'b', 'c', 'd'].map(series.indexOf)).toEqual([0, 1, 2, other]);
});

test('with a bound of 0 nobody has a series of its own', () => {
  const series = new TenantSeries(0);
  series.apply(named('a'));
  expect(series.indexOf('a')).toBe(other);
  expect([...series.named()]).toEqual([]);
});

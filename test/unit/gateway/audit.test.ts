import { expect, test } from 'vitest';
import { AuditLog, changeOf } from '../../../src/gateway/audit.ts';
import { createMetricsRegion } from '../../../src/shm/metrics.layout.ts';
import { MetricsWriter } from '../../../src/shm/metrics.ts';
import { defaultMetricDims } from '../../../src/telemetry/labels.ts';
import type { LogFields } from '../../../src/telemetry/log-fields.ts';

test.each([
  ['/admin/reload', { action: 'reload', target: '' }],
  ['/admin/restart', { action: 'restart', target: '' }],
  ['/admin/replicas', { action: 'replica.add', target: '' }],
  ['/admin/replicas/r.1/undrain', { action: 'replica.undrain', target: 'r.1' }],
  ['/admin/tenants/acme/keys', { action: 'key.create', target: 'acme' }],
  ['/admin/tenants/acme/keys/ci/disable', { action: 'key.disable', target: 'acme/ci' }],
  ['/admin/tenants/acme/keys/ci/delete', undefined],
  ['/admin/replicas/a b/drain', undefined],
  ['/admin/constructor', undefined],
  ['/toString', undefined],
  ['', undefined],
])('a POST to %s', (path, change) => {
  expect(changeOf(path)).toEqual(change);
});

test('refusals of whoever may change nothing are bounded, those of the administrator are not', () => {
  const lines: LogFields[] = [];
  const logger = { audit: (fields: LogFields) => lines.push(fields), error: () => {} };
  const region = createMetricsRegion(defaultMetricDims);
  const audit = new AuditLog('', logger, new MetricsWriter(region, defaultMetricDims), () => true);
  const entry = { remote: '10.0.0.1', action: 'reload', target: '', status: 401, ms: 1 };
  for (let i = 0; i < 1000; i++) audit.write({ ...entry, who: 'nobody' });
  // Ten a second, and the loop may cross from one second into the next.
  expect(lines.length).toBeGreaterThanOrEqual(10);
  expect(lines.length).toBeLessThanOrEqual(20);
  const before = lines.length;
  for (let i = 0; i < 100; i++) audit.write({ ...entry, who: 'admin', status: 200 });
  expect(lines.slice(before)).toHaveLength(100);
  const told = lines.reduce((count, { count: skipped = 0 }) => count + skipped, 0);
  expect(told + before).toBe(1000);
  expect(lines.at(-1)).toMatchObject({ who: 'admin', result: 'ok', status: 200 });
});

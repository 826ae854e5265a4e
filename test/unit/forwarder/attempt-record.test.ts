import { expect, test } from 'vitest';
import { AttemptRecord } from '../../../src/forwarder/attempt-record.ts';
import type { Services } from '../../../src/forwarder/services.ts';
import { createMetricsRegion } from '../../../src/shm/metrics.layout.ts';
import { MetricsReader, MetricsWriter } from '../../../src/shm/metrics.ts';
import { createRequestSlots, RequestSlots } from '../../../src/shm/request-slots.ts';
import { metrics as catalogue } from '../../../src/telemetry/catalogue.ts';
import { defaultMetricDims, Stage } from '../../../src/telemetry/labels.ts';

test('a request that is written twice has its first time as the overhead, its second as the call', () => {
  const slots = new RequestSlots(createRequestSlots(8), 8);
  const region = createMetricsRegion(defaultMetricDims);
  const metrics = new MetricsWriter(region, defaultMetricDims);
  const record = new AttemptRecord({ slots, metrics } as Services, 3, 1000, 0);
  record.sent(1400);
  record.head(900_000, 400);
  record.sent(901_000);
  const seen = new MetricsReader(defaultMetricDims, [region]).snapshot();
  expect(seen.sumSeconds(catalogue.overhead, Stage.connect)).toBe(0.0004);
  expect(seen.buckets(catalogue.overhead, Stage.connect).reduce((a, b) => a + b)).toBe(1);
  expect(slots.readTime(3, slots.at.sentUs)).toBe(901_000);
});

import { expect, test } from 'vitest';
import { Metrics, Tracing } from '../../../src/config/schema-telemetry.ts';

test.each([
  ['', true],
  ['http://127.0.0.1:4318/v1/traces', true],
  ['https://otlp.example.com/api/v1/traces?tenant=a', true],
  ['127.0.0.1:4318', false],
  ['grpc://127.0.0.1:4317', false],
  ['http://127.0.0.1:4317/v1/traces', false],
  ['http://127.0.0.1:4318', false],
  ['http://user:word@127.0.0.1:4318/v1/traces', false],
  ['http://127.0.0.1:4318/v1/traces#x', false],
])('the address of traces %j', (endpoint, isTaken) => {
  const { success, error } = Tracing.safeParse({ endpoint });
  expect(success).toBe(isTaken);
  if (!isTaken) expect(error?.issues[0]?.message).toMatch(/^must /);
});

test.each([
  [{ headers: { 'x-key': 'a\r\nb' } }],
  [{ headers: { 'x key': 'a' } }],
  [{ sample: 1.1 }],
  [{ max_per_second: 0 }],
  [{ service_name: '' }],
  [{ sampler: 1 }],
])('of traces %j is refused', (tracing) => {
  expect(Tracing.safeParse(tracing).success).toBe(false);
});

test('more tenants than there are series for are refused', () => {
  expect(Metrics.safeParse({ tenants: 256 }).success).toBe(true);
  expect(Metrics.safeParse({ tenants: 257 }).success).toBe(false);
});

import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { SpareThread } from '../../src/gateway/spare-thread.ts';
import { ByteRingProducer, createByteRing, SpanRingLayout } from '../../src/shm/byte-ring.ts';
import { spanRingBytes } from '../../src/shm/memory.ts';
import { createMetricsRegion } from '../../src/shm/metrics.layout.ts';
import { MetricsReader, MetricsWriter } from '../../src/shm/metrics.ts';
import { type RequestSpan, SpanWriter } from '../../src/shm/span-records.ts';
import type { TracerStart } from '../../src/shm/threads.ts';
import { metrics as catalogue } from '../../src/telemetry/catalogue.ts';
import { defaultMetricDims, ThreadKind } from '../../src/telemetry/labels.ts';
import { OtlpReceiver, spanKinds } from '../support/otlp-receiver.ts';
import { eventually } from '../support/until.ts';

const record: RequestSpan = {
  kind: 'request',
  ...{ traceId: 'a'.repeat(32), spanId: 'b'.repeat(16), parentId: 'c'.repeat(16) },
  ...{ startUs: 1e6, endUs: 2e6, queuedUs: 1.2e6, firstTokenUs: 0, route: 1, requestId: 'r' },
  ...{
    tenant: '',
    model: -1,
    servedModel: -1,
    adapter: '',
    isStream: false,
    status: 503,
    error: 'queue_timeout',
  },
  ...{ attempts: 0, inputTokens: -1, outputTokens: -1, cachedTokens: -1 },
};

const startOf = (ring: SharedArrayBuffer, endpoint: string): TracerStart => ({
  thread: 'tracer',
  rings: [ring],
  metrics: createMetricsRegion(defaultMetricDims),
  log: { level: 'silent', sample: 0, pretty: false },
  models: [],
  endpoint,
  headers: {},
  serviceName: 's',
  scheme: 'http',
  version: '0',
});

/** What the main thread says of deaths. */
let said: string[];
let metrics: SharedArrayBuffer;
beforeEach(() => {
  said = [];
  metrics = createMetricsRegion(defaultMetricDims);
});
afterEach(() => {
  vi.useRealTimers();
});

const tracerOf = (startData: () => TracerStart): SpareThread =>
  new SpareThread('tracer', {
    logger: { error: (text) => said.push(text) },
    metrics: new MetricsWriter(metrics, defaultMetricDims),
    startData,
  });
const restarts = (): number =>
  new MetricsReader(defaultMetricDims, [metrics])
    .snapshot()
    .counter(catalogue.threadRestarts, ThreadKind.tracer);

test('a tracer that dies is started again and reads on; what is left at a stop is still sent', async () => {
  const receiver = await OtlpReceiver.listen();
  const ring = createByteRing(spanRingBytes, 0, SpanRingLayout);
  const writer = new SpanWriter(ring, () => expect.unreachable());
  writer.write(record);
  let starts = 0;
  const start = (): TracerStart => ({
    ...startOf(ring, receiver.endpoint),
    // The first one dies: its metrics are no metrics.
    ...(starts++ === 0 && { metrics: new SharedArrayBuffer(64) }),
  });
  const thread = tracerOf(start);
  try {
    thread.start();
    await receiver.until(() => receiver.spans.length === 2);
    expect(starts).toBe(2);
    expect(said).toEqual(['the tracer died; it is started again']);
    expect(restarts()).toBe(1);
    const [request, queue] = receiver.spans.toSorted((a, b) => b.kind - a.kind);
    expect(request).toMatchObject({ parentId: record.parentId, kind: spanKinds.server, status: 2 });
    expect(queue).toMatchObject({ parentId: record.spanId, name: 'queue', status: 2 });
    expect(queue!.endNs).toBe(request!.endNs);
    writer.write({ ...record, queuedUs: 0 });
  } finally {
    await thread.stop(5000);
    await receiver.close();
  }
  expect(receiver.spans).toHaveLength(3);
});

test('a tracer that dies of a record goes on behind it when it is started again', async () => {
  const receiver = await OtlpReceiver.listen();
  const ring = createByteRing(spanRingBytes, 0, SpanRingLayout);
  new SpanWriter(ring, () => expect.unreachable()).write(record);
  // Nobody writes such a one: it stands for whatever a thread can die of.
  const broken = new ByteRingProducer(ring, spanRingBytes, SpanRingLayout);
  broken.data.set([0x7b], broken.reserve(1));
  broken.commit(1, 0, 0, 1);
  new SpanWriter(ring, () => expect.unreachable()).write({ ...record, requestId: 'behind' });
  const thread = tracerOf(() => startOf(ring, receiver.endpoint));
  try {
    thread.start();
    const isBehind = () =>
      receiver.spans.some(({ attributes }) => attributes['sluice.request_id'] === 'behind');
    await receiver.until(isBehind);
    expect(said).toHaveLength(1);
  } finally {
    await thread.stop(5000);
    await receiver.close();
  }
});

test('the pause grows with each death in a row, and a stop ends it', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  let starts = 0;
  const thread = tracerOf(() => {
    starts++;
    // It dies at once: its metrics are no metrics.
    return { ...startOf(new SharedArrayBuffer(64), ''), metrics: new SharedArrayBuffer(64) };
  });
  thread.start();
  for (const [deaths, pauseMs] of [250, 500, 1000, 2000].entries()) {
    await eventually('it is dead', () => said.length === deaths + 1);
    expect(thread.handle).toBeUndefined();
    vi.advanceTimersByTime(pauseMs - 1);
    expect(starts).toBe(deaths + 1);
    vi.advanceTimersByTime(1);
    expect(starts).toBe(deaths + 2);
  }
  await eventually('it is dead again', () => said.length === 5);
  await thread.stop(100);
  expect(vi.getTimerCount()).toBe(0);
  thread.start();
  expect(starts).toBe(5);
  expect(restarts()).toBe(4);
});

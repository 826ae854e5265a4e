import { expect, test } from 'vitest';
import { TracerThread } from '../../src/gateway/tracer-thread.ts';
import { ByteRingProducer, createByteRing, SpanRingLayout } from '../../src/shm/byte-ring.ts';
import { spanRingBytes } from '../../src/shm/memory.ts';
import { createMetricsRegion } from '../../src/shm/metrics.layout.ts';
import { type RequestSpan, SpanWriter } from '../../src/shm/span-records.ts';
import type { TracerStart } from '../../src/shm/threads.ts';
import { defaultMetricDims } from '../../src/telemetry/labels.ts';
import { OtlpReceiver, spanKinds } from '../support/otlp-receiver.ts';

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

test('nothing is started where requests are not traced', async () => {
  let asked = 0;
  const thread = new TracerThread({ error: () => {} }, () => void asked++);
  thread.start();
  await thread.stop(100);
  expect(asked).toBe(1);
});

test('a tracer that dies is started again and reads on; what is left at a stop is still sent', async () => {
  const receiver = await OtlpReceiver.listen();
  const ring = createByteRing(spanRingBytes, 0, SpanRingLayout);
  const writer = new SpanWriter(ring, () => expect.unreachable());
  writer.write(record);
  const said: string[] = [];
  let starts = 0;
  const start = (): TracerStart => ({
    ...startOf(ring, receiver.endpoint),
    // The first one dies: its metrics are no metrics.
    ...(starts++ === 0 && { metrics: new SharedArrayBuffer(64) }),
  });
  const thread = new TracerThread({ error: (message) => said.push(message) }, start);
  try {
    thread.start();
    await receiver.until(() => receiver.spans.length === 2);
    expect(starts).toBe(2);
    expect(said).toEqual([expect.stringContaining('the tracer died')]);
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
  const died: string[] = [];
  const thread = new TracerThread({ error: (message) => died.push(message) }, () =>
    startOf(ring, receiver.endpoint),
  );
  try {
    thread.start();
    const isBehind = () =>
      receiver.spans.some(({ attributes }) => attributes['sluice.request_id'] === 'behind');
    await receiver.until(isBehind);
    expect(died).toHaveLength(1);
  } finally {
    await thread.stop(5000);
    await receiver.close();
  }
});

import { expect, test } from 'vitest';
import { TracerThread } from '../../../src/gateway/tracer-thread.ts';
import { createByteRing, SpanRingLayout } from '../../../src/shm/byte-ring.ts';
import { spanRingBytes } from '../../../src/shm/memory.ts';
import { createMetricsRegion } from '../../../src/shm/metrics.layout.ts';
import { type RequestSpan, SpanWriter } from '../../../src/shm/span-records.ts';
import type { TracerStart } from '../../../src/shm/threads.ts';
import { defaultMetricDims } from '../../../src/telemetry/labels.ts';
import { OtlpReceiver, spanKinds } from '../../support/otlp-receiver.ts';

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
  const record: RequestSpan = {
    kind: 'request',
    ...{ traceId: 'a'.repeat(32), spanId: 'b'.repeat(16), parentId: 'c'.repeat(16) },
    ...{ startUs: 1e6, endUs: 2e6, queuedUs: 1.2e6, firstTokenUs: 0, route: 1, requestId: 'r' },
    ...{ tenant: '', model: -1, adapter: '', isStream: false, status: 503, error: 'queue_timeout' },
    ...{ attempts: 0, inputTokens: -1, outputTokens: -1, cachedTokens: -1 },
  };
  writer.write(record);
  const said: string[] = [];
  let starts = 0;
  const start = (): TracerStart => ({
    thread: 'tracer',
    rings: [ring],
    // The first one dies: its metrics are no metrics.
    metrics: starts++ === 0 ? new SharedArrayBuffer(64) : createMetricsRegion(defaultMetricDims),
    log: { level: 'silent', sample: 0, pretty: false },
    models: [],
    endpoint: receiver.endpoint,
    headers: {},
    serviceName: 's',
    version: '0',
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

import { expect, test } from 'vitest';
import { createByteRing, SpanRingLayout } from '../../../src/shm/byte-ring.ts';
import { spanRingBytes } from '../../../src/shm/memory.ts';
import { type RequestSpan, SpanReader, SpanWriter } from '../../../src/shm/span-records.ts';

const record: RequestSpan = {
  kind: 'request',
  ...{ traceId: 'a'.repeat(32), spanId: 'b'.repeat(16), parentId: '' },
  ...{ startUs: 1.5, endUs: 2, queuedUs: 0, firstTokenUs: 0, route: 1, requestId: 'é' },
  ...{
    tenant: 't',
    model: 0,
    servedModel: 0,
    adapter: '',
    isStream: true,
    status: 200,
    error: '',
    attempts: 1,
  },
  ...{ inputTokens: 1, outputTokens: -1, cachedTokens: 0 },
};

function ring() {
  const region = createByteRing(spanRingBytes, 0, SpanRingLayout);
  let dropped = 0;
  const open = () => new SpanWriter(region, () => dropped++);
  return { region, open, writer: open(), reader: new SpanReader(region), dropped: () => dropped };
}

test('records come out as they went in, also at a successor of either end', () => {
  const { region, open, writer, reader } = ring();
  writer.write(record);
  expect(reader.next()).toEqual(record);
  expect(reader.next()).toBeUndefined();
  writer.write({ ...record, attempts: 2 });
  open().write({ ...record, attempts: 3 });
  const successor = new SpanReader(region);
  expect([successor.next(), successor.next(), successor.next()]).toEqual([
    { ...record, attempts: 2 },
    { ...record, attempts: 3 },
    undefined,
  ]);
});

test('what nobody reads fills the ring; the rest is dropped and counted, and none of it later', () => {
  const { writer, reader, dropped } = ring();
  const written = 1000;
  for (let attempts = 0; attempts < written; attempts++) writer.write({ ...record, attempts });
  const kept = written - dropped();
  expect(kept).toBeGreaterThan(300);
  expect(dropped()).toBeGreaterThan(0);
  for (let attempts = 0; attempts < kept; attempts++) {
    expect(reader.next()).toEqual({ ...record, attempts });
  }
  expect(reader.next()).toBeUndefined();
  writer.write(record);
  expect(reader.next()).toEqual(record);
});

test('a record that no ring could hold is dropped', () => {
  const { writer, reader, dropped } = ring();
  writer.write({ ...record, requestId: 'x'.repeat(spanRingBytes) });
  expect(dropped()).toBe(1);
  expect(reader.next()).toBeUndefined();
});

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ByteRingConsumer, ByteRingProducer, createByteRing } from '../../src/shm/byte-ring.ts';

const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);
const capacity = 256;
const payloadMax = capacity / 2 - 16;

const sizes = fc.oneof(fc.integer({ min: 0, max: payloadMax }), fc.constantFrom(0, payloadMax));
const commands = fc.array(
  fc.oneof(
    fc.record({ kind: fc.constant<'send'>('send'), reserved: sizes, unused: fc.nat(20) }),
    fc.record({ kind: fc.constant<'receive'>('receive') }),
    fc.record({ kind: fc.constant<'reopen'>('reopen') }),
  ),
  { maxLength: 200 },
);

test('the byte ring is a bounded queue of whole records, whatever the sizes', () => {
  console.log(`SEED=${seed}`);
  const starts = fc.constantFrom(0, 16, 2 ** 31 - 128, -128, -16);
  const property = fc.property(starts, commands, (start, steps) => {
    const region = createByteRing(capacity, start);
    let producer = new ByteRingProducer(region, capacity);
    let consumer = new ByteRingConsumer(region, capacity);
    const queue: { readonly number: number; readonly length: number }[] = [];
    let number = 0;
    for (const step of steps) {
      if (step.kind === 'reopen') {
        // Whoever takes over finds everything in the region.
        producer = new ByteRingProducer(region, capacity);
        consumer = new ByteRingConsumer(region, capacity);
      } else if (step.kind === 'send') {
        const offset = producer.reserve(step.reserved);
        if (queue.length === 0) expect(offset).toBeGreaterThan(0); // empty: it always fits
        if (offset < 0) continue;
        expect(offset + step.reserved).toBeLessThanOrEqual(capacity);
        const length = Math.max(0, step.reserved - step.unused);
        producer.data.fill(number & 255, offset, offset + length);
        producer.commit(number & 7, number, ~number, length);
        queue.push({ number: number++, length });
      } else {
        const expected = queue.shift();
        expect(consumer.peek()).toBe(expected !== undefined);
        if (expected === undefined) continue;
        const { kind, slot, lease, length, payload } = consumer;
        expect([kind, slot, lease, length]).toEqual([
          ...[expected.number & 7, expected.number, ~expected.number, expected.length],
        ]);
        const bytes = consumer.data.subarray(payload, payload + length);
        expect(bytes.every((byte) => byte === (expected.number & 255))).toBe(true);
        consumer.advance();
      }
      expect(producer.depth()).toBeLessThanOrEqual(capacity);
      expect(producer.depth() === 0).toBe(queue.length === 0);
    }
  });
  fc.assert(property, { seed, numRuns: 300 });
});

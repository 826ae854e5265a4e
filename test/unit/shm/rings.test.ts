import { expect, test } from 'vitest';
import { ByteRingConsumer, ByteRingProducer, createByteRing } from '../../../src/shm/byte-ring.ts';
import { RequestKind } from '../../../src/shm/request-ring.layout.ts';
import {
  createRequestRing,
  RequestRingConsumer,
  RequestRingProducer,
  RequestRingRepair,
  Tombstone,
} from '../../../src/shm/request-ring.ts';
import { ReplyRingLayout } from '../../../src/shm/rings.layout.ts';
import { createSpscRing, SpscConsumer, SpscProducer } from '../../../src/shm/spsc-ring.ts';

test('capacities that are no power of two, and rings of one cell, are refused', () => {
  for (const capacity of [0, 1, 3, 6]) {
    expect(() => createRequestRing({ capacity, producers: 1 })).toThrow('capacity');
  }
  expect(() => createSpscRing(ReplyRingLayout, 3)).toThrow('power of two');
  expect(() => createByteRing(96)).toThrow('power of two');
  expect(() => createByteRing(32)).toThrow('power of two');
  expect(() => createByteRing(64, 8)).toThrow('multiples of 16');
});

test('a full request ring refuses, and takes again once a message was consumed', () => {
  const size = { capacity: 4, producers: 2 };
  const region = createRequestRing(size, 2 ** 31 - 2);
  const [first, second] = [0, 1].map((i) => new RequestRingProducer(region, size, i));
  const consumer = new RequestRingConsumer(region, size);
  for (let i = 0; i < 4; i++) {
    expect((i % 2 === 0 ? first : second)!.push(RequestKind.arrive, i, i * 2)).toBe(true);
  }
  expect(consumer.depth()).toBe(4);
  expect(first!.push(RequestKind.cancel, 9, 9)).toBe(false);
  expect(consumer.peek()).toBe(true);
  expect(first!.push(RequestKind.cancel, 9, 9)).toBe(false); // peeked is not yet freed
  consumer.advance();
  expect(second!.push(RequestKind.cancel, 9, 9)).toBe(true);
  const seen: number[][] = [];
  while (consumer.peek()) {
    seen.push([consumer.kind, consumer.slot, consumer.lease]);
    consumer.advance();
  }
  expect(seen).toEqual([
    [RequestKind.arrive, 1, 2],
    [RequestKind.arrive, 2, 4],
    [RequestKind.arrive, 3, 6],
    [RequestKind.cancel, 9, 9],
  ]);
  expect(consumer.depth()).toBe(0);
});

test('a producer that has claimed nothing, or has published all, leaves nothing to repair', () => {
  const size = { capacity: 2, producers: 2 };
  const region = createRequestRing(size);
  const repair = new RequestRingRepair(region, size);
  expect(repair.tombstone(0, () => false)).toBe(Tombstone.nothing);
  expect(new RequestRingProducer(region, size, 0).push(RequestKind.arrive, 1, 1)).toBe(true);
  expect(repair.tombstone(0, () => false)).toBe(Tombstone.nothing);
  expect(repair.tombstone(1, (producer) => producer === 0)).toBe(Tombstone.nothing);
});

test('a full record ring has no cell to begin', () => {
  const region = createSpscRing(ReplyRingLayout, 2, -1);
  const producer = new SpscProducer(ReplyRingLayout, region, 2);
  const consumer = new SpscConsumer(ReplyRingLayout, region, 2);
  expect(consumer.peek()).toBe(-1);
  for (const slot of [7, 8]) {
    producer.words[producer.begin() + producer.at.slot] = slot;
    producer.commit();
  }
  expect(producer.begin()).toBe(-1);
  expect(consumer.words[consumer.peek() + consumer.at.slot]).toBe(7);
  expect(producer.depth()).toBe(2);
  consumer.advance();
  expect(producer.begin()).toBeGreaterThan(0);
  expect(consumer.words[consumer.peek() + consumer.at.slot]).toBe(8);
});

test('the largest payload always fits an empty ring, one byte more is refused', () => {
  for (const start of [0, 16, 32, 48, 112]) {
    const region = createByteRing(128, start);
    const producer = new ByteRingProducer(region, 128);
    const consumer = new ByteRingConsumer(region, 128);
    expect(producer.payloadMax).toBe(48);
    expect(() => producer.reserve(49)).toThrow('payload fits half the ring');
    expect(() => producer.reserve(-1)).toThrow('payload fits half the ring');
    const offset = producer.reserve(48);
    expect(offset).toBeGreaterThan(0);
    producer.data.fill(7, offset, offset + 48);
    producer.commit(1, 2, 3, 48);
    expect(consumer.peek()).toBe(true);
    expect([consumer.kind, consumer.slot, consumer.lease, consumer.length]).toEqual([1, 2, 3, 48]);
    expect(consumer.data.subarray(consumer.payload, consumer.payload + 48)).toEqual(
      new Uint8Array(48).fill(7),
    );
    consumer.advance();
    expect(consumer.peek()).toBe(false);
    expect(producer.depth()).toBe(0);
  }
});

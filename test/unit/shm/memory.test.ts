import { expect, test } from 'vitest';
import { ThreadId } from '../../../src/shm/control.layout.ts';
import {
  createMemory,
  type MemorySize,
  recordRingCapacity,
  requestRingSize,
} from '../../../src/shm/memory.ts';
import { attemptsLimit } from '../../../src/shm/request-slots.layout.ts';

const size: MemorySize = {
  acceptors: 3,
  forwarders: 2,
  slots: 100,
  arenaBytes: 1 << 20,
  responseRingBytes: 4096,
};

test('there is a ring for each pair of threads that talk', () => {
  const memory = createMemory(size);
  expect(memory.dispatchRings).toHaveLength(2);
  expect(memory.eventRings).toHaveLength(2);
  expect(memory.replyRings).toHaveLength(3);
  expect(memory.responseRings.map((rings) => rings.length)).toEqual([3, 3]);
  const regions = [
    ...[memory.control, memory.slots, memory.arena, memory.replicas, memory.requestRing],
    ...[...memory.dispatchRings, ...memory.eventRings, ...memory.replyRings],
    ...memory.responseRings.flat(),
  ];
  expect(new Set(regions).size).toBe(5 + 2 + 2 + 3 + 6);
  expect(memory.arena.byteLength).toBeGreaterThanOrEqual(1 << 20);
});

test.each([1, 2, 100, 8192])(
  'with %i slots what each can be told of at once fits the rings',
  (slots) => {
    const records = recordRingCapacity({ ...size, slots });
    const { capacity, producers } = requestRingSize({ ...size, slots });
    expect(records).toBeGreaterThanOrEqual(3 * slots);
    expect(capacity).toBeGreaterThanOrEqual(2 * slots);
    for (const each of [records, capacity]) expect(Number.isInteger(Math.log2(each))).toBe(true);
    expect(producers).toBe(3);
  },
);

test('every thread has a row of its own', () => {
  const ids = [
    ...[ThreadId.main, ThreadId.scheduler],
    ...[0, 1, 2].map((index) => ThreadId.acceptor(index)),
    ...[0, 1].map((index) => ThreadId.forwarder(index, size)),
  ];
  expect(ids).toEqual([0, 1, 2, 3, 4, 5, 6]);
  expect(ThreadId.total(size)).toBe(7);
  expect(attemptsLimit).toBe(64);
});

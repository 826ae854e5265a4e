import { expect, test } from 'vitest';
import { Outbox } from '../../../src/scheduler/outbox.ts';
import { ReplyRingLayout } from '../../../src/shm/rings.layout.ts';
import { createSpscRing, SpscConsumer } from '../../../src/shm/spsc-ring.ts';

const capacity = 4;

function setUp() {
  const region = createSpscRing(ReplyRingLayout, capacity, 0x7ffffffe);
  const outbox = new Outbox(ReplyRingLayout, region, capacity);
  const consumer = new SpscConsumer(ReplyRingLayout, region, capacity);
  const send = (slot: number): boolean => {
    outbox.record.set([slot, slot + 1, slot + 2, slot + 3]);
    return outbox.send();
  };
  const take = (): number[] => {
    const slots: number[] = [];
    for (let cell = consumer.peek(); cell >= 0; cell = consumer.peek()) {
      const slot = consumer.words[cell]!;
      expect([...consumer.words.subarray(cell, cell + 4)]).toEqual([
        slot,
        slot + 1,
        slot + 2,
        slot + 3,
      ]);
      slots.push(slot);
      consumer.advance();
    }
    return slots;
  };
  return { outbox, send, take };
}

test('what does not fit waits in order and is published when there is room', () => {
  const { outbox, send, take } = setUp();
  const sent = Array.from({ length: 7 }, (_, i) => send(i));
  expect(sent).toEqual([true, true, true, true, false, false, false]);
  expect(outbox.waiting).toBe(3);
  expect(take()).toEqual([0, 1, 2, 3]);
  expect(send(7)).toBe(false); // not before those that wait
  outbox.flush();
  expect(outbox.waiting).toBe(0);
  expect(take()).toEqual([4, 5, 6, 7]);
  expect(outbox.published).toBe(8);
});

test('a stalled consumer keeps what it has not taken', () => {
  const { outbox, send, take } = setUp();
  for (let i = 0; i < 6; i++) send(i);
  outbox.flush();
  expect(outbox.waiting).toBe(2);
  expect(take()).toEqual([0, 1, 2, 3]);
});

test('more than the thread can owe is a broken invariant', () => {
  const { send } = setUp();
  for (let i = 0; i < 2 * capacity; i++) send(i);
  expect(() => send(8)).toThrow('bounded number');
});

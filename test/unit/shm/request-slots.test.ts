import { describe, expect, test } from 'vitest';
import { attemptsLimit, SlotState, slotStates } from '../../../src/shm/request-slots.layout.ts';
import {
  attemptOf,
  createRequestSlots,
  generationOf,
  leaseOf,
  RequestSlots,
  stateOf,
} from '../../../src/shm/request-slots.ts';

const { free, reading, queued, dispatched, resuming, settled } = SlotState;
const states = Object.entries(SlotState);

function table(count = 2): RequestSlots {
  return new RequestSlots(createRequestSlots(count), count);
}

/** Puts the slot into `state` with attempt and generation 1, whatever the way there. */
function put(slots: RequestSlots, slot: number, state: SlotState): number {
  const lease = (1 << 6) | 1;
  Atomics.store(slots.words, slots.row(slot), (lease << 3) | state);
  return lease;
}

describe('the state table', () => {
  for (const [fromName, from] of states) {
    for (const [toName, to] of states) {
      const isAllowed = slotStates[fromName as keyof typeof SlotState].next.includes(to);
      test(`${fromName} -> ${toName} is ${isAllowed ? 'a move' : 'refused'}`, () => {
        const slots = table();
        const lease = put(slots, 0, from);
        if (!isAllowed) {
          expect(() => slots.transition(0, lease, from, to)).toThrow('the state table allows');
          expect(slots.state(0)).toBe(from);
          return;
        }
        expect(slots.transition(0, lease, from, to)).toBe(true);
        expect(slots.state(0)).toBe(to);
        expect(slots.lease(0)).toBe(lease);
        expect(slots.transition(0, lease, from, to)).toBe(false);
      });
    }
  }

  test('every state can be reached from free and leads back to free', () => {
    const reach = (start: SlotState): Set<SlotState> => {
      const seen = new Set<SlotState>();
      const work = [start];
      for (let state = work.pop(); state !== undefined; state = work.pop()) {
        const rule = Object.values(slotStates)[state]!;
        for (const next of rule.next) {
          if (!seen.has(next)) work.push(next);
          seen.add(next);
        }
      }
      return seen;
    };
    for (const [, state] of states) {
      expect(reach(free).has(state)).toBe(true);
      expect(reach(state).has(free)).toBe(true);
    }
  });
});

test('a move under another lease or out of another state changes nothing', () => {
  const slots = table();
  const lease = put(slots, 0, dispatched);
  expect(slots.transition(0, lease + 1, dispatched, settled)).toBe(false);
  expect(slots.transition(0, lease, resuming, settled)).toBe(false);
  expect(slots.stamp(0)).toBe((lease << 3) | dispatched);
  expect(slots.state(1)).toBe(free);
});

test('each claim is a new generation with attempt 0', () => {
  const slots = table();
  const first = slots.claim(0);
  expect([generationOf(first), attemptOf(first), slots.state(0)]).toEqual([1, 0, reading]);
  expect(() => slots.claim(0)).toThrow('only a free slot is claimed');
  expect(slots.transition(0, first, reading, free)).toBe(true);
  const second = slots.claim(0);
  expect([generationOf(second), attemptOf(second)]).toEqual([2, 0]);
  expect(slots.holds(0, first)).toBe(false);
  expect(slots.holds(0, second)).toBe(true);
});

test('the generation wraps to 0 after 2^23 - 1 and stays apart from the attempt', () => {
  const slots = table();
  const last = ((2 ** 23 - 1) << 6) | 5;
  Atomics.store(slots.words, slots.row(0), (last << 3) | free);
  expect(generationOf(leaseOf(slots.stamp(0)))).toBe(2 ** 23 - 1);
  const lease = slots.claim(0);
  expect([generationOf(lease), attemptOf(lease)]).toEqual([0, 0]);
  expect(stateOf(slots.stamp(0))).toBe(reading);
  expect(slots.transition(0, lease, reading, queued)).toBe(true);
});

test('a lease with the highest generation still moves its slot', () => {
  const slots = table();
  Atomics.store(slots.words, slots.row(0), ((2 ** 23 - 2) << 9) | free);
  const lease = slots.claim(0);
  expect(generationOf(lease)).toBe(2 ** 23 - 1);
  expect(slots.transition(0, lease, reading, queued)).toBe(true);
  const attempt = slots.startAttempt(0, lease);
  expect(attempt).toBe(lease + 1);
  expect(slots.holds(0, attempt)).toBe(true);
  expect(slots.transition(0, attempt, dispatched, settled)).toBe(true);
});

test('an attempt starts from queued and resuming alone, and only under the lease', () => {
  for (const [name, state] of states) {
    const slots = table();
    const lease = put(slots, 0, state);
    const expected = name === 'queued' || name === 'resuming' ? lease + 1 : -1;
    expect(slots.startAttempt(0, lease), name).toBe(expected);
    expect(slots.state(0)).toBe(expected < 0 ? state : dispatched);
  }
  const slots = table();
  const lease = put(slots, 0, queued);
  expect(slots.startAttempt(0, lease - 1)).toBe(-1);
  expect(slots.lease(0)).toBe(lease);
});

test('attempts of one request are bounded', () => {
  const slots = table();
  let lease = slots.claim(0);
  slots.transition(0, lease, reading, queued);
  for (let attempt = 1; attempt < attemptsLimit; attempt++) {
    lease = slots.startAttempt(0, lease);
    expect(attemptOf(lease)).toBe(attempt);
    expect(slots.transition(0, lease, dispatched, resuming)).toBe(true);
  }
  expect(() => slots.startAttempt(0, lease)).toThrow('attempts of one request are bounded');
  expect(generationOf(lease)).toBe(1);
});

test('a slot outside the table is refused', () => {
  const slots = table(2);
  for (const slot of [-1, 2, Number.NaN]) {
    expect(() => slots.stamp(slot)).toThrow('slot is in the table');
  }
});

test('times are kept whole in each row', () => {
  const slots = table(2);
  const us = 2 ** 52 + 1;
  slots.writeTime(1, slots.at.endedUs, us);
  expect(slots.readTime(1, slots.at.endedUs)).toBe(us);
  expect(slots.readTime(0, slots.at.endedUs)).toBe(0);
});

describe('the deadline', () => {
  const totalUs = 600_000_000;
  const withOwn = (ms: number): number => {
    const slots = table();
    slots.writeTime(1, slots.at.arrivedUs, 5_000_000);
    slots.words[slots.row(1) + slots.at.deadlineMs] = ms;
    return slots.deadlineUs(1, totalUs) - 5_000_000;
  };

  test.each([
    ['without a limit of its own is that of all', 0, totalUs],
    ['is the own limit of the request when that is shorter', 1500, 1_500_000],
    ['is never later than that of all', 86_400_000, totalUs],
  ])('%s', (_name, ms, expected) => {
    expect(withOwn(ms)).toBe(expected);
  });
});

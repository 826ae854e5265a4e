/** Requests that wait for the store of shared limits, as the brain decides about them; the test is the store. */
import { expect, test } from 'vitest';
import type { LeaseRows } from '../../../src/dispatch/leases.ts';
import type { LimitRows } from '../../../src/dispatch/limit-rows.ts';
import { LeasesLayout } from '../../../src/shm/leases.layout.ts';
import { LimitsLayout } from '../../../src/shm/limits.layout.ts';
import { BrainHarness } from '../../support/brain-harness.ts';

const budgetMs = 50;

/** One row of limits, with a lease that the test raises by hand. */
function scene(limits: Partial<Record<'requestRate' | 'requestBurst', number>>, isClosed = false) {
  const region = LimitsLayout.create({ row: 1 });
  const { row } = LimitsLayout.place({ row: 1 }).at;
  const rows: LimitRows = {
    count: 1,
    words: new Int32Array(region),
    doubles: new Float64Array(region),
    word: () => row.base,
    at: row.at,
  };
  rows.words[row.base + row.at.owner] = 1;
  for (const [name, value] of Object.entries(limits)) {
    rows.doubles[(row.base + row.at[name as 'requestRate']) >> 1] = value;
  }
  const leaseRegion = LeasesLayout.create({ row: 1 });
  const lease = LeasesLayout.place({ row: 1 }).at;
  const leases: LeaseRows = {
    count: 1,
    words: new Int32Array(leaseRegion),
    doubles: new Float64Array(leaseRegion),
    word: () => lease.row.base,
    at: lease.row.at,
    isDown: lease.isDown,
    answers: lease.answers,
  };
  const word = (field: number): number => lease.row.base + field;
  if (isClosed) leases.words[word(leases.at.isClosed)] = 1;
  const asks: number[] = [];
  const harness = new BrainHarness({
    limits: rows,
    sharedLimits: {
      rows: leases,
      ask: (asked) => {
        asks.push(asked);
        return true;
      },
      budgetUs: budgetMs * 1000,
      share: 0.5,
    },
  });
  harness.replica(0);
  const double = (field: number): number => word(field) >> 1;
  return {
    harness,
    asks,
    want: () => leases.doubles[double(leases.at.want)]!,
    arrive: (slot: number) => harness.arrive(slot, 0, 600_000, { limitRow: 0 }),
    /** The store has given so many, and refuses more for a while. */
    answer(given: number, isShort = false) {
      leases.doubles[double(leases.at.granted)]! += given;
      if (isShort) {
        leases.doubles[double(leases.at.refused)] = leases.doubles[double(leases.at.granted)]!;
        leases.doubles[double(leases.at.retryUs)] = harness.nowUs + 100_000;
        leases.doubles[double(leases.at.tat)] = harness.nowUs + 60e6;
      }
      leases.words[word(leases.at.isInRing)] = 0;
      leases.words[word(leases.at.answered)] = leases.words[word(leases.at.asked)]!;
      leases.words[leases.answers]! += 1;
      expect(harness.brain.nextTimerUs).toBe(0);
      harness.advance(0);
      expect(harness.brain.nextTimerUs).toBeGreaterThan(0);
    },
    returned: () => leases.doubles[double(leases.at.returned)]!,
    used: () => leases.doubles[double(leases.at.used)]!,
    setDown(isDown: boolean) {
      leases.words[leases.isDown] = isDown ? 1 : 0;
    },
  };
}
const perMinute = (count: number) => ({ requestRate: count / 60, requestBurst: count });

test('who finds nothing leased waits for the answer, and the answer decides in order', () => {
  const { harness, arrive, answer, asks, want } = scene(perMinute(10));
  for (const slot of [0, 1, 2]) arrive(slot);
  expect(harness.running.size).toBe(0);
  expect(asks, 'one question for all of them').toEqual([0]);
  expect(want()).toBe(3);
  answer(2, true);
  expect([...harness.running.keys()]).toEqual([0, 1]);
  expect(harness.refusals.map(({ slot }) => slot)).toEqual([2]);
  expect(harness.lastRefusal).toBe('limited');
  expect(harness.refusals[0]!.retryAfterMs).toBeGreaterThan(1000);
  // It is known for a while: nobody waits for the same answer.
  arrive(3);
  expect(harness.refusals.map(({ slot }) => slot)).toEqual([2, 3]);
  expect(want()).toBe(0);
});

test('who gets a part of what all wanted is not forgotten: the rest asks again', () => {
  const { harness, arrive, answer, asks } = scene(perMinute(10));
  for (const slot of [0, 1]) arrive(slot);
  answer(1);
  expect([...harness.running.keys()]).toEqual([0]);
  expect(asks).toHaveLength(2);
  answer(1);
  expect([...harness.running.keys()]).toEqual([0, 1]);
});

test('what is leased is taken without a question', () => {
  const { harness, arrive, answer, asks } = scene(perMinute(1000));
  arrive(0);
  answer(5);
  for (const slot of [1, 2, 3]) arrive(slot);
  expect(harness.running.size).toBe(4);
  expect(asks).toHaveLength(1);
});

test('without an answer within the time limit each goes by the failure mode of its tenant', () => {
  const open = scene(perMinute(10));
  open.arrive(0);
  expect(open.harness.brain.nextTimerUs).toBe(open.harness.nowUs + budgetMs * 1000);
  open.harness.advance(budgetMs - 1);
  expect(open.harness.running.size).toBe(0);
  open.harness.advance(1);
  expect(open.harness.running.size).toBe(1);
  // The store is late and not down: it is charged with the next answer.
  expect(open.used()).toBe(1);
  expect(open.asks).toHaveLength(1);
  open.answer(0);
  expect(open.asks, 'for what was taken without being there').toHaveLength(2);
  // What never reached a replica comes back to both.
  const gone = scene(perMinute(10));
  gone.harness.replica(0, { maxInFlight: 1 });
  for (const slot of [0, 1]) gone.arrive(slot);
  gone.harness.advance(budgetMs);
  expect(gone.used()).toBe(2);
  expect(gone.harness.cancel(1)).toBe(true);
  expect(gone.used()).toBe(1);
  gone.setDown(true);
  for (let slot = 2; slot < 10; slot++) gone.arrive(slot);
  const letIn = 8 - gone.harness.refusals.filter(({ refusal }) => refusal === 10).length + 1;
  expect(letIn, 'of five here one is taken').toBe(4 + 1);
  const closed = scene(perMinute(10), true);
  closed.arrive(0);
  closed.harness.advance(budgetMs);
  expect(closed.harness.refusals).toMatchObject([{ slot: 0, error: 4, retryAfterMs: 1000 }]);
});

test('while the store is down nobody waits, and this gateway allows its share', () => {
  const { harness, arrive, setDown, asks } = scene(perMinute(10));
  setDown(true);
  for (let slot = 0; slot < 10; slot++) arrive(slot);
  expect(harness.running.size).toBe(5);
  expect(harness.refusals).toHaveLength(5);
  expect(asks).toEqual([]);
});

test('what was taken here while the store was down does not come back to what is leased', () => {
  const { harness, arrive, setDown, used } = scene(perMinute(10));
  harness.replica(0, { weight: 0 });
  setDown(true);
  // Nobody serves it: it is refused, and the request it took comes back.
  arrive(0);
  expect(harness.lastRefusal).toBe('noReplica');
  expect(used()).toBe(0);
  harness.replica(0, { weight: 1 });
  setDown(false);
  arrive(1);
  expect(harness.running.size, 'nothing is leased').toBe(0);
});

test('a client that leaves while it waits has taken nothing, and a late answer starts nobody', () => {
  const { harness, arrive, answer, want, returned } = scene(perMinute(10));
  arrive(0);
  expect(harness.cancel(0)).toBe(true);
  expect(harness.lastRefusal).toBe('clientGone');
  expect(want()).toBe(0);
  answer(1);
  expect(harness.running.size).toBe(0);
  expect(returned(), 'what was given for it goes back').toBe(1);
});

test('a stop refuses who waits', () => {
  const { harness, arrive } = scene(perMinute(10));
  arrive(0);
  harness.brain.stop(harness.nowUs);
  expect(harness.lastRefusal).toBe('stopping');
});

test('a deadline that passes meanwhile refuses as any other', () => {
  const { harness, answer } = scene(perMinute(10));
  harness.arrive(0, 0, 20, { limitRow: 0 });
  harness.nowUs += 30_000;
  answer(1);
  expect(harness.lastRefusal).toBe('deadline');
});

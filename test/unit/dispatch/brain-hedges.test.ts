/** The hedges of the brain, on a clock in hand. */
import { describe, expect, test } from 'vitest';
import { BreakerState } from '../../../src/dispatch/breaker.ts';
import { RetryRule } from '../../../src/dispatch/decisions.ts';
import { BrainHarness, breakerRules, modelsWith } from '../../support/brain-harness.ts';

const minuteMs = 60_000;

/** Replicas 0, 1, … and one request in slot 0 that asks for a hedge after so many milliseconds. */
function asking(
  hedgeMs: number,
  replicas = 2,
  more: ConstructorParameters<typeof BrainHarness>[0] = {},
) {
  const harness = new BrainHarness(more);
  harness.replicas(replicas);
  harness.arrive(0, 0, minuteMs, { hedgeUs: hedgeMs * 1000 });
  harness.advance(0);
  return harness;
}

const loads = (harness: BrainHarness): number[] =>
  harness.rows.map((row) => harness.brain.fleet.inFlight(row));

describe('asked for', () => {
  test('at once: both replicas have it, each counts it', () => {
    const harness = asking(0);
    expect(harness.running.get(0)?.replica).toBe(0);
    expect(harness.hedges.get(0)?.replica).toBe(1);
    expect(loads(harness)).toEqual([1, 1]);
    expect(harness.brain.fleet.contextTokens(1)).toBe(harness.brain.fleet.contextTokens(0));
    expect([harness.brain.attempts.running, harness.brain.attempts.dispatched]).toEqual([1, 1]);
    expect(harness.brain.nextTimerUs).toBe(Number.POSITIVE_INFINITY);
  });

  test('after a delay: not before, and not when the first token came in between', () => {
    const harness = asking(50);
    harness.advance(49);
    expect(harness.hedges.size).toBe(0);
    harness.advance(1);
    expect(harness.hedges.size).toBe(1);

    const answered = asking(50);
    answered.advance(20);
    answered.firstToken(0);
    expect(answered.brain.nextTimerUs).toBe(Number.POSITIVE_INFINITY);
    answered.advance(minuteMs);
    expect(answered.hedgesBegun).toEqual([]);
  });

  test('the first exchange answers: the hedge ends at once', () => {
    const harness = asking(0);
    harness.firstToken(0);
    expect(loads(harness)).toEqual([1, 0]);
    expect(harness.hedgeEnds).toEqual(['lost']);
    harness.finish(0);
    expect(loads(harness)).toEqual([0, 0]);
    expect(harness.brain.attempts.released).toBe(1);
  });

  test('the hedge answers: it is the attempt from then on', () => {
    const harness = asking(0);
    harness.firstToken(0, true);
    expect(loads(harness)).toEqual([0, 1]);
    expect(harness.hedgeEnds).toEqual(['won']);
    harness.finish(0, { hedge: true });
    expect(loads(harness)).toEqual([0, 0]);
  });

  test.each([false, true])('a whole answer decides with its end; by the hedge: %s', (hedge) => {
    const harness = new BrainHarness();
    harness.replicas(2);
    harness.arrive(0, 0, minuteMs, { hedgeUs: 0, streams: false });
    harness.advance(0);
    expect(loads(harness)).toEqual([1, 1]);
    harness.finish(0, { hedge });
    expect(loads(harness)).toEqual([0, 0]);
    expect(harness.hedgeEnds).toEqual([hedge ? 'won' : 'lost']);
    expect(harness.brain.nextTimerUs).toBe(Number.POSITIVE_INFINITY);
  });

  test.each([false, true])('one fails, the other goes on; the hedge failed: %s', (hedge) => {
    const harness = asking(0, 3);
    const left = (hedge ? harness.running : harness.hedges).get(0)?.replica as number;
    expect(harness.drop(0, hedge)).toBe(true);
    expect(harness.drop(0, hedge)).toBe(false);
    expect(loads(harness)).toEqual([0, 1, 2].map((row) => (row === left ? 1 : 0)));
    harness.firstToken(0);
    harness.finish(0, { hedge: !hedge });
    expect(loads(harness)).toEqual([0, 0, 0]);
    expect(harness.refusals).toEqual([]);
  });

  test('both fail: the request is tried on a third replica, without another hedge', () => {
    const harness = asking(0, 3);
    const third = 3 - (harness.hedges.get(0)?.replica as number);
    harness.drop(0, false);
    harness.fail(0, RetryRule.elsewhere);
    expect(harness.running.get(0)).toEqual({ attempt: 2, replica: third });
    harness.advance(minuteMs / 2);
    expect(harness.hedgesBegun).toHaveLength(1);
  });

  test('a stream that broke is continued by one replica, whatever the client asks for', () => {
    for (const continues of [true, false]) {
      const harness = asking(50, 3);
      harness.advance(20);
      harness.firstToken(0);
      harness.fail(0, RetryRule.elsewhere, 65, { continues });
      expect(harness.running.get(0)?.attempt).toBe(2);
      harness.advance(minuteMs / 2);
      expect(harness.hedgesBegun).toHaveLength(continues ? 0 : 1);
    }
  });

  test('both fail and there is no third: the request has failed', () => {
    const harness = asking(0);
    harness.drop(0, true);
    harness.fail(0, RetryRule.elsewhere);
    expect(harness.lastRefusal).toBe('failed');
    expect(loads(harness)).toEqual([0, 0]);
  });

  test('the client leaves: neither counts after the end', () => {
    const harness = asking(0);
    harness.cancel(0);
    expect(harness.aborts).toEqual([0]);
    harness.finish(0);
    expect(loads(harness)).toEqual([0, 0]);
    expect(harness.hedgeEnds).toEqual(['cancelled']);
  });

  test('the client has left before: no hedge', () => {
    const harness = asking(50);
    harness.cancel(0);
    harness.advance(100);
    expect(harness.hedgesBegun).toEqual([]);
    harness.finish(0);
  });

  test('the replica of either goes: what comes later changes nothing of its successor', () => {
    for (const row of [0, 1]) {
      const harness = asking(0);
      harness.replica(row, { active: false });
      harness.replica(row, { active: true, epoch: 2 });
      expect(harness.brain.fleet.inFlight(row)).toBe(0);
      harness.drop(0, row === 1);
      harness.finish(0, { hedge: row === 0 });
      expect(loads(harness)).toEqual([0, 0]);
    }
  });

  test('the slot is used again before its end is told', () => {
    const harness = asking(0);
    harness.arrive(0, 0, minuteMs);
    expect(harness.hedgeEnds).toEqual(['cancelled']);
    expect(loads(harness).reduce((sum, load) => sum + load)).toBe(1);
  });
});

describe('not', () => {
  test('with one replica, or without room on another', () => {
    expect(asking(0, 1).hedgesBegun).toEqual([]);
    const harness = new BrainHarness();
    harness.replicas(2, { maxInFlight: 1 });
    harness.arrive(1);
    harness.arrive(0, 0, minuteMs, { hedgeUs: 0 });
    harness.advance(0);
    expect(harness.hedgesBegun).toEqual([]);
  });

  test('while a request of the model waits', () => {
    const harness = new BrainHarness();
    harness.replicas(1, { maxInFlight: 1 });
    harness.replica(1, { maxInFlight: 2, adapters: Int32Array.of(1) });
    harness.arrive(0, 0, minuteMs, { hedgeUs: 1000, adapter: 1 });
    harness.arrive(1);
    harness.arrive(2, 0, minuteMs, { adapter: 1 });
    harness.arrive(3);
    expect(harness.brain.queued(0)).toBe(1);
    harness.advance(10);
    expect(harness.hedgesBegun).toEqual([]);
  });

  test('beyond half of the retry budget, and failures find the other half', () => {
    const harness = new BrainHarness({ retry: { maxAttempts: 3, budget: 0, budgetMin: 4 } });
    harness.replicas(4);
    for (let slot = 0; slot < 5; slot++) harness.arrive(slot, 0, minuteMs, { hedgeUs: 0 });
    harness.advance(0);
    const hedged = [...harness.hedges.keys()];
    const others = [0, 1, 2, 3, 4].filter((slot) => !hedged.includes(slot));
    expect(hedged).toHaveLength(2);
    for (const slot of others.slice(0, 2)) {
      harness.fail(slot);
      expect(harness.running.get(slot)?.attempt).toBe(2);
    }
    // Both together are what the budget says.
    harness.fail(others[2]!);
    expect(harness.lastRefusal).toBe('failed');
  });

  test('once the gateway stops', () => {
    const harness = asking(50);
    harness.brain.stop(harness.nowUs);
    expect(harness.brain.nextTimerUs).toBe(Number.POSITIVE_INFINITY);
    harness.advance(minuteMs);
    expect(harness.hedgesBegun).toEqual([]);
  });

  test('on a replica that has failed the request', () => {
    const harness = asking(50);
    harness.fail(0);
    harness.advance(100);
    expect(harness.running.get(0)?.replica).toBe(1);
    expect(harness.hedgesBegun).toEqual([]);
  });
});

test('the failure of one is told of its replica, the cut of a loser of none', () => {
  const breaker = { ...breakerRules, mode: 'consecutive', consecutive: 1 } as const;
  const failed = asking(0, 2, { breaker });
  failed.drop(0, true);
  expect(failed.brain.fleet.breakerState(1)).toBe(BreakerState.open);
  expect(failed.brain.fleet.breakerState(0)).toBe(BreakerState.closed);
  const cut = asking(0, 2, { breaker });
  cut.firstToken(0, true);
  cut.finish(0, { hedge: true });
  expect([0, 1].map((row) => cut.brain.fleet.breakerState(row))).toEqual([
    BreakerState.closed,
    BreakerState.closed,
  ]);
});

test('blocks that requests share are counted on both replicas and given back', () => {
  const words = Int32Array.from({ length: 64 * 12 }, (_, i) => (i % 12) + 1);
  const prefixes = { words, startOf: (slot: number) => slot * 12, countOf: () => 6 };
  const harness = new BrainHarness({
    prefixes: { ...prefixes, depths: [1, 2, 3, 4, 6, 8], blockBytes: 2048 },
  });
  harness.replicas(2, { kvTokens: 10_000 });
  for (let round = 0; round < 20; round++) {
    const textBytes = 12_288;
    harness.arrive(0, 0, minuteMs, { hedgeUs: 0, textBytes });
    harness.advance(0);
    expect(harness.hedges.size).toBe(1);
    harness.arrive(1, 0, minuteMs, { textBytes });
    harness.firstToken(0, round % 2 === 0);
    harness.finish(0, { hedge: round % 2 === 0 });
    harness.finish(1);
  }
  expect(loads(harness)).toEqual([0, 0]);
});

describe('automatic', () => {
  const hedge = { automatic: true, budget: 0.02 };

  /** So many requests have been answered after 10 ms each. */
  function warm(requests: number, more: ConstructorParameters<typeof BrainHarness>[0] = {}) {
    const harness = new BrainHarness({ hedge, models: modelsWith('round_robin'), ...more });
    harness.replicas(3);
    for (let i = 0; i < requests; i++) {
      harness.arrive(0);
      harness.advance(10);
      harness.firstToken(0);
      harness.finish(0);
    }
    return harness;
  }

  test('when the first token is later than those of its length', () => {
    const harness = warm(350);
    harness.arrive(0, 0, minuteMs);
    harness.advance(9);
    expect(harness.hedgesBegun).toEqual([]);
    harness.advance(3);
    expect(harness.hedgesBegun).toHaveLength(1);
    harness.firstToken(0, true);
    harness.finish(0, { hedge: true });
  });

  test('what is left of the budget is for those that are many times as late', () => {
    const harness = warm(60);
    harness.arrive(0, 0, minuteMs);
    harness.advance(90);
    expect(harness.hedgesBegun).toEqual([]);
    for (let ms = 0; ms < 1000; ms++) harness.advance(1);
    expect(harness.hedgesBegun).toHaveLength(1);
    harness.firstToken(0, true);
    harness.finish(0, { hedge: true });
  });

  test('not before there are enough samples, not for another length, not for whole answers', () => {
    const few = warm(49);
    few.arrive(0, 0, minuteMs);
    few.advance(500);
    expect(few.hedgesBegun).toEqual([]);
    const other = warm(60);
    other.arrive(0, 0, minuteMs, { textBytes: 40_000 });
    other.arrive(1, 0, minuteMs, { streams: false });
    other.advance(500);
    expect(other.hedgesBegun).toEqual([]);
  });

  test('never more than the budget, and p99 of the time to first token falls', () => {
    const p99 = (automatic: boolean): { p99: number; extra: number } => {
      const harness = warm(60, { hedge: { ...hedge, automatic } });
      const times: number[] = [];
      for (let i = 0; i < 3000; i++) {
        harness.arrive(0, 0, minuteMs);
        const beganUs = harness.nowUs;
        // Every 70th stands for a second on the first replica it meets.
        const firstMs = i % 70 === 0 ? 1000 : 10;
        for (let ms = 0; ms < firstMs; ms++) {
          harness.advance(1);
          if (!harness.hedges.has(0)) continue;
          harness.advance(10);
          break;
        }
        const byHedge = harness.hedges.has(0);
        times.push(harness.nowUs - beganUs);
        harness.firstToken(0, byHedge);
        harness.finish(0, { hedge: byHedge });
      }
      times.sort((a, b) => a - b);
      const extra = harness.hedgesBegun.length / harness.dispatches.length;
      return { p99: times[Math.floor(0.99 * times.length)]!, extra };
    };
    const without = p99(false);
    const hedged = p99(true);
    expect(without).toEqual({ p99: 1_000_000, extra: 0 });
    expect(hedged.extra).toBeLessThanOrEqual(0.02);
    expect(hedged.p99).toBeLessThanOrEqual(25_000);
  });

  test('not while retries are beyond what is always allowed', () => {
    const harness = warm(60, { retry: { maxAttempts: 3, budget: 1, budgetMin: 0 } });
    harness.arrive(1, 0, minuteMs, { streams: false });
    harness.fail(1);
    harness.arrive(0, 0, minuteMs);
    harness.advance(100);
    expect(harness.hedgesBegun).toEqual([]);
  });

  test('not on replicas that have more to prefill than has been waited', () => {
    const harness = warm(60);
    for (let slot = 1; slot <= 2; slot++) {
      harness.arrive(slot, 0, minuteMs, { textBytes: 400_000 }); // two seconds each
    }
    harness.arrive(0, 0, minuteMs);
    harness.advance(100);
    expect(harness.hedgesBegun).toEqual([]);
  });
});

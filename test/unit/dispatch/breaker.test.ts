import { describe, expect, test } from 'vitest';
import { Breaker, type BreakerRules, BreakerState } from '../../../src/dispatch/breaker.ts';

const second = 1_000_000;
const { closed, open, halfOpen } = BreakerState;
const rules: BreakerRules = {
  ...{ mode: 'window', window: 10, failureRate: 0.5, consecutive: 5, openUs: 5 * second },
};

/** One request after another, each of the term in which it began. `x` fails, `.` succeeds. */
function ends(breaker: Breaker, outcomes: string, nowUs = 0, mayOpen = true): void {
  for (const outcome of outcomes) {
    const { term } = breaker;
    breaker.took(nowUs);
    breaker.ended(term, outcome === 'x', nowUs, mayOpen);
    breaker.released(term);
  }
}

describe('window', () => {
  test.each([
    ['xxxxx.....', closed], // 5 of 10 is no more than half
    ['xxxxx....x', open],
    ['xxxxxxxxx', closed], // a window that is not full says nothing
    ['..........xxxxx', closed], // the first have left it
    ['..........xxxxxx', open],
    ['xxxxx.....x....', closed],
  ])('%s', (outcomes, state) => {
    const breaker = new Breaker(rules);
    ends(breaker, outcomes);
    expect(breaker.state).toBe(state);
  });

  test('it stays open for its time and not a microsecond less', () => {
    const breaker = new Breaker(rules);
    ends(breaker, 'xxxxxxxxxx', 7);
    expect([breaker.allows, breaker.openUntilUs]).toEqual([false, 7 + 5 * second]);
    expect(breaker.tick(6 + 5 * second)).toBe(false);
    expect(breaker.tick(7 + 5 * second)).toBe(true);
    expect(breaker.state).toBe(halfOpen);
  });

  test('one that may not open goes on counting', () => {
    const breaker = new Breaker(rules);
    ends(breaker, 'xxxxxxxxxx', 0, false);
    expect(breaker.state).toBe(closed);
    ends(breaker, 'x');
    expect(breaker.state).toBe(open);
  });
});

describe('half open', () => {
  const opened = (): Breaker => {
    const breaker = new Breaker(rules);
    ends(breaker, 'xxxxxxxxxx');
    breaker.tick(5 * second);
    return breaker;
  };

  test('one request at a time tries it', () => {
    const breaker = opened();
    expect(breaker.allows).toBe(true);
    breaker.took(0);
    expect(breaker.allows).toBe(false);
    breaker.released(breaker.term); // its client left: the next may try
    expect(breaker.allows).toBe(true);
  });

  test('a request that takes long does not keep all others from trying it', () => {
    const breaker = opened();
    breaker.took(5 * second);
    expect([breaker.allows, breaker.tick(9 * second), breaker.allows]).toEqual([
      false,
      false,
      false,
    ]);
    expect([breaker.tick(10 * second), breaker.allows]).toEqual([true, true]);
    breaker.took(11 * second);
    expect([breaker.allows, breaker.tick(15 * second)]).toEqual([false, false]);
    expect([breaker.tick(16 * second), breaker.allows]).toEqual([true, true]);
    breaker.released(breaker.term);
    breaker.released(breaker.term);
    expect(breaker.moreAtUs).toBe(0); // nobody tries it: nothing to wait for
  });

  test('the first token closes it, and the window begins anew', () => {
    const breaker = opened();
    breaker.took(0);
    expect(breaker.succeeded(breaker.term)).toBe(true);
    ends(breaker, 'xxxxxxxxx');
    expect(breaker.state).toBe(closed);
  });

  test('a good end closes it, a failure opens it for its time again', () => {
    const well = opened();
    ends(well, '.');
    expect(well.state).toBe(closed);
    const badly = opened();
    ends(badly, 'x', 6 * second);
    expect([badly.state, badly.openUntilUs]).toEqual([open, 11 * second]);
  });

  test('what began before says nothing', () => {
    const breaker = new Breaker(rules);
    const { term } = breaker;
    ends(breaker, 'xxxxxxxxxx');
    expect(breaker.ended(term, false, 0, true)).toBe(false);
    breaker.tick(5 * second);
    breaker.took(0);
    breaker.released(term);
    expect([breaker.succeeded(term), breaker.ended(term, true, 0, true)]).toEqual([false, false]);
    expect([breaker.state, breaker.allows]).toEqual([halfOpen, false]);
  });
});

test('consecutive: so many in a row, and one that succeeds starts again', () => {
  const breaker = new Breaker({ ...rules, mode: 'consecutive', consecutive: 3 });
  ends(breaker, 'xx.xx');
  expect(breaker.state).toBe(closed);
  ends(breaker, 'x');
  expect(breaker.state).toBe(open);
});

test('quarantine: one failure, and it comes back by itself', () => {
  const breaker = new Breaker({ ...rules, mode: 'quarantine', openUs: 15 * second });
  ends(breaker, 'x');
  expect(breaker.state).toBe(open);
  breaker.tick(15 * second);
  expect([breaker.state, breaker.allows]).toEqual([closed, true]);
});

test('off: nothing opens it', () => {
  const breaker = new Breaker({ ...rules, mode: 'off' });
  ends(breaker, 'xxxxxxxxxxxxxxxxxxxx');
  expect(breaker.state).toBe(closed);
});

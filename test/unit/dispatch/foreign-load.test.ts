/** What other clients have on an engine, from its reports and our own counts. */
import { beforeEach, describe, expect, test } from 'vitest';
import { type EngineReport, ForeignLoad } from '../../../src/dispatch/foreign-load.ts';

const second = 1_000_000;
let load: ForeignLoad;
let nowUs: number;

beforeEach(() => {
  load = new ForeignLoad();
  nowUs = 100 * second;
});

/** A report of this moment; the next one comes a second later. */
function report(more: Partial<EngineReport>): boolean {
  const plain = {
    running: 0,
    waiting: 0,
    kvTokens: 0,
    kvCapacity: 0,
    ownRequests: 0,
    ownTokens: 0,
  };
  const changed = load.update({ ...plain, scrapedUs: nowUs, intervalUs: second, ...more }, nowUs);
  nowUs += second;
  return changed;
}

test('foreign is what the engine has beyond what is ours', () => {
  expect(report({ running: 7, waiting: 5, ownRequests: 4 })).toBe(true);
  expect(load.requests).toBe(8);
  expect(report({ running: 7, waiting: 5, ownRequests: 4 })).toBe(false);
  expect(report({ running: 3, ownRequests: 4 })).toBe(true);
  expect(load.requests).toBe(0);
});

test('the tail of our own burst, which the engine reports late, is not taken for foreign', () => {
  report({ running: 0, ownRequests: 20 });
  report({ running: 20, ownRequests: 20 });
  for (const running of [20, 20, 15]) {
    report({ running, ownRequests: 0 });
    expect(load.requests).toBe(0);
  }
  // Five reports after the burst, whoever is still there is another's.
  report({ running: 6, ownRequests: 0 });
  expect(load.requests).toBe(0);
  report({ running: 6, ownRequests: 0 });
  expect(load.requests).toBe(6);
});

describe('with age a report', () => {
  const once = { running: 30, waiting: 0, kvTokens: 3000, kvCapacity: 9000 };
  const old: EngineReport = {
    ...{ ...once, scrapedUs: 50 * second, intervalUs: second, ownRequests: 0, ownTokens: 0 },
  };
  const at = (seconds: number): [number, number] => {
    load.update(old, old.scrapedUs + seconds * second);
    return [load.requests, load.tokens];
  };

  test('counts in full for two intervals, less after them and not at all after five', () => {
    expect(at(0)).toEqual([30, 3000]);
    expect(at(2)).toEqual([30, 3000]);
    expect(at(3.5)).toEqual([15, 1500]);
    expect(at(5)).toEqual([0, 0]);
    expect(at(500)).toEqual([0, 0]);
  });

  test('leaves behind the size of the cache, which does not age', () => {
    at(500);
    expect(load.kvCapacity).toBe(9000);
  });

  test('told again at the same age changes nothing', () => {
    at(1);
    expect(load.update(old, old.scrapedUs + second)).toBe(false);
  });
});

test('tokens of others are those beyond our prompts, and none while all requests are ours', () => {
  report({ running: 4, ownRequests: 4, kvTokens: 9000, ownTokens: 2000 });
  expect(load.tokens).toBe(0); // what our own answers have added
  report({ running: 5, ownRequests: 4, kvTokens: 9000, ownTokens: 2000 });
  expect(load.tokens).toBe(7000);
  report({ running: 5, ownRequests: 4, kvTokens: 1000, ownTokens: 2000 });
  expect(load.tokens).toBe(0);
});

test('an engine that stops saying how much its cache holds is taken at its last word', () => {
  report({ kvCapacity: 448_000 });
  report({ kvCapacity: 0 });
  expect(load.kvCapacity).toBe(448_000);
});

test('another replica in the row starts with nothing of the old one', () => {
  report({ running: 9, kvTokens: 500, kvCapacity: 1000, ownRequests: 2 });
  load.forget();
  expect([load.requests, load.tokens, load.kvCapacity]).toEqual([0, 0, 0]);
  report({ running: 3 });
  expect(load.requests).toBe(3);
});

test('what a broken engine says stays a number that can be counted with', () => {
  report({ running: 2 ** 31 - 1, waiting: 2 ** 31 - 1 });
  expect(load.requests).toBe(1_000_000);
});

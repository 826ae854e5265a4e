/** What the live evaluation makes of its records. */
import { expect, test } from 'vitest';
import {
  goodput,
  liveFairness,
  secondsOf,
  tailsOf,
  throughput,
} from '../../../scripts/live/measures.ts';
import type { LiveRecord } from '../../../scripts/live/requests.ts';

const startUs = 5_000_000;

/** A request due at `dueS` that is served in 100 ms, its first token after 20. */
function served(tenant: number, dueS: number, more: Partial<LiveRecord> = {}): LiveRecord {
  const intendedUs = startUs + dueS * 1e6;
  return {
    ...{ tenant, phase: 0, intendedUs, sentUs: intendedUs, firstUs: intendedUs + 20_000 },
    ...{ endUs: intendedUs + 100_000, queueMs: 5, status: 200, isServed: true, isRefused: false },
    size: { promptTokens: 100, outputTokens: 10 },
    ...more,
  };
}

function refused(tenant: number, dueS: number): LiveRecord {
  const endUs = startUs + dueS * 1e6 + 4000;
  const verdict = { status: 429, isServed: false, isRefused: true };
  return served(tenant, dueS, { firstUs: 0, endUs, queueMs: -1, ...verdict });
}

test('whoever is neither served nor refused is lost', () => {
  const lost = served(1, 0, { status: 502, isServed: false });
  const tails = tailsOf([served(1, 0), refused(1, 0), lost]);
  expect(tails).toMatchObject({ sent: 3, served: 1, refused: 1, lost: 1, queueP99: 5 });
  expect(tails.ttftP99).toBeCloseTo(20, 6);
  expect(tails.wholeP99).toBeCloseTo(100, 6);
  expect(tails.refusalP99).toBeCloseTo(4, 6);
});

test('goodput counts answers within the limits, when they end', () => {
  const late = served(1, 0, { firstUs: startUs + 1_100_000, endUs: startUs + 1_200_000 });
  const slow = served(1, 0, { endUs: startUs + 900_000 }); // 98 ms between two tokens
  const run = { startUs, records: [served(1, 0), served(2, 1.95), late, slow], lagP99Ms: 0 };
  expect(goodput(run, 0, 2)).toBe(0.5);
  expect(goodput(run, 2, 3)).toBe(1);
  expect(throughput(run, 0, 2)).toBe(1.5); // late and slow ones are answers as well
  const seconds = secondsOf({ ...run, records: [...run.records, refused(3, 1.5)] }, 3);
  expect(seconds.map(({ offered }) => offered)).toEqual([3, 2, 0]);
  expect(seconds.map(({ good }) => good)).toEqual([1, 0, 1]);
  expect(seconds.map(({ refused: count }) => count)).toEqual([0, 1, 0]);
});

test('fair shares: a tenant that wants little and gets it is no victim; one that gets less is', () => {
  const every = (tenant: number, count: number): LiveRecord[] =>
    Array.from({ length: count }, (_, i) => served(tenant, (i * 10) / count));
  const shares = (records: LiveRecord[]) => liveFairness({ startUs, records, lagP99Ms: 0 }).shares;
  const turnedAway = Array.from({ length: 90 }, (_, i) => refused(0, i / 9));
  expect(shares([...every(0, 60), ...every(1, 20), ...turnedAway])).toBeGreaterThan(0.99);
  const starved = Array.from({ length: 60 }, (_, i) => refused(1, i / 6));
  expect(shares([...every(0, 60), ...every(1, 5), ...starved])).toBeLessThan(0.7);
});

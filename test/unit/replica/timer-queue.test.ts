import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { nowMs } from '../../../src/lib/clock.ts';
import { createPrng } from '../../../src/lib/prng.ts';
import { parseProfile } from '../../../src/replica/profile.ts';
import { TimerQueue } from '../../../src/replica/timer-queue.ts';

const SEED = Number(process.env.SEED ?? 31);

beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] }));
afterEach(() => void vi.useRealTimers());

test('entries run once, in the order of their times, never early, and not when cancelled', () => {
  const queue = new TimerQueue();
  const random = createPrng(SEED);
  const ran: number[] = [];
  const wanted: number[] = [];
  const start = nowMs();
  for (let i = 0; i < 500; i++) {
    const at = start + random.below(3000) / 7;
    const entry = {
      onTimer: (now: number) => {
        expect(now, `SEED=${SEED}`).toBeGreaterThanOrEqual(at);
        ran.push(Math.ceil(at));
      },
    };
    const tick = queue.add(entry, at);
    if (random.below(4) === 0) queue.cancel(entry, tick);
    else wanted.push(Math.ceil(at));
  }
  vi.advanceTimersByTime(1000);
  expect(ran, `SEED=${SEED}`).toEqual(wanted.sort((a, b) => a - b));
});

test('an entry may add another, earlier than all that wait', () => {
  const queue = new TimerQueue();
  const ran: string[] = [];
  const start = nowMs();
  queue.add({ onTimer: () => void ran.push('late') }, start + 100);
  const chained = { onTimer: () => void ran.push('chained') };
  queue.add({ onTimer: (now) => void queue.add(chained, now + 10) }, start + 20);
  vi.advanceTimersByTime(60);
  expect(ran).toEqual(['chained']);
  vi.advanceTimersByTime(60);
  expect(ran).toEqual(['chained', 'late']);
});

test('profiles are read, and what is none says why', () => {
  expect(parseProfile('uniform:8ms-24ms')).toMatchObject({
    firstTokenMsMin: 8,
    firstTokenMsMax: 24,
  });
  expect(parseProfile('tokens:ttft=200ms,itl=20ms')).toMatchObject({ interTokenMs: 20 });
  for (const name of ['', 'uniform:8-24', 'uniform:24ms-8ms', 'tokens:ttft=1s']) {
    expect(parseProfile(name)).toEqual(expect.stringContaining('profile'));
  }
});

import { expect, test } from 'vitest';
import { createPrng } from '../../../src/lib/prng.ts';
import { Arrivals } from '../../../src/simulation/arrivals.ts';
import { capacityOf } from '../../../src/simulation/capacity.ts';
import { EventHeap } from '../../../src/simulation/event-heap.ts';
import { fairShares } from '../../../src/simulation/fair-shares.ts';
import { jainOf } from '../../../src/simulation/fairness.ts';
import { generateToolAgent } from '../../../src/simulation/generators/tool-agent.ts';
import { Histogram } from '../../../src/simulation/histogram.ts';
import { News } from '../../../src/simulation/news.ts';
import { Observer } from '../../../src/simulation/observer.ts';
import { PrefixMirror } from '../../../src/simulation/prefix-mirror.ts';
import { statOf, statText } from '../../../src/simulation/summary.ts';

const seed = Number(process.env.SEED ?? Date.now() >>> 0);
console.info(`SEED=${seed}`);

test('the heap gives the earliest source, and of equals the lowest, under random changes', () => {
  const random = createPrng(seed);
  const heap = new EventHeap(20);
  const times = new Array<number>(20).fill(Number.POSITIVE_INFINITY);
  for (let step = 0; step < 3000; step++) {
    const source = random.below(20);
    const time = random.below(4) === 0 ? Number.POSITIVE_INFINITY : random.below(30);
    times[source] = time;
    heap.set(source, time);
    const earliest = Math.min(...times);
    expect(heap.nextUs).toBe(earliest);
    if (earliest !== Number.POSITIVE_INFINITY) expect(heap.next).toBe(times.indexOf(earliest));
  }
});

test('quantiles of the histogram are within a step of the exact ones', () => {
  const random = createPrng(seed);
  const histogram = new Histogram();
  const values = Array.from({ length: 5000 }, () => 2 ** random.below(20) + random.below(1000));
  for (const value of values) histogram.add(value);
  values.sort((a, b) => a - b);
  for (const share of [0.01, 0.25, 0.5, 0.9, 0.99, 1]) {
    const exact = values[Math.ceil(share * values.length) - 1]!;
    expect(Math.abs(histogram.quantile(share) - exact)).toBeLessThanOrEqual(exact / 64);
  }
});

test('the tail of the histogram is a mean by weight', () => {
  const histogram = new Histogram();
  histogram.add(10, 90);
  histogram.add(50, 6);
  histogram.add(100, 4);
  expect(histogram.tailMean(0.1)).toBeCloseTo(70, 6);
  expect(histogram.tailMean(0.04)).toBeCloseTo(100, 6);
  expect(new Histogram().tailMean(0.1)).toBe(0);
  expect(new Histogram().quantile(0.5)).toBe(0);
});

test('values up to 2^31 fit the histogram', () => {
  const histogram = new Histogram();
  histogram.add(2 ** 31 - 1);
  expect(histogram.quantile(1) / 2 ** 31).toBeCloseTo(1, 1);
  expect(() => histogram.add(2 ** 31)).toThrow('fits');
});

test('the mirror matches as far as each replica was sent, for more than 32 of them', () => {
  const mirror = new PrefixMirror(100, 40, Number.POSITIVE_INFINITY);
  const prompt = Int32Array.from([5, 6, 7, 8]);
  const matched = new Int32Array(40);
  mirror.insert(prompt, 0, 2, 3);
  mirror.insert(prompt, 0, 4, 39);
  mirror.match(prompt, 0, 4, matched);
  expect([matched[3], matched[39], matched[0]]).toEqual([2, 4, 0]);
  mirror.forget(39);
  mirror.match(prompt, 0, 4, matched);
  expect([matched[3], matched[39], mirror.held[39]]).toEqual([2, 0, 0]);
});

test('a block behind a missing one is no match', () => {
  const mirror = new PrefixMirror(100, 2, Number.POSITIVE_INFINITY);
  const matched = new Int32Array(2);
  mirror.insert(Int32Array.from([6, 7]), 0, 2, 0);
  mirror.match(Int32Array.from([5, 6, 7]), 0, 3, matched);
  expect([...matched]).toEqual([0, 0]);
});

test('a full mirror gives up what was not used since the hand last passed', () => {
  const mirror = new PrefixMirror(5000, 1, 3);
  const matched = new Int32Array(1);
  const held = (block: number): number => {
    mirror.match(Int32Array.from([block]), 0, 1, matched);
    return matched[0]!;
  };
  mirror.insert(Int32Array.from([1, 2, 3]), 0, 3, 0);
  mirror.insert(Int32Array.from([4]), 0, 1, 0);
  expect(mirror.held[0]).toBe(3);
  mirror.insert(Int32Array.from([3]), 0, 1, 0);
  mirror.insert(Int32Array.from([10]), 0, 1, 0);
  expect([held(3), held(10), mirror.held[0]]).toEqual([1, 1, 3]);
  for (let block = 20; block < 4000; block++) mirror.insert(Int32Array.from([block]), 0, 1, 0);
  expect(mirror.held[0]).toBe(3);
});

test('news comes out in the order it went in, across growth and reuse of its room', () => {
  const news = new News();
  let next = 0;
  let seen = 0;
  for (let round = 0; round < 5; round++) {
    for (let i = 0; i < 1500; i++) news.add(next, next++, next % 2 === 0);
    for (let i = 0; i < 1400; i++) {
      expect(news.nextUs).toBe(seen);
      const { request, isEnd } = news.take();
      expect([request, isEnd]).toEqual([seen, (seen + 1) % 2 === 0]);
      seen++;
    }
  }
});

test('in a closed loop a turn waits for the one before it, and then to think', () => {
  const plain = generateToolAgent(3, 1);
  const workload = {
    ...plain,
    arrivalUs: Float64Array.from([0, 100, 200]),
    previous: Int32Array.from([-1, 0, -1]),
  };
  const arrivals = new Arrivals(workload, 1000);
  expect(arrivals.take()).toBe(0);
  expect([arrivals.nextUs, arrivals.take()]).toEqual([100, -1]);
  expect([arrivals.nextUs, arrivals.take()]).toEqual([200, 2]);
  expect(arrivals.nextUs).toBe(Number.POSITIVE_INFINITY);
  arrivals.ended(0, 5000);
  expect([arrivals.nextUs, arrivals.take()]).toEqual([6000, 1]);
  const open = new Arrivals(workload, undefined);
  expect([open.take(), open.take(), open.take()]).toEqual([0, 1, 2]);
});

test('imbalance is the largest over the mean of those that are up', () => {
  const observer = new Observer(3);
  observer.start();
  const up = Uint8Array.from([1, 1, 0]);
  observer.sample(Float64Array.from([100, 50, 0]), Float64Array.from([30, 10, 99]), up);
  observer.sample(Float64Array.from([100, 50, 0]), Float64Array.from([0, 0, 0]), up);
  expect(observer.busyRatio.mean).toBeCloseTo(4 / 3, 6);
  expect(observer.pendingRatio.mean).toBeCloseTo(1.5, 6);
});

test('Jain is 1 for equals and 1/n for one of n', () => {
  expect(jainOf([3, 3, 3])).toBeCloseTo(1, 9);
  expect(jainOf([3, 0, 0])).toBeCloseTo(1 / 3, 9);
  expect(jainOf([0, 0])).toBe(1);
});

test('a search for a rate ends at the last one that is good enough', () => {
  expect(capacityOf((rate) => (rate <= 7 ? 95 : 60), 90, 1, 12, 20)).toBeCloseTo(7, 3);
  expect(capacityOf((rate) => 100 - rate, 70, 1, 100, 20)).toBeCloseTo(30, 3);
});

test('a figure is the median with its range, when that shows', () => {
  expect(statText(statOf([3, 1, 2]), 1)).toBe('2.0 [1.0-3.0]');
  expect(statText(statOf([2, 2.01]), 1)).toBe('2.0');
  expect(statText(statOf([Number.POSITIVE_INFINITY]), 0)).toBe('never');
});

test('fair shares: nobody gets more than he wants, the others share what is left', () => {
  expect(fairShares([10, 1, 10, 3], 16)).toEqual([6, 1, 6, 3]);
  expect(fairShares([1, 2], 10)).toEqual([1, 2]);
  expect(fairShares([5, 5, 5], 6)).toEqual([2, 2, 2]);
  expect(fairShares([], 6)).toEqual([]);
});

import { build } from 'hdr-histogram-js';
import { expect, test } from 'vitest';
import { createPrng } from '../../../src/lib/prng.ts';
import { Latency } from '../../../src/load/latency.ts';

const seed = Number(process.env.SEED ?? 7);

test(`percentiles agree with an independent HdrHistogram (seed ${seed})`, () => {
  const latency = new Latency();
  const reference = build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: 3_600_000_000,
    numberOfSignificantValueDigits: 3,
  });
  const prng = createPrng(seed);
  for (let i = 0; i < 50_000; i++) {
    const us = 1 + prng.below(1000) * prng.below(3000);
    latency.record(us);
    reference.recordValue(us);
  }
  const summary = latency.summary();
  for (const [name, percent] of [
    ['p50', 50],
    ['p90', 90],
    ['p95', 95],
    ['p99', 99],
    ['p999', 99.9],
  ] as const) {
    const expected = reference.getValueAtPercentile(percent) / 1000;
    expect(Math.abs(summary[name] - expected) / expected, name).toBeLessThan(0.002);
  }
  expect(summary.count).toBe(50_000);
  expect(Math.abs(summary.mean - reference.mean / 1000) / summary.mean).toBeLessThan(0.002);
});

test('an empty histogram is all zeros and out-of-range values are clamped', () => {
  const latency = new Latency();
  expect(new Set(Object.values(latency.summary()))).toEqual(new Set([0]));
  latency.record(0);
  latency.record(-5);
  latency.record(1e12);
  expect(latency.count).toBe(3);
  expect(latency.summary().p50).toBe(0.001);
});

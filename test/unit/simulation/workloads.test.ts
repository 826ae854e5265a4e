import { expect, test } from 'vitest';
import { createPrng } from '../../../src/lib/prng.ts';
import { withBurst } from '../../../src/simulation/generators/burst.ts';
import { generateSharedPrefix } from '../../../src/simulation/generators/shared-prefix.ts';
import { floodShares, withTenants } from '../../../src/simulation/generators/tenants.ts';
import { generateToolAgent } from '../../../src/simulation/generators/tool-agent.ts';
import { drawGap, drawQuantile } from '../../../src/simulation/variates.ts';
import {
  atMeanRate,
  atRateFactor,
  firstRequests,
  meanRate,
  unlimitedHitRate,
} from '../../../src/simulation/workload.ts';

const mean = (values: ArrayLike<number>): number =>
  Array.from(values).reduce((sum, value) => sum + value, 0) / values.length;

test('the tool agents have the prefixes and the mean lengths of their trace', () => {
  const workload = generateToolAgent(8000, 1);
  expect(mean(workload.promptTokens)).toBeGreaterThan(8596 * 0.95);
  expect(mean(workload.promptTokens)).toBeLessThan(8596 * 1.05);
  expect(mean(workload.outputTokens)).toBeGreaterThan(182 * 0.95);
  expect(mean(workload.outputTokens)).toBeLessThan(182 * 1.05);
  const twelfth = new Map<number, number>();
  for (let i = 0; i < workload.count; i++) {
    const block = workload.blocks.subarray(workload.blockStart[i], workload.blockStart[i + 1])[11];
    if (block !== undefined) twelfth.set(block, (twelfth.get(block) ?? 0) + 1);
  }
  expect(Math.max(...twelfth.values()) / workload.count).toBeCloseTo(0.4, 1);
});

test('each of 150 tenants has a prefix of its own', () => {
  const workload = generateSharedPrefix(3000, 1);
  const heads = Array.from({ length: workload.count }, (_, i) => workload.headBlock[i]);
  expect(new Set(heads).size).toBe(150);
  expect(unlimitedHitRate(workload, 1500)).toBeCloseTo(6144 / 7344, 1);
});

test.each([
  ['tool agents', (seed: number) => generateToolAgent(200, seed)],
  ['shared prefixes', (seed: number) => generateSharedPrefix(200, seed)],
])('%s are a function of the seed', (_, generate) => {
  expect(generate(7)).toEqual(generate(7));
  expect(generate(7)).not.toEqual(generate(8));
});

test('one tenant floods, and a chat has one tenant', () => {
  const workload = withTenants(generateToolAgent(4000, 1), floodShares, 2);
  const heavy = workload.tenant.filter((tenant) => tenant === 0).length;
  expect(heavy / workload.count).toBeCloseTo(0.7, 1);
  expect(new Set(workload.tenant).size).toBe(10);
  const oneChat = { ...workload, session: new Int32Array(workload.count) };
  expect(new Set(withTenants(oneChat, floodShares, 2).tenant).size).toBe(1);
});

test('a burst squeezes its window and moves what follows', () => {
  const plain = generateToolAgent(10, 1);
  const workload = { ...plain, arrivalUs: Float64Array.from({ length: 10 }, (_, i) => i * 100) };
  const { arrivalUs } = withBurst(workload, 200, 100, 3);
  expect([...arrivalUs]).toEqual([0, 100, 200, 233, 267, 300, 400, 500, 600, 700]);
});

test('a rate factor divides every time and nothing else', () => {
  const workload = generateToolAgent(100, 1);
  const faster = atRateFactor(workload, 4);
  expect([...faster.arrivalUs]).toEqual([...workload.arrivalUs].map((us) => Math.round(us / 4)));
  expect({ ...faster, arrivalUs: workload.arrivalUs }).toEqual(workload);
  expect(meanRate(atMeanRate(workload, 33))).toBeCloseTo(33, 2);
});

test('the first requests are a workload of their own', () => {
  const workload = generateToolAgent(100, 1);
  const first = firstRequests(workload, 30);
  expect(first.count).toBe(30);
  expect(first.blocks).toHaveLength(first.blockStart[30]!);
  expect([...first.promptTokens]).toEqual([...workload.promptTokens.slice(0, 30)]);
  expect(firstRequests(workload, 1000)).toBe(workload);
});

test.each([
  ['Gamma', 1],
  ['Gamma', 0.36],
  ['Weibull', 0.6],
] as const)('gaps of %s %f have mean 1 and the spread of their shape', (family, shape) => {
  const random = createPrng(11);
  const gaps = Array.from({ length: 200_000 }, () => drawGap(random, { family, shape }));
  const deviation = Math.sqrt(mean(gaps.map((gap) => (gap - 1) ** 2)));
  // Of Weibull 0.6: sqrt(gamma(1 + 2/k) / gamma(1 + 1/k)^2 - 1).
  const expected = family === 'Gamma' ? 1 / Math.sqrt(shape) : 1.758;
  expect(mean(gaps)).toBeCloseTo(1, 1);
  expect(deviation).toBeGreaterThan(expected * 0.95);
  expect(deviation).toBeLessThan(expected * 1.05);
});

test('draws from quantiles lie between them', () => {
  const random = createPrng(3);
  const values = Array.from({ length: 4000 }, () =>
    drawQuantile(random, [0, 0.5, 1], [0, 10, 100]),
  );
  expect(values.filter((value) => value <= 10).length / 4000).toBeCloseTo(0.5, 1);
  expect(Math.max(...values)).toBeLessThanOrEqual(100);
});

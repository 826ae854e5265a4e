import { expect, test } from 'vitest';
import { readAzure } from '../../../src/simulation/traces/azure.ts';
import { readTrace } from '../../../src/simulation/traces/files.ts';
import { readMooncake } from '../../../src/simulation/traces/mooncake.ts';
import { traceNames } from '../../../src/simulation/traces/names.ts';
import { readServeGen } from '../../../src/simulation/traces/servegen.ts';
import { readShareGpt } from '../../../src/simulation/traces/sharegpt.ts';
import { meanRate, unlimitedHitRate, type Workload } from '../../../src/simulation/workload.ts';

const blocksOf = ({ blocks, blockStart }: Workload, request: number): number[] => [
  ...blocks.subarray(blockStart[request], blockStart[request + 1]),
];

const mooncakeLine = (timestamp: number, input: number, hash_ids: number[]): string =>
  JSON.stringify({ timestamp, input_length: input, output_length: 5, hash_ids });

test('equal Mooncake ids behind equal ids are one block, behind others two', () => {
  const text = [
    mooncakeLine(0, 1600, [0, 1, 2, 3]),
    mooncakeLine(3000, 1600, [0, 1, 2, 4]),
    mooncakeLine(6000, 1600, [0, 5, 2, 4]),
  ].join('\n');
  const workload = readMooncake(text, 1);
  const [first, second, third] = [0, 1, 2].map((request) => blocksOf(workload, request));
  expect(second).toEqual(first);
  expect(third?.[0]).toBe(first?.[0]);
  expect(third?.slice(1)).not.toContain(first?.[2]);
});

test('a partial last block is nobody’s to reuse', () => {
  const workload = readMooncake(mooncakeLine(0, 1025, [0, 1, 2]), 1);
  expect(blocksOf(workload, 0)).toHaveLength(2);
});

test('a prompt that extends another one is the next turn of its chat', () => {
  const text = [
    mooncakeLine(0, 1100, [0, 1, 2]),
    mooncakeLine(3000, 1100, [0, 7, 8]),
    mooncakeLine(6000, 1700, [0, 1, 9, 10]),
    mooncakeLine(9000, 2200, [0, 1, 9, 11, 12]),
  ].join('\n');
  const { previous, session } = readMooncake(text, 1);
  expect([...previous]).toEqual([-1, -1, 0, 2]);
  expect([...session]).toEqual([0, 1, 0, 0]);
});

test('Mooncake requests stay in their bin and in their order, and the seed places them', () => {
  const text = [0, 0, 0, 3000, 3000].map((ms) => mooncakeLine(ms, 600, [0])).join('\n');
  const at = (seed: number): number[] => [...readMooncake(text, seed).arrivalUs];
  expect(at(1)).toEqual(at(1));
  expect(at(1)).not.toEqual(at(2));
  expect(at(1)).toEqual(at(1).toSorted((a, b) => a - b));
  expect(at(1).filter((us) => us < 3_000_000)).toHaveLength(3);
  expect(at(1).filter((us) => us >= 3_000_000 && us < 6_000_000)).toHaveLength(2);
});

test('Azure times are microseconds from the first request, lengths are kept in pairs', () => {
  const rows = [
    'TIMESTAMP,ContextTokens,GeneratedTokens',
    '2023-11-16 18:17:03.9799600,4808,10',
    '2023-11-16 18:17:04.0319600,3180,8',
    '2023-11-17 00:00:00.0000000,34,1',
  ];
  const { arrivalUs, promptTokens, outputTokens } = readAzure(rows.join('\n'));
  expect([...arrivalUs]).toEqual([0, 52_000, 20_576_020_040]);
  expect([...promptTokens]).toEqual([4808, 3180, 34]);
  expect([...outputTokens]).toEqual([10, 8, 1]);
});

test.each([
  ['Azure', () => readAzure('head\nno request\n')],
  ['ShareGPT', () => readShareGpt('head\n12\n', 1)],
  ['Mooncake', () => readMooncake('{"timestamp":0}', 1)],
])('a line that is no %s request is refused', (_, read) => {
  expect(read).toThrow('is a');
});

test('ShareGPT lengths keep their order and their pairs', () => {
  const workload = readShareGpt('head\n74,918\n290,905\n', 3);
  expect([...workload.promptTokens]).toEqual([74, 290]);
  expect([...workload.outputTokens]).toEqual([918, 905]);
});

test('ServeGen clients send at their own rate, the busiest first, within the time', () => {
  const clients = [
    'client,t_s,rate_rps,iat_cv,family,arg1,arg2',
    'a,600,2,1,Gamma,1,1',
    'b,600,20,2,Weibull,0.6,1',
    'c,0,50,1,Gamma,1,1',
  ].join('\n');
  const quantiles = { mean: 10, q: [5, 10, 20] };
  const lengths = JSON.stringify({
    quantile_levels: [0, 0.5, 1],
    clients: { a: { 0: { input_tokens: quantiles, output_tokens: quantiles } } },
  });
  const plan = { windowS: 600, seconds: 400, rateFactor: 1, seed: 5 };
  const workload = readServeGen(clients, lengths, plan);
  const sent = [0, 1].map((tenant) => workload.tenant.filter((t) => t === tenant).length);
  expect(workload.tenantCount).toBe(2);
  expect(sent[0]).toBeGreaterThan(6000);
  expect(sent[0]).toBeLessThan(10_000);
  expect(sent[1]).toBeGreaterThan(650);
  expect(sent[1]).toBeLessThan(950);
  expect(Math.max(...workload.promptTokens)).toBeLessThanOrEqual(20);
  expect(workload.arrivalUs.at(-1)).toBeLessThan(400e6);
});

test.each(traceNames)('the slice %s is whole, in order, and full of full blocks', (name) => {
  const workload = readTrace(name, 1);
  const { arrivalUs, blockStart, promptTokens, blockTokens, count } = workload;
  expect(count).toBeGreaterThan(5000);
  for (let i = 1; i < count; i++) {
    expect(arrivalUs[i]).toBeGreaterThanOrEqual(arrivalUs[i - 1]!);
    const blocks = blockStart[i + 1]! - blockStart[i]!;
    expect(blocks).toBe(Math.floor(promptTokens[i]! / blockTokens));
  }
});

test('the conversation slice has the rate and the reuse its page says', () => {
  const workload = readTrace('conversation', 1);
  expect(workload.count).toBe(5719);
  expect(meanRate(workload)).toBeCloseTo(3.18, 1);
  // 34.1 % of blocks; of tokens a little more, as the partial last blocks are not counted.
  expect(unlimitedHitRate(workload, 0)).toBeCloseTo(0.345, 2);
});

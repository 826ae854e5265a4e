/** Each rule against its formula, on numbers made for the purpose. */
import { expect, test } from 'vitest';
import { Candidates } from '../../../src/dispatch/candidates.ts';
import { createPrng } from '../../../src/lib/prng.ts';
import { Aibrix } from '../../../src/simulation/peers/aibrix.ts';
import { Chwbl } from '../../../src/simulation/peers/chwbl.ts';
import { DualMap } from '../../../src/simulation/peers/dualmap.ts';
import { Dynamo } from '../../../src/simulation/peers/dynamo.ts';
import { LlmD } from '../../../src/simulation/peers/llm-d.ts';
import { PeakEwma } from '../../../src/simulation/peers/peak-ewma.ts';
import { PrefixAware } from '../../../src/simulation/peers/prefixaware.ts';
import { Prequal } from '../../../src/simulation/peers/prequal.ts';
import { SglangCacheAware } from '../../../src/simulation/peers/sglang-cache-aware.ts';
import type { RuleView } from '../../../src/simulation/rule.ts';

interface Load {
  readonly inFlight?: number;
  readonly pendingTokens?: number;
  readonly contextTokens?: number;
}

const fleet = (...loads: readonly Load[]): Candidates => {
  const candidates = new Candidates(loads.length);
  loads.forEach((load, row) => {
    const idle = {
      inFlight: 0,
      weight: 1,
      pendingTokens: 0,
      contextTokens: 0,
      roomTokens: Infinity,
    };
    candidates.set(row, { ...idle, prefillUs: 20, residentUs: 0.06, ...load });
  });
  return candidates;
};

const prompt = (promptTokens: number, matched: readonly number[], key0 = 1) => ({
  ...{ promptTokens, outputTokens: 100, key0, key1: 0 },
  matched: Int32Array.from(matched),
});

const view = (rows: number): RuleView => ({
  random: createPrng(1),
  heldTokens: new Float64Array(rows),
  scraped: {
    waiting: new Float64Array(rows),
    running: new Float64Array(rows),
    kvUsage: new Float64Array(rows),
  },
});

test('chwbl stays with the owner of the key until the bound, then moves on', () => {
  const rule = new Chwbl();
  rule.setMembers([0, 1, 2, 3].map((row) => ({ row, identity: row + 1 })));
  const owner = rule.pick(fleet({}, {}, {}, {}), prompt(100, [0, 0, 0, 0], 77));
  const even = Array.from({ length: 4 }, () => ({ inFlight: 4 }));
  expect(rule.pick(fleet(...even), prompt(100, [0, 0, 0, 0], 77))).toBe(owner);
  const hot = even.map((load, row) => (row === owner ? { inFlight: 9 } : load));
  expect(rule.pick(fleet(...hot), prompt(100, [0, 0, 0, 0], 77))).not.toBe(owner);
});

test('sglang takes the longest match over half, else the smallest tree whatever its load', () => {
  const seen = view(3);
  const rule = new SglangCacheAware(seen);
  seen.heldTokens.set([50, 10, 90]);
  const loads = fleet({ inFlight: 3 }, { inFlight: 30 }, { inFlight: 5 });
  expect(rule.pick(loads, prompt(100, [0, 0, 60]))).toBe(2);
  expect(rule.pick(loads, prompt(100, [0, 0, 50]))).toBe(1);
  const uneven = fleet({ inFlight: 40 }, { inFlight: 2 }, { inFlight: 5 });
  expect(rule.pick(uneven, prompt(100, [100, 0, 0]))).toBe(1);
});

test('prefixaware follows the match into any load', () => {
  const rule = new PrefixAware(view(2));
  expect(rule.pick(fleet({ inFlight: 999 }, {}), prompt(100, [1, 0]))).toBe(0);
});

test('aibrix ignores the match of whoever is far ahead', () => {
  const rule = new Aibrix(view(3));
  const near = fleet({ inFlight: 4 }, { inFlight: 3 }, { inFlight: 5 });
  expect(rule.pick(near, prompt(100, [0, 10, 50]))).toBe(2);
  const far = fleet({ inFlight: 4 }, { inFlight: 3 }, { inFlight: 30 });
  expect(rule.pick(far, prompt(100, [0, 10, 50]))).toBe(1);
});

test('dualmap prefers the cached one of two, unless its first token would be late', () => {
  const rule = new DualMap();
  rule.setMembers([0, 1].map((row) => ({ row, identity: row + 1 })));
  expect(rule.pick(fleet({}, {}), prompt(1000, [0, 900]))).toBe(1);
  const late = fleet({}, { pendingTokens: 60_000 });
  expect(rule.pick(late, prompt(1000, [0, 900]))).toBe(0);
  expect(rule.pick(fleet({}), prompt(1000, [0]))).toBe(0);
});

test('llm-d weighs prefix, queue and cache 3 : 2 : 2', () => {
  const seen = view(3);
  const rule = new LlmD(seen, 4096);
  seen.scraped.waiting.set([0, 0, 10]);
  expect(rule.pick(fleet({}, {}, {}), prompt(1000, [0, 1000, 1000]))).toBe(1);
  seen.scraped.waiting.set([0, 10, 10]);
  seen.scraped.kvUsage.set([0, 0.6, 0]);
  // 0 + 2 + 2 against 3 + 0 + 0.8 and 2.7 + 0 + 2.
  expect(rule.pick(fleet({}, {}, {}), prompt(1000, [0, 1000, 900]))).toBe(2);
  // Only the first 4,096 tokens count: two whole matches, the queue decides.
  seen.scraped.kvUsage.fill(0);
  expect(rule.pick(fleet({}, {}, {}), prompt(90_000, [4096, 80_000, 80_000]))).toBe(0);
});

test('dynamo adds prefill to come and context held', () => {
  const rule = new Dynamo(view(2));
  const loads = fleet({ pendingTokens: 0, contextTokens: 900 }, { pendingTokens: 500 });
  expect(rule.pick(loads, prompt(1000, [200, 0]))).toBe(1);
  expect(rule.pick(loads, prompt(1000, [400, 0]))).toBe(1);
  expect(rule.pick(loads, prompt(1000, [450, 0]))).toBe(0);
});

test('peak_ewma jumps up at once and comes down slowly', () => {
  const rule = new PeakEwma(view(2));
  rule.setTime(0);
  rule.observe(0, 5_000_000, 0, 0);
  expect(rule.pick(fleet({}, {}))).toBe(1);
  rule.setTime(60_000_000);
  rule.observe(1, 1_000_000, 0, 60_000_000);
  expect(rule.pick(fleet({}, {}))).toBe(0);
});

test('prequal looks at the latency of the load a request will find, and never at the hot', () => {
  const rule = new Prequal(view(3));
  rule.observe(0, 100, 1);
  rule.observe(1, 200, 1);
  rule.observe(2, 50, 1);
  rule.observe(2, 9000, 100);
  const even = fleet({ inFlight: 1 }, { inFlight: 1 }, { inFlight: 1 });
  expect(rule.pick(even)).toBe(2);
  const hot = fleet({ inFlight: 1 }, { inFlight: 1 }, { inFlight: 3 });
  expect(rule.pick(hot)).toBe(0);
  const loaded = fleet({ inFlight: 100 }, { inFlight: 100 }, { inFlight: 100 });
  expect(rule.pick(loaded)).toBe(0);
});

import { expect, test } from 'vitest';
import type { PrefixSource } from '../../../src/dispatch/arrival.ts';
import { Candidates } from '../../../src/dispatch/candidates.ts';
import { PrefixIndex } from '../../../src/dispatch/prefix-index.ts';
import { createPrng } from '../../../src/lib/prng.ts';
import { loadOf } from '../../support/brain-harness.ts';

const seed = Number(process.env.SEED ?? 20_260_201);
console.info(`SEED=${seed}`);

const depths = [1, 2, 3, 4, 6, 8];

/** Prompts as lists of hashes, one for each depth they reach. */
function prefixesOf(...prompts: readonly (readonly number[])[]): PrefixSource {
  const stride = 2 * depths.length;
  const words = new Int32Array(prompts.length * stride);
  prompts.forEach((hashes, slot) => {
    hashes.forEach((hash, i) => {
      words[slot * stride + 2 * i] = hash;
      words[slot * stride + 2 * i + 1] = ~hash;
    });
  });
  return {
    ...{ words, depths, blockBytes: 2048 },
    ...{ startOf: (slot) => slot * stride, countOf: (slot) => prompts[slot]!.length },
  };
}

function fleet(rows: readonly number[], capacity = 256): Candidates {
  const candidates = new Candidates(capacity);
  for (const row of rows) candidates.set(row, loadOf(0));
  return candidates;
}

function matched(index: PrefixIndex, prefixes: PrefixSource, slot: number, of: Candidates) {
  const blocks = new Int32Array(of.row.length);
  index.match(prefixes, slot, of, blocks);
  return [...blocks.subarray(0, of.length)];
}

test('a replica is known to hold the beginning that two prompts share, and no more', () => {
  const prefixes = prefixesOf([1, 2, 3, 4, 5], [1, 2, 3, 40, 50, 60], [9]);
  const index = new PrefixIndex(4, 64);
  index.setLimit(1, 100);
  index.insert(prefixes, 0, 1);
  const candidates = fleet([0, 1, 2], 4);
  expect(matched(index, prefixes, 0, candidates)).toEqual([0, 6, 0]);
  expect(matched(index, prefixes, 1, candidates)).toEqual([0, 3, 0]);
  expect(matched(index, prefixes, 2, candidates)).toEqual([0, 0, 0]);
  expect(index.held[1]).toBe(6);
});

test('fleets of 256 replicas are told apart', () => {
  const prefixes = prefixesOf([1, 2]);
  const index = new PrefixIndex(256, 64);
  const rows = [0, 31, 32, 63, 64, 200, 255];
  for (const row of rows) {
    index.setLimit(row, 10);
    index.insert(prefixes, 0, row);
  }
  const blocks = matched(index, prefixes, 0, fleet(Array.from({ length: 256 }, (_, row) => row)));
  expect(blocks.flatMap((count, row) => (count > 0 ? [row] : []))).toEqual(rows);
});

test('a replica that was replaced holds nothing, the others keep what they have', () => {
  const prefixes = prefixesOf([1, 2, 3]);
  const index = new PrefixIndex(40, 64);
  for (const row of [0, 33]) {
    index.setLimit(row, 10);
    index.insert(prefixes, 0, row);
  }
  index.forget(33);
  expect(matched(index, prefixes, 0, fleet([0, 33], 40))).toEqual([3, 0]);
  expect([index.held[0], index.held[33]]).toEqual([3, 0]);
});

test('over its limit a replica forgets what was not used for the longest', () => {
  const prompts = Array.from({ length: 200 }, (_, i) => [1000 + i]);
  const prefixes = prefixesOf(...prompts);
  const index = new PrefixIndex(2, 1024);
  index.setLimit(0, 20);
  const candidates = fleet([0], 2);
  for (let slot = 0; slot < 200; slot++) {
    index.insert(prefixes, slot, 0);
    matched(index, prefixes, 0, candidates); // the first prompt is asked for all the time
    expect(index.held[0]).toBeLessThanOrEqual(30); // a hand may need a second round
  }
  expect(matched(index, prefixes, 0, candidates)).toEqual([1]);
  const newest = prompts.slice(-10).map((_, i) => matched(index, prefixes, 190 + i, candidates)[0]);
  expect(newest.filter((blocks) => blocks === 1).length).toBeGreaterThan(5);
});

test('whatever is inserted, matched and forgotten: a match was inserted, and counts stay exact', () => {
  const random = createPrng(seed);
  const rows = 70;
  const index = new PrefixIndex(rows, 256);
  const given = new Map<string, Set<number>>();
  const prompts = Array.from({ length: 64 }, () => {
    const hashes: number[] = [];
    for (let i = 0; i < 1 + random.below(depths.length); i++) {
      hashes.push((hashes.at(-1) ?? 1) * 7 + random.below(3));
    }
    return hashes;
  });
  const prefixes = prefixesOf(...prompts);
  const candidates = fleet(Array.from({ length: rows }, (_, row) => row));
  for (let row = 0; row < rows; row++) index.setLimit(row, 12);
  for (let step = 0; step < 5000; step++) {
    const slot = random.below(prompts.length);
    const row = random.below(rows);
    if (random.below(50) === 0) {
      index.forget(row);
      for (const holders of given.values()) holders.delete(row);
    } else {
      index.insert(prefixes, slot, row);
      prompts[slot]!.forEach((hash, i) => {
        const key = `${i}:${hash}`;
        given.set(key, (given.get(key) ?? new Set()).add(row));
      });
    }
    const asked = random.below(prompts.length);
    // One expectation a step: a hundred thousand of them take longer than what they check.
    const invented = matched(index, prefixes, asked, candidates).flatMap((blocks, holder) =>
      depths
        .slice(0, depths.indexOf(blocks) + 1)
        .filter((_, i) => given.get(`${i}:${prompts[asked]![i]}`)?.has(holder) !== true),
    );
    expect(invented).toEqual([]);
    expect(Math.min(...index.held)).toBeGreaterThanOrEqual(0);
  }
});

import { expect, test } from 'vitest';
import type { PrefixSource } from '../../../src/dispatch/arrival.ts';
import { SharedBlocks } from '../../../src/dispatch/shared-blocks.ts';
import { createPrng } from '../../../src/lib/prng.ts';

const seed = Number(process.env.SEED ?? 20_261_129);
console.info(`SEED=${seed}`);

const depths = [1, 2, 4, 6];
const slots = 24;
const rows = 3;

/** Prompts by slot, as the chained hashes at each depth; a test changes them as requests come. */
class Prompts implements PrefixSource {
  readonly words = new Int32Array(slots * 2 * depths.length);
  readonly depths = depths;
  readonly blockBytes = 2048;
  readonly #count = new Uint8Array(slots);

  startOf(slot: number): number {
    return slot * 2 * depths.length;
  }

  countOf(slot: number): number {
    return this.#count[slot]!;
  }

  set(slot: number, hashes: readonly number[]): void {
    for (const [i, hash] of hashes.entries())
      this.words.set([hash, -hash], this.startOf(slot) + 2 * i);
    this.#count[slot] = hashes.length;
  }
}

const create = () => {
  const prompts = new Prompts();
  return { prompts, blocks: new SharedBlocks(prompts, slots, rows) };
};

test('what two prompts have in common counts once, until the first of them ends', () => {
  const { prompts, blocks } = create();
  prompts.set(0, [11, 12, 13]); // 4 blocks
  prompts.set(1, [11, 12, 99]);
  blocks.add(0, 0);
  expect([blocks.shared[0], blocks.common(1, 0), blocks.common(1, 1)]).toEqual([0, 2, 0]);
  blocks.add(1, 0);
  expect(blocks.shared[0]).toBe(2);
  blocks.remove(0);
  expect([blocks.shared[0], blocks.common(0, 0)]).toEqual([0, 2]);
  blocks.remove(1);
  blocks.remove(1); // it holds nothing any more
  expect(blocks.common(0, 0)).toBe(0);
});

test('a replica that is replaced shares nothing, and what it ran ends later', () => {
  const { prompts, blocks } = create();
  for (const slot of [0, 1, 2, 3]) prompts.set(slot, [7, 8]);
  blocks.add(0, 1);
  blocks.add(1, 1);
  blocks.forget(1);
  expect([blocks.shared[1], blocks.common(2, 1)]).toEqual([0, 0]);
  blocks.add(2, 1);
  blocks.remove(0);
  blocks.remove(1);
  blocks.add(3, 1);
  expect(blocks.shared[1]).toBe(2);
});

/** Blocks that a row keeps, as often as prompts have them and once. */
function recount(running: ReadonlyMap<number, { row: number; hashes: readonly number[] }>) {
  const shared = new Array<number>(rows).fill(0);
  const seen = new Set<string>();
  for (const { row, hashes } of running.values()) {
    for (const [i, hash] of hashes.entries()) {
      const name = `${row} ${hash}`;
      if (seen.has(name)) shared[row]! += depths[i]! - (depths[i - 1] ?? 0);
      seen.add(name);
    }
  }
  return shared;
}

test('any coming and going leaves what a recount finds', () => {
  const random = createPrng(seed);
  const { prompts, blocks } = create();
  const running = new Map<number, { row: number; hashes: readonly number[] }>();
  const gone = new Set<number>();
  for (let step = 0; step < 20_000; step++) {
    const slot = random.below(slots);
    if (running.has(slot) || gone.has(slot)) {
      // The slot's hashes may be another request's by then.
      prompts.set(slot, [random.below(1000)]);
      blocks.remove(slot);
      running.delete(slot);
      gone.delete(slot);
    } else {
      const kind = random.below(4);
      const length = random.below(depths.length + 1);
      // A chained hash stands for all before it: kinds differ from a depth of their own on.
      const hashes = depths.slice(0, length).map((depth, i) => 10 * depth + (i < kind ? 0 : kind));
      const row = random.below(rows);
      prompts.set(slot, hashes);
      const inUse = [...running.values()].filter((other) => other.row === row);
      const known = hashes.findIndex((hash) => !inUse.some((other) => other.hashes.includes(hash)));
      const common = known < 0 ? length : known;
      expect(blocks.common(slot, row)).toBe(common === 0 ? 0 : depths[common - 1]);
      blocks.add(slot, row);
      running.set(slot, { row, hashes });
    }
    if (random.below(500) === 0) {
      const row = random.below(rows);
      blocks.forget(row);
      for (const [other, request] of running) {
        if (request.row !== row) continue;
        running.delete(other);
        gone.add(other);
      }
    }
    expect([...blocks.shared]).toEqual(recount(running));
  }
});

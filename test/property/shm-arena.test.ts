import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ArenaPartition, arenaBytes, createArena } from '../../src/shm/arena.ts';

const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);
const page = 4096;

type Command = { readonly kind: 'allocate' | 'release' | 'grow'; readonly value: number };
const commands = fc.array(
  fc.oneof(
    fc.record({
      kind: fc.constant<'allocate'>('allocate'),
      value: fc.oneof(
        fc.integer({ min: 0, max: 3 * page }),
        fc.integer({ min: 0, max: 80 * page }),
        fc.constantFrom(0, 1, page - 1, page, page + 1, 64 * page, 64 * page + 1),
      ),
    }),
    fc.record({ kind: fc.constant<'release'>('release'), value: fc.nat() }),
    fc.record({ kind: fc.constant<'grow'>('grow'), value: fc.nat({ max: 2 ** 20 }) }),
  ),
  { maxLength: 120 },
);

/** The largest block an empty partition of `pages` pages can give, found without the allocator. */
const largestBlock = (pages: number): number => 2 ** Math.floor(Math.log2(pages)) * page;
const blockFor = (length: number): number =>
  length <= page ? page : 2 ** Math.ceil(Math.log2(length));

interface Block {
  readonly offset: number;
  readonly bytes: number;
}

/** The model: a map of pages. A request fits exactly when an aligned run of free pages exists. */
function fits(blocks: readonly Block[], start: number, pages: number, bytes: number): boolean {
  const taken = new Uint8Array(pages);
  for (const block of blocks) {
    const first = (block.offset - start) / page;
    taken.fill(1, first, first + block.bytes / page);
  }
  const need = bytes / page;
  for (let at = 0; at + need <= pages; at += need) {
    if (taken.subarray(at, at + need).every((each) => each === 0)) return true;
  }
  return false;
}

/** Whether a block of `bytes` may lie at `offset`. */
function isFree(
  blocks: readonly Block[],
  start: number,
  pages: number,
  offset: number,
  bytes: number,
): boolean {
  const isInside = offset + bytes <= start + pages * page;
  const isAligned = (offset - start) % bytes === 0;
  const isApart = blocks.every(
    (other) => offset + bytes <= other.offset || other.offset + other.bytes <= offset,
  );
  return isInside && isAligned && isApart;
}

function play(start: number, size: number, steps: readonly Command[]): void {
  const arena = new ArenaPartition(start, size);
  const pages = Math.floor(size / page);
  const blocks: Block[] = [];
  for (const { kind, value } of steps) {
    if (kind === 'release') {
      if (blocks.length === 0) continue;
      const [block] = blocks.splice(value % blocks.length, 1);
      arena.release(block!.offset);
      expect(() => arena.release(block!.offset)).toThrow('only an allocated block is released');
    } else if (kind === 'grow') {
      const index = value % Math.max(blocks.length, 1);
      const block = blocks[index];
      if (block === undefined) continue;
      const others = blocks.filter((other) => other !== block);
      const bytes = Math.max(block.bytes, blockFor(value % (80 * page)));
      const isRoom = isFree(others, start, pages, block.offset, bytes);
      expect(arena.grow(block.offset, value % (80 * page))).toBe(isRoom);
      if (!isRoom) continue;
      blocks[index] = { offset: block.offset, bytes };
      expect(arena.capacityAt(block.offset)).toBe(bytes);
    } else {
      const bytes = blockFor(value);
      const expected = fits(blocks, start, pages, bytes);
      const offset = arena.allocate(value);
      expect(offset >= 0).toBe(expected);
      if (offset < 0) continue;
      expect(arena.capacityAt(offset)).toBe(bytes);
      expect((offset - start) % bytes).toBe(0);
      expect(offset).toBeGreaterThanOrEqual(start);
      expect(offset + bytes).toBeLessThanOrEqual(start + size);
      for (const other of blocks) {
        expect(offset + bytes <= other.offset || other.offset + other.bytes <= offset).toBe(true);
      }
      blocks.push({ offset, bytes });
    }
    expect(arena.used).toBe(blocks.reduce((sum, { bytes }) => sum + bytes, 0));
  }
  for (const { offset } of blocks) arena.release(offset);
  expect(arena.used).toBe(0);
  const largest = arena.allocate(largestBlock(pages));
  expect(largest).toBeGreaterThanOrEqual(start);
  expect(arena.allocate(largestBlock(pages) + 1)).toBe(-1);
}

test('blocks never overlap, full is -1 exactly when nothing fits, release restores all', () => {
  console.log(`SEED=${seed}`);
  const sizes = fc.integer({ min: 1, max: 130 });
  const property = fc.property(
    sizes,
    fc.nat(20),
    fc.nat(page - 1),
    commands,
    (pages, at, rest, steps) => play(at * page, pages * page + rest, steps),
  );
  fc.assert(property, { seed, numRuns: 300 });
});

test('offsets, lengths and partitions out of range are refused', () => {
  const arena = new ArenaPartition(2 * page, 4 * page);
  const offset = arena.allocate(1);
  for (const wrong of [offset + 1, 0, offset + 4 * page, offset + page]) {
    expect(() => arena.release(wrong)).toThrow();
  }
  for (const length of [2 ** 31, 2 ** 32, 2 ** 32 + 1, 2 ** 40]) {
    expect(arena.allocate(length)).toBe(-1);
  }
  expect(() => new ArenaPartition(2 ** 30, 2 ** 30)).toThrow('int32');
  expect(() => new ArenaPartition(0, page - 1)).toThrow('at least one page');
});

test('the bytes of the arena are the same for every thread that attaches', () => {
  const region = createArena(2 * page);
  arenaBytes(region, 2 * page)[page] = 9;
  expect(arenaBytes(region, 2 * page)[page]).toBe(9);
  expect(() => arenaBytes(region, page)).toThrow('other counts');
});

import { expect, test } from 'vitest';
import { SlotsPool } from '../../../src/acceptor/slots-pool.ts';
import { createPrng } from '../../../src/lib/prng.ts';

test('partitions are equal, disjoint and inside the table', () => {
  const pools = [0, 1, 2].map((index) => SlotsPool.partition(10, 3, index));
  expect(pools.map(({ first, size }) => [first, size])).toEqual([
    [0, 3],
    [3, 3],
    [6, 3],
  ]);
});

test('an empty pool is a value, and a slot comes back last', () => {
  const pool = new SlotsPool(4, 3);
  expect([pool.take(), pool.take()]).toEqual([4, 5]);
  pool.give(4);
  expect([pool.take(), pool.take(), pool.take()]).toEqual([6, 4, -1]);
  expect(pool.inUse).toBe(3);
});

test('a slot given twice or never taken is refused', () => {
  const pool = new SlotsPool(0, 2);
  expect(() => pool.give(0)).toThrow('given back once');
  pool.take();
  expect(() => pool.give(2)).toThrow('of this partition');
});

test('random use behaves as a queue', () => {
  const seed = Number(process.env.SEED ?? 7);
  const random = createPrng(seed);
  const pool = new SlotsPool(0, 16);
  const model = Array.from({ length: 16 }, (_, slot) => slot);
  const taken: number[] = [];
  for (let step = 0; step < 10_000; step++) {
    if (random.below(2) === 0) {
      const slot = pool.take();
      expect(slot, `SEED=${seed}`).toBe(model.shift() ?? -1);
      if (slot >= 0) taken.push(slot);
    } else if (taken.length > 0) {
      const [slot] = taken.splice(random.below(taken.length), 1) as [number];
      pool.give(slot);
      model.push(slot);
    }
    expect(pool.inUse).toBe(taken.length);
  }
});

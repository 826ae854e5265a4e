import { expect, test } from 'vitest';
import { type Due, DueList } from '../../../src/lib/due-list.ts';
import { createPrng } from '../../../src/lib/prng.ts';

class Item implements Due<Item> {
  dueUs = 0;
  sooner: Item | undefined;
  later: Item | undefined;
}

test('the first is the one that was added before all others that are in', () => {
  const list = new DueList<Item>();
  const [a, b, c] = [new Item(), new Item(), new Item()] as const;
  expect(list.first).toBeUndefined();
  list.add(a, 10);
  list.add(b, 20);
  list.add(c, 30);
  expect(list.first).toBe(a);
  list.remove(b);
  list.remove(b);
  list.remove(a);
  expect(list.first).toBe(c);
  list.add(a, 40);
  list.remove(c);
  expect(list.first).toBe(a);
  expect(() => list.add(a, 50)).toThrow();
  list.remove(a);
  expect(list.first).toBeUndefined();
});

test('a clock that goes back changes no order', () => {
  const list = new DueList<Item>();
  const [a, b] = [new Item(), new Item()] as const;
  list.add(a, 100);
  list.add(b, 50);
  expect([a.dueUs, b.dueUs]).toEqual([100, 100]);
  expect(list.first).toBe(a);
});

test('any sequence of changes leaves the list that an array would be', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1e9);
  const random = createPrng(seed);
  const list = new DueList<Item>();
  const items = Array.from({ length: 12 }, () => new Item());
  let model: Item[] = [];
  for (let step = 1; step < 3000; step++) {
    const item = items[random.below(items.length)]!;
    if (model.includes(item)) {
      list.remove(item);
      model = model.filter((other) => other !== item);
    } else {
      list.add(item, step);
      model.push(item);
    }
    const found: Item[] = [];
    for (let at = list.first; at !== undefined; at = at.later) found.push(at);
    expect(found.length, `SEED=${seed} step ${step}`).toBe(model.length);
    for (const [i, one] of found.entries()) {
      expect(one === model[i], `SEED=${seed} step ${step}`).toBe(true);
      expect(one.sooner === model[i - 1], `SEED=${seed} step ${step}`).toBe(true);
    }
  }
});

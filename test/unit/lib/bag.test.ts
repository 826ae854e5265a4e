import { describe, expect, it } from 'vitest';
import { Bag } from '../../../src/lib/bag.ts';

const item = (name: string) => ({ name, place: -1 });

function names(bag: Bag<ReturnType<typeof item>>): string[] {
  const list: string[] = [];
  bag.visitAll(({ name }) => list.push(name));
  return list.sort();
}

describe('a bag', () => {
  it('holds an item once, however often it is added', () => {
    const bag = new Bag<ReturnType<typeof item>>();
    const a = item('a');
    bag.add(a);
    bag.add(a);
    expect(names(bag)).toEqual(['a']);
  });

  it('keeps the others when one is removed from the front, the middle or the end', () => {
    for (const gone of [0, 1, 2]) {
      const bag = new Bag<ReturnType<typeof item>>();
      const items = ['a', 'b', 'c'].map(item);
      for (const one of items) bag.add(one);
      bag.remove(items[gone] as ReturnType<typeof item>);
      expect(names(bag)).toEqual(['a', 'b', 'c'].filter((_, i) => i !== gone));
      expect(items[gone]?.place).toBe(-1);
    }
  });

  it('takes back what was removed, and removes nothing twice', () => {
    const bag = new Bag<ReturnType<typeof item>>();
    const [a, b] = [item('a'), item('b')];
    bag.add(a);
    bag.add(b);
    bag.remove(a);
    bag.remove(a);
    expect(names(bag)).toEqual(['b']);
    bag.add(a);
    expect(names(bag)).toEqual(['a', 'b']);
  });

  it('visits everything although the visit removes itself, or others', () => {
    const bag = new Bag<ReturnType<typeof item>>();
    const items = ['a', 'b', 'c', 'd'].map(item);
    for (const one of items) bag.add(one);
    const seen = new Set<string>();
    bag.visitAll((one) => {
      seen.add(one.name);
      bag.remove(one);
    });
    expect([...seen].sort()).toEqual(['a', 'b', 'c', 'd']);
    expect(names(bag)).toEqual([]);

    for (const one of items) bag.add(one);
    let visits = 0;
    bag.visitAll(() => {
      visits++;
      for (const one of items) bag.remove(one);
    });
    expect(visits).toBe(1);
  });

  it('refuses an item of another bag', () => {
    const [one, other] = [new Bag(), new Bag()];
    const a = item('a');
    one.add(a);
    expect(() => other.remove(a)).toThrow('the item is in this bag');
  });
});

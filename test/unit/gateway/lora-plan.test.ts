/** Who loads an adapter that somebody waits for, and what is given up for it. */
import { describe, expect, test } from 'vitest';
import { patienceMs, planLoads, type Shelf, type Want } from '../../../src/gateway/lora-plan.ts';
import { createPrng } from '../../../src/lib/prng.ts';

interface Place {
  readonly isNew?: boolean;
  readonly age?: number;
  readonly used?: boolean;
}

interface Named extends Shelf {
  readonly name: string;
}

function shelf(
  name: string,
  places: Record<string, Place> = {},
  more: Partial<Shelf> & { readonly failing?: readonly string[] } = {},
): Named {
  const { failing = [], ...facts } = more;
  return {
    ...{ name, isRoutable: true, isFull: false, load: 0, kept: [], loading: undefined },
    loaded: new Set(Object.keys(places)),
    isNew: (adapter) => places[adapter]?.isNew === true,
    isFailing: (adapter) => failing.includes(adapter),
    age: (adapter) => places[adapter]?.age ?? 0,
    isUsed: (adapter) => places[adapter]?.used === true,
    ...facts,
  };
}

const want = (adapter: string, waitedMs = 0): Want => ({ adapter, waitedMs });

const plan = (wants: readonly Want[], shelves: readonly Named[], maxLoaded = 2): string[] =>
  planLoads(wants, shelves, maxLoaded).map(
    ({ shelf: { name }, adapter, evicted }) =>
      `${name}+${adapter}${evicted === undefined ? '' : `-${evicted}`}`,
  );

describe('an adapter that nobody has', () => {
  test('goes to the least loaded replica with a free place', () => {
    const full = shelf('a', { x: {}, y: {} }, { load: 0 });
    const busy = shelf('b', { x: {} }, { load: 0.5 });
    const calm = shelf('c', { x: {} }, { load: 0.25 });
    expect(plan([want('z')], [full, busy, calm])).toEqual(['c+z']);
    // Among equals to the one that has fewest.
    const empty = shelf('d', {}, { load: 0.25 });
    expect(plan([want('z')], [full, busy, calm, empty])).toEqual(['d+z']);
  });

  test('else takes the place of the one that was used longest ago', () => {
    const a = shelf('a', { w: { age: 5 }, x: { age: 9 } });
    const b = shelf('b', { w: { age: 7 }, y: { age: 30 } });
    expect(plan([want('z')], [a, b])).toEqual(['b+z-y']);
  });

  test('takes no place in use before its waiter has waited, and none that was just filled', () => {
    const a = shelf('a', {
      w: { age: 50, used: true },
      x: { age: 90, isNew: true },
    });
    expect(plan([want('z', patienceMs - 1)], [a])).toEqual([]);
    expect(plan([want('z', patienceMs)], [a])).toEqual(['a+z-w']);
    const idle = shelf('b', { w: { age: 50, used: true }, x: { age: 3 } });
    expect(plan([want('z', patienceMs)], [idle])).toEqual(['b+z-x']);
  });

  test('goes to no replica that is down, is doing something, or could not load it', () => {
    const down = shelf('a', {}, { isRoutable: false });
    const doing = shelf('b', {}, { loading: 'y' });
    const failing = shelf('c', {}, { failing: ['z'] });
    expect(plan([want('z')], [down, doing, failing])).toEqual([]);
    expect(plan([want('z')], [down, doing, failing, shelf('d', {}, { load: 0.9 })])).toEqual([
      'd+z',
    ]);
  });

  test('is loaded once, and is there where a replica that is down has it', () => {
    expect(plan([want('z')], [shelf('a', {}, { loading: 'z' }), shelf('b')])).toEqual([]);
    const down = shelf('a', { z: {} }, { isRoutable: false });
    expect(plan([want('z')], [down, shelf('b')])).toEqual(['b+z']);
  });
});

describe('an adapter that some replica has', () => {
  test.each([
    ['loaded', shelf('a', { z: {} })],
    ['from its start', shelf('a', {}, { kept: ['z'] })],
  ])('%s is loaded nowhere else while that has room', (_name, holder) => {
    expect(plan([want('z')], [holder, shelf('b')])).toEqual([]);
    // It has room and is not asked: it is paused, or ejected.
    expect(plan([want('z', patienceMs)], [holder, shelf('b')])).toEqual(['b+z']);
  });

  test('is loaded once more when all that have it are full, and pushes nobody out', () => {
    const full = shelf('a', { z: {} }, { isFull: true });
    expect(plan([want('z')], [full, shelf('b')])).toEqual(['b+z']);
    expect(plan([want('z', 60_000)], [full, shelf('b', { x: {}, y: {} })])).toEqual([]);
  });
});

test('who has waited longest is served first, each replica does one thing', () => {
  const shelves = [shelf('a'), shelf('b', {}, { load: 0.1 })];
  const wants = [want('x', 10), want('y', 30), want('z', 20)];
  expect(plan(wants, shelves)).toEqual(['a+y', 'b+z']);
});

test('no plan overfills a shelf, evicts what is wanted of it, or moves one replica twice', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1e9);
  const random = createPrng(seed);
  const below = (n: number): number => random.next() % n;
  for (let round = 0; round < 2000; round++) {
    const names = ['u', 'v', 'w', 'x', 'y', 'z'];
    const maxLoaded = 1 + below(3);
    const shelves = Array.from({ length: 1 + below(4) }, (_, i) => {
      const has = names.filter(() => below(3) === 0).slice(0, maxLoaded);
      const places = Object.fromEntries(
        has.map((name) => [name, { age: below(9), used: below(2) === 0, isNew: below(3) === 0 }]),
      );
      const free = names.filter((name) => !has.includes(name));
      return shelf(String(i), places, {
        ...{ isRoutable: below(4) > 0, isFull: below(2) === 0, load: below(10) / 10 },
        loading: below(5) === 0 ? free[0] : undefined,
        failing: names.filter(() => below(6) === 0),
      });
    });
    const wants = names.filter(() => below(2) === 0).map((name) => want(name, below(2000)));
    const moves = planLoads(wants, shelves, maxLoaded);
    const context = `SEED=${seed}, round ${round}`;
    expect(new Set(moves.map(({ shelf: s }) => s)).size, context).toBe(moves.length);
    expect(new Set(moves.map(({ adapter }) => adapter)).size, context).toBe(moves.length);
    for (const { shelf: to, adapter, evicted } of moves) {
      expect(to.isRoutable && to.loading === undefined, context).toBe(true);
      expect(to.loaded.has(adapter) || to.isFailing(adapter), context).toBe(false);
      expect(to.loaded.size - (evicted === undefined ? 0 : 1), context).toBeLessThan(maxLoaded);
      if (evicted === undefined) continue;
      expect(to.loaded.has(evicted), context).toBe(true);
      const held = shelves.some((s) => s.isRoutable && s.loaded.has(adapter));
      expect(held, `${context}: nobody is pushed out for a second copy`).toBe(false);
    }
    // Who waits in vain does so because nobody could take it in.
    const idle = shelves.filter((s) => s.isRoutable && s.loading === undefined);
    for (const { adapter } of wants) {
      const isDone = moves.some((move) => move.adapter === adapter);
      const isHeld = shelves.some((s) => s.loaded.has(adapter) || s.loading === adapter);
      const isRoomy = idle.some(
        (s) =>
          s.loaded.size < maxLoaded &&
          !s.isFailing(adapter) &&
          !moves.some((move) => move.shelf === s),
      );
      expect(isDone || isHeld || !isRoomy, context).toBe(true);
    }
  }
});

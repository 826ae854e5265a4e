/** Who loads an adapter that somebody waits for, and what is given up for it. */
import { describe, expect, test } from 'vitest';
import { patienceMs, planLoads, type Shelf } from '../../../src/gateway/lora-plan.ts';
import { createPrng } from '../../../src/lib/prng.ts';

interface Place {
  readonly isNew?: boolean;
  readonly idle?: number;
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
    ...{ name, isRoutable: true, isReachable: true, hasRoom: true, load: 0, kept: [] },
    ...{ loading: undefined, mayDrain: true },
    ...{ isKnown: true, loaded: new Set(Object.keys(places)) },
    isNew: (adapter) => places[adapter]?.isNew === true,
    isFailing: (adapter) => failing.includes(adapter),
    idleMs: (adapter) => places[adapter]?.idle ?? 0,
    isUsed: (adapter) => places[adapter]?.used === true,
    ...facts,
  };
}

interface Wanted {
  readonly adapter: string;
  readonly waitedMs: number;
  readonly only: Named | undefined;
}

const want = (adapter: string, waitedMs = 0, only?: Named): Wanted => ({ adapter, waitedMs, only });

const plan = (wants: readonly Wanted[], shelves: readonly Named[], maxLoaded = 2): string[] =>
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
    const a = shelf('a', { w: { idle: 5 }, x: { idle: 9 } });
    const b = shelf('b', { w: { idle: 7 }, y: { idle: 30 } });
    expect(plan([want('z')], [a, b])).toEqual(['b+z-y']);
  });

  test('takes no place in use before it was waited for, and none that was just filled', () => {
    const a = shelf('a', { w: { idle: 50, used: true }, x: { idle: 90, isNew: true } });
    expect(plan([want('z', patienceMs - 1)], [a])).toEqual([]);
    expect(plan([want('z', patienceMs)], [a])).toEqual(['a+z-w']);
    const idle = shelf('b', { w: { idle: 50, used: true }, x: { idle: 3 } });
    expect(plan([want('z', patienceMs)], [idle])).toEqual(['b+z-x']);
    const slow = shelf('c', { w: { used: true } }, { mayDrain: false });
    expect(plan([want('z', 60_000)], [slow], 1)).toEqual([]);
  });

  test('takes the place of one that somebody waits for only after a longer wait', () => {
    const wanted = shelf('a', { x: { idle: 9 } });
    expect(plan([want('z', 20), want('x', 10)], [wanted], 1)).toEqual([]);
    expect(plan([want('z', patienceMs), want('x', patienceMs)], [wanted], 1)).toEqual([]);
    expect(plan([want('z', patienceMs + 1), want('x', patienceMs)], [wanted], 1)).toEqual([
      'a+z-x',
    ]);
  });

  test('goes to no replica that is down, unknown, doing something, or could not load it', () => {
    const down = shelf('a', {}, { isRoutable: false });
    const doing = shelf('b', {}, { loading: 'y' });
    const failing = shelf('c', {}, { failing: ['z'] });
    const unknown = shelf('d', {}, { isKnown: false });
    const none = [down, doing, failing, unknown];
    expect(plan([want('z', 9000)], none)).toEqual([]);
    expect(plan([want('z')], [...none, shelf('e', {}, { load: 0.9 })])).toEqual(['e+z']);
  });

  test('is loaded once, and is there where a replica that is down has it, or loads it', () => {
    expect(plan([want('z', 9000)], [shelf('a', {}, { loading: 'z' }), shelf('b')])).toEqual([]);
    const down = shelf('a', { z: {} }, { isRoutable: false });
    expect(plan([want('z')], [down, shelf('b')])).toEqual(['b+z']);
    const hung = shelf('a', {}, { isRoutable: false, loading: 'z' });
    expect(plan([want('z')], [hung, shelf('b')])).toEqual(['b+z']);
  });
});

describe('an adapter that some replica has', () => {
  test.each([
    ['loaded', shelf('a', { z: {} })],
    ['from its start', shelf('a', {}, { kept: ['z'] })],
  ])('%s is loaded nowhere else while that has room', (_name, holder) => {
    expect(plan([want('z')], [holder, shelf('b')])).toEqual([]);
    // It has room and is not asked: it is paused, or has failed who waits.
    expect(plan([want('z', patienceMs)], [holder, shelf('b')])).toEqual(['b+z']);
    const filled = shelf('b', { x: { idle: 3 }, y: { idle: 4 } });
    expect(plan([want('z', patienceMs)], [holder, filled])).toEqual(['b+z-y']);
  });

  test('is loaded once more when all that have it are full; others give way when idle alone', () => {
    const full = shelf('a', { z: {} }, { hasRoom: false });
    expect(plan([want('z')], [full, shelf('b')])).toEqual(['b+z']);
    expect(plan([want('z')], [full, shelf('b', { x: {}, y: {} })])).toEqual([]);
    const used = shelf('b', { x: { used: true }, y: { used: true } });
    expect(plan([want('z', 60_000)], [full, used])).toEqual([]);
    expect(plan([want('z', 60_000)], [full, shelf('b', { x: { used: true }, y: {} })])).toEqual([
      'b+z-y',
    ]);
    // A copy where there is no room either helps nobody.
    expect(plan([want('z', 60_000)], [full, shelf('b', {}, { hasRoom: false })])).toEqual([]);
  });
});

test('who can be served by one replica alone has it load, whoever else has the adapter', () => {
  const other = shelf('a', { z: {} });
  const own = shelf('b', { x: { idle: 1 }, y: { idle: 2 } });
  expect(plan([want('z', 0, own)], [other, own])).toEqual(['b+z-y']);
  expect(plan([want('z', 0, own)], [other, own], 3)).toEqual(['b+z']);
  expect(plan([want('z', 9000, other)], [other, own], 3)).toEqual([]);
  // Also where it drains: nobody else could serve them.
  const draining = shelf('c', {}, { isRoutable: false });
  expect(plan([want('z', 0, draining)], [other, draining])).toEqual(['c+z']);
  const leaving = shelf('d', {}, { isRoutable: false, isReachable: false });
  expect(plan([want('z', 0, leaving)], [other, leaving])).toEqual([]);
});

test('who has waited longest is served first, each replica does one thing', () => {
  const shelves = [shelf('a'), shelf('b', {}, { load: 0.1 })];
  const wants = [want('x', 10), want('y', 30), want('z', 20)];
  expect(plan(wants, shelves)).toEqual(['a+y', 'b+z']);
});

test('no plan overfills a shelf, gives up what is waited for longer, or moves one replica twice', () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1e9);
  const random = createPrng(seed);
  const below = (n: number): number => random.next() % n;
  for (let round = 0; round < 2000; round++) {
    const names = ['u', 'v', 'w', 'x', 'y', 'z'];
    const maxLoaded = 1 + below(3);
    const shelves = Array.from({ length: 1 + below(4) }, (_, i) => {
      const has = names.filter(() => below(3) === 0).slice(0, maxLoaded);
      const places = Object.fromEntries(
        has.map((name) => [name, { idle: below(9), used: below(2) === 0, isNew: below(3) === 0 }]),
      );
      const free = names.filter((name) => !has.includes(name));
      return shelf(String(i), places, {
        ...{ isRoutable: below(4) > 0, hasRoom: below(2) === 0, load: below(10) / 10 },
        ...{ isReachable: below(5) > 0, mayDrain: below(3) > 0 },
        ...{ isKnown: below(5) > 0, loading: below(5) === 0 ? free[0] : undefined },
        failing: names.filter(() => below(6) === 0),
      });
    });
    const wants = names
      .filter(() => below(2) === 0)
      .map((name) =>
        want(name, below(2000), below(4) === 0 ? shelves[below(shelves.length)] : undefined),
      );
    const moves = planLoads(wants, shelves, maxLoaded);
    const context = `SEED=${seed}, round ${round}`;
    expect(new Set(moves.map(({ shelf: s }) => s)).size, context).toBe(moves.length);
    expect(new Set(moves.map(({ adapter }) => adapter)).size, context).toBe(moves.length);
    for (const { shelf: to, adapter, evicted } of moves) {
      expect(to.isKnown && to.loading === undefined, context).toBe(true);
      expect(to.loaded.has(adapter) || to.isFailing(adapter), context).toBe(false);
      const { only } = wants.find((w) => w.adapter === adapter) as Wanted;
      expect(only === undefined ? to.isRoutable : only === to && to.isReachable, context).toBe(
        true,
      );
      expect(to.loaded.size - (evicted === undefined ? 0 : 1), context).toBeLessThan(maxLoaded);
      if (evicted === undefined) continue;
      expect(to.loaded.has(evicted) && !to.isNew(evicted), context).toBe(true);
      const waitedMs = (name: string): number =>
        wants.find((w) => w.adapter === name)?.waitedMs ?? -1;
      expect(waitedMs(evicted), context).toBeLessThan(waitedMs(adapter));
      expect(to.isUsed(evicted) && !to.mayDrain, context).toBe(false);
      const isHeld =
        only === undefined && shelves.some((s) => s.isRoutable && s.loaded.has(adapter));
      expect(isHeld && to.isUsed(evicted), `${context}: a second copy drains nobody`).toBe(false);
    }
    // Who waits in vain does so because nobody could take it in.
    for (const { adapter, only } of wants) {
      const among = (only === undefined ? shelves : [only]).filter((s) =>
        only === undefined ? s.isRoutable : s.isReachable,
      );
      const isDone = moves.some((move) => move.adapter === adapter);
      const isHeld = among.some((s) => s.loaded.has(adapter) || s.loading === adapter);
      const isRoomy = among.some(
        (s) =>
          s.isKnown &&
          s.loading === undefined &&
          s.loaded.size < maxLoaded &&
          !s.isFailing(adapter) &&
          !moves.some((move) => move.shelf === s),
      );
      expect(isDone || isHeld || !isRoomy, context).toBe(true);
    }
  }
});

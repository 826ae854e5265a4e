/**
 * Stored responses: forwarders that keep, acceptors that look up and forget, in one set.
 *
 * Promises: who finds an entry reads what one writer wrote for that key; what was kept is found, unless the
 * set is full; two that keep at one time take two entries; the least recently used is given up; a thread that
 * dies with an entry takes that entry and nothing else, and nobody waits for it.
 */
import { responseKeyWords } from '../../src/protocol/response-key.ts';
import { responseWays, StoredResponsesLayout } from '../../src/shm/stored-responses.layout.ts';
import type { Keeper } from '../../src/shm/stored-responses.ts';
import type { View, World } from './explorer.ts';
import type { Search, ShmModules } from './search.ts';
import type { Run, ThreadApi } from './virtual-thread.ts';

const entries = responseWays;

/** Of one set, and no two the same in any word but the first. */
const keyOf = (n: number): Int32Array =>
  Int32Array.from({ length: responseKeyWords }, (_, i) => (i === 0 ? 0 : 1000 * n + i));

/** All of its words tell of `tag`. */
const keeperOf = (tag: number): Keeper => ({
  ...{ row: tag, epoch: tag + 100, identity: tag + 200 },
  ...{ model: tag + 300, adapter: tag + 400, name: tag + 500 },
});

function checkWhole(t: ThreadApi, keeper: Keeper, tags: readonly number[]): void {
  const { row } = keeper;
  t.check(tags.includes(row), 'an entry is of the key');
  const whole = keeperOf(row);
  const isWhole = (Object.keys(whole) as (keyof Keeper)[]).every(
    (word) => keeper[word] === whole[word],
  );
  t.check(isWhole, 'an entry is of one writer');
}

function open(m: ShmModules, region: SharedArrayBuffer) {
  const table = new m.storedResponses.StoredResponses(region, entries);
  const keeper = m.storedResponses.createKeeper();
  return {
    keep: (n: number, tag: number) => table.keep(keyOf(n), keeperOf(tag)),
    forget: (n: number) => table.forget(keyOf(n)),
    /** The tag that was found; -1: none. */
    find(t: ThreadApi, n: number, tags: readonly number[]): number {
      if (!table.find(keyOf(n), keeper)) return -1;
      checkWhole(t, keeper, tags);
      return keeper.row;
    },
  };
}

function regionOf(m: ShmModules, keys: readonly number[]): SharedArrayBuffer {
  const region = m.storedResponses.createStoredResponses(entries);
  const table = new m.storedResponses.StoredResponses(region, entries);
  for (const n of keys) table.keep(keyOf(n), keeperOf(n));
  return region;
}

/** No entry is left taken, but for those of threads that died. */
const noneTaken =
  (crashes: number) =>
  (view: View): void => {
    const { base, stride } = StoredResponsesLayout.place({ entry: entries }).at.entry;
    let taken = 0;
    for (let i = 0; i < entries; i++) taken += view.word(0, base + i * stride) & 1;
    if (taken > crashes) throw new Error('an entry was not given back');
  };

/** A response of a key is replaced, or forgotten, under a reader. */
function replaceWorld(m: ShmModules, change: 'keep' | 'forget' | 'evict'): World {
  const region = regionOf(m, change === 'evict' ? [1, 2, 3, 4, 5, 6, 7, 8] : [1]);
  const writing: Run = (t) => {
    const table = open(m, region);
    if (change === 'forget') {
      table.forget(1);
      t.check(table.find(t, 1, []) < 0, 'what was forgotten is not found');
    } else {
      const [n, tag] = change === 'keep' ? [1, 11] : [9, 9];
      const kept = table.keep(n, tag);
      t.check(
        kept ===
          (change === 'keep' ? m.storedResponses.Kept.fresh : m.storedResponses.Kept.evicting),
        'it says what it took the place of',
      );
      t.check(table.find(t, n, [tag]) === tag, 'what was kept is found');
    }
  };
  const reading: Run = (t) => {
    open(m, region).find(t, 1, [1, 11]);
  };
  return {
    regions: [region],
    threads: [
      { name: 'writer', run: writing },
      { name: 'reader', run: reading },
    ],
    atEnd: noneTaken(0),
  };
}

/** Two forwarders at one time, of two keys or of one, in a set that has the responses of `before`. */
function twoWorld(m: ShmModules, before: readonly number[], second: number, crashes = 0): World {
  const region = regionOf(m, before);
  const keeping =
    (n: number, tag: number): Run =>
    (t) => {
      const table = open(m, region);
      const kept = table.keep(n, tag);
      const tags = second === 1 ? [1, 11, 12] : [tag];
      const found = table.find(t, n, tags);
      const isKept = kept !== m.storedResponses.Kept.not;
      if (second !== 1 && crashes === 0) t.check(isKept && found === tag, 'each finds its own');
      if (second !== 1 && isKept) t.check(found === tag, 'what was kept is found');
    };
  return {
    regions: [region],
    threads: [
      { name: 'one', run: keeping(1, 11), mayCrash: true },
      { name: 'two', run: keeping(second, 12) },
    ],
    crashes,
    atEnd: noneTaken(crashes),
  };
}

/** One is forgotten while it is kept again. */
function forgetWorld(m: ShmModules): World {
  const region = regionOf(m, [1]);
  const forgetting: Run = () => open(m, region).forget(1);
  const keeping: Run = (t) => {
    const table = open(m, region);
    table.keep(1, 11);
    table.find(t, 1, [1, 11]);
  };
  return {
    regions: [region],
    threads: [
      { name: 'acceptor', run: forgetting },
      { name: 'forwarder', run: keeping },
    ],
    atEnd: noneTaken(0),
  };
}

type Step = ['keep', number, number] | ['find', number] | ['forget', number];

/** One thread after `before`: which response a full set gives up for that of key 9, and for whom there is room. */
function orderWorld(m: ShmModules, before: readonly Step[], evicted: number): World {
  const { Kept, StoredResponses, createKeeper } = m.storedResponses;
  const region = regionOf(m, [1, 2, 3, 4, 5, 6, 7, 8]);
  const table = new StoredResponses(region, entries);
  for (const [what, n, tag = n] of before) {
    if (what === 'keep') table.keep(keyOf(n), keeperOf(tag));
    else if (what === 'find') table.find(keyOf(n), createKeeper());
    else table.forget(keyOf(n));
  }
  const run: Run = (t) => {
    const own = open(m, region);
    const kept = own.keep(9, 9);
    t.check(
      kept === (evicted > 0 ? Kept.evicting : Kept.fresh),
      'it says whether one was given up',
    );
    if (evicted > 0) t.check(own.find(t, evicted, [evicted]) < 0, 'it is the one used longest ago');
    else t.check(own.find(t, 8, [8, 18]) >= 8, 'others stay');
    t.check(own.find(t, 9, [9]) === 9, 'what was kept is found');
  };
  return { regions: [region], threads: [{ name: 'alone', run }], atEnd: noneTaken(0) };
}

export function storedResponsesSearches(m: ShmModules): Search[] {
  const orders: readonly [name: string, before: readonly Step[], evicted: number][] = [
    ['the first is given up', [], 1],
    ['not what was looked up', [['find', 1]], 2],
    ['not what was kept again', [['keep', 1, 11]], 2],
    ['none where one was forgotten', [['forget', 5]], 0],
    [
      'none where the key is there',
      [
        ['keep', 9, 10],
        ['keep', 8, 18],
      ],
      0,
    ],
  ];
  return [
    ...orders.map(([name, before, evicted]) => ({
      name: `of a full set ${name}`,
      world: () => orderWorld(m, before, evicted),
    })),
    { name: 'replaced under a reader', world: () => replaceWorld(m, 'keep') },
    { name: 'forgotten under a reader', world: () => replaceWorld(m, 'forget') },
    { name: 'given up under a reader', world: () => replaceWorld(m, 'evict') },
    { name: 'two keep two', world: () => twoWorld(m, [], 2) },
    { name: 'one keeps while one is replaced', world: () => twoWorld(m, [1], 2) },
    { name: 'one is forgotten and kept again', world: () => forgetWorld(m) },
    { name: 'two keep one', isLarge: true, world: () => twoWorld(m, [1], 1) },
    { name: 'one dies while two keep two', world: () => twoWorld(m, [], 2, 1) },
  ];
}

import { describe, expect, test } from 'vitest';
import { createPrng } from '../../../src/lib/prng.ts';
import { ownerOf, responseKeyWords, writeResponseKey } from '../../../src/protocol/response-key.ts';
import { responseWays, StoredResponsesLayout } from '../../../src/shm/stored-responses.layout.ts';
import {
  createKeeper,
  createStoredResponses,
  type Keeper,
  Kept,
  responseCounts,
  StoredResponses,
} from '../../../src/shm/stored-responses.ts';

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
console.info(`SEED=${seed}`);

const keyOf = (id: string, tenant = ''): Int32Array => {
  const key = new Int32Array(responseKeyWords);
  writeResponseKey(ownerOf(tenant), 0, id, key);
  return key;
};
/** One whose words all tell of the same number. */
const keeperOf = (n: number): Keeper => ({
  ...{ row: n & 255, epoch: n, identity: n ^ 0x5555, model: n & 63 },
  ...{ adapter: n & 7, name: ~n },
});

describe('keys', () => {
  test('of one id differ between tenants, and from those of nobody', () => {
    const keys = ['', 'acme', 'globex'].map((tenant) => keyOf('resp_1', tenant).join());
    expect(new Set(keys).size).toBe(3);
    expect(keyOf('resp_1', 'acme')).toEqual(keyOf('resp_1', 'acme'));
  });

  test('an id cannot be chosen so that it reads as another tenant’s', () => {
    const owner = ownerOf('acme');
    const forged = `${[...owner].join(' ')} resp_1`;
    expect(keyOf(forged)).not.toEqual(keyOf('resp_1', 'acme'));
  });

  test('they fill all sets', () => {
    const sets = new Set(Array.from({ length: 400 }, (_, i) => keyOf(`resp_${i}`)[0]! & 7));
    expect(sets.size).toBe(8);
  });
});

describe('the table', () => {
  test('what was kept is found, under its key alone, until it is forgotten', () => {
    const table = new StoredResponses(createStoredResponses(64), 64);
    const keeper = createKeeper();
    expect(table.find(keyOf('a'), keeper)).toBe(false);
    expect(table.keep(keyOf('a'), keeperOf(7))).toBe(Kept.fresh);
    expect(table.keep(keyOf('b'), keeperOf(8))).toBe(Kept.fresh);
    expect(table.find(keyOf('a'), keeper)).toBe(true);
    expect(keeper).toEqual(keeperOf(7));
    expect(table.find(keyOf('a', 'acme'), keeper)).toBe(false);
    table.forget(keyOf('c'));
    table.forget(keyOf('a'));
    expect(table.find(keyOf('a'), keeper)).toBe(false);
    expect(table.find(keyOf('b'), keeper)).toBe(true);
    expect(keeper).toEqual(keeperOf(8));
  });

  test('the same id once more takes the place of itself', () => {
    const table = new StoredResponses(createStoredResponses(responseWays), responseWays);
    for (let i = 0; i < responseWays; i++) table.keep(keyOf(`r${i}`), keeperOf(i));
    expect(table.keep(keyOf('r3'), keeperOf(99))).toBe(Kept.fresh);
    const keeper = createKeeper();
    for (let i = 0; i < responseWays; i++) {
      expect(table.find(keyOf(`r${i}`), keeper), `r${i}`).toBe(true);
      expect(keeper).toEqual(keeperOf(i === 3 ? 99 : i));
    }
  });

  test('a full set gives up the one used least recently; a place that was forgotten goes first', () => {
    const table = new StoredResponses(createStoredResponses(responseWays), responseWays);
    const keeper = createKeeper();
    for (let i = 0; i < responseWays; i++) table.keep(keyOf(`r${i}`), keeperOf(i));
    expect(table.find(keyOf('r0'), keeper)).toBe(true);
    expect(table.keep(keyOf('new'), keeperOf(50))).toBe(Kept.evicting);
    const known = (): string[] =>
      ['r0', 'r1', 'r2', 'r3', 'new', 'next'].filter((id) => table.find(keyOf(id), keeper));
    expect(known()).toEqual(['r0', 'r2', 'r3', 'new']);
    table.forget(keyOf('r2'));
    expect(table.keep(keyOf('next'), keeperOf(51))).toBe(Kept.fresh);
    expect(known()).toEqual(['r0', 'r3', 'new', 'next']);
  });

  test('it never holds more than it has room for, and the newest of each set are there', () => {
    const entries = 64;
    const table = new StoredResponses(createStoredResponses(entries), entries);
    const random = createPrng(seed);
    const sets = new Map<number, string[]>();
    for (let i = 0; i < 5000; i++) {
      const id = `resp_${random.next()}`;
      const set = keyOf(id)[0]! & (entries / responseWays - 1);
      table.keep(keyOf(id), keeperOf(i));
      sets.set(set, [...(sets.get(set) ?? []), id].slice(-responseWays));
    }
    for (const ids of sets.values()) {
      for (const id of ids) expect(table.find(keyOf(id), createKeeper()), id).toBe(true);
    }
  });

  test('an entry whose writer died is lost, and no other', () => {
    const region = createStoredResponses(responseWays);
    const table = new StoredResponses(region, responseWays);
    for (let i = 0; i < responseWays; i++) table.keep(keyOf(`r${i}`), keeperOf(i));
    const words = new Int32Array(region);
    const { base, stride } = StoredResponsesLayout.place(responseCounts(responseWays)).at.entry;
    words[base + 2 * stride]! += 1; // as between taking it and giving it back
    const keeper = createKeeper();
    expect(table.find(keyOf('r2'), keeper)).toBe(false);
    table.forget(keyOf('r2'));
    expect(table.keep(keyOf('r2'), keeperOf(60))).toBe(Kept.evicting);
    expect(table.find(keyOf('r2'), keeper)).toBe(true);
    expect(keeper).toEqual(keeperOf(60));
    for (let i = 0; i < 100; i++)
      expect(table.keep(keyOf(`x${i}`), keeperOf(i))).toBe(Kept.evicting);
    for (let way = 0; way < responseWays; way++) words[base + way * stride]! |= 1;
    expect(table.keep(keyOf('y'), keeperOf(1))).toBe(Kept.not);
  });

  test('a stamp that wraps is never taken for that of an unused entry', () => {
    const region = createStoredResponses(responseWays);
    const table = new StoredResponses(region, responseWays);
    table.keep(keyOf('a'), keeperOf(1));
    const words = new Int32Array(region);
    const { base, stride } = StoredResponsesLayout.place(responseCounts(responseWays)).at.entry;
    const entry = Array.from({ length: responseWays }, (_, way) => base + way * stride).find(
      (at) => words[at] !== 0,
    )!;
    words[entry] = -2;
    table.keep(keyOf('a'), keeperOf(2));
    expect(words[entry]).toBe(2);
    expect(table.find(keyOf('a'), createKeeper())).toBe(true);
  });
});

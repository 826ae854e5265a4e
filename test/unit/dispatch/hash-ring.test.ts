import { expect, test } from 'vitest';
import { NONE } from '../../../src/dispatch/candidates.ts';
import { HashRing, type RingMember } from '../../../src/dispatch/hash-ring.ts';

const membersOf = (count: number): RingMember[] =>
  Array.from({ length: count }, (_, row) => ({ row, identity: 7919 * (row + 1) }));

const keys = Array.from({ length: 30_000 }, (_, i) => [i, i ^ 0x55aa] as const);

function owners(members: readonly RingMember[]): number[] {
  const ring = new HashRing();
  ring.rebuild(members);
  return keys.map(([a, b]) => ring.rowAt(ring.locate(a, b), 0));
}

test('an empty ring owns nothing', () => {
  expect(new HashRing().locate(1, 2)).toBe(NONE);
});

test('B2-08: a replica that leaves or joins moves its share of 30,000 keys and no other', () => {
  const before = owners(membersOf(10));
  const without = owners(membersOf(10).filter(({ row }) => row !== 3));
  let moved = 0;
  before.forEach((row, i) => {
    if (row === 3) moved++;
    else expect(without[i]).toBe(row);
  });
  expect(Math.abs(moved / keys.length - 1 / 10)).toBeLessThan(0.02);
  const joined = owners(membersOf(11));
  const taken = before.filter((row, i) => row !== joined[i]).length;
  expect(joined.filter((row) => row === 10).length).toBe(taken);
  expect(Math.abs(taken / keys.length - 1 / 11)).toBeLessThan(0.02);
});

test('PB2-3: 150 points keep the shares of five replicas within a quarter of even', () => {
  const shares = [0, 0, 0, 0, 0];
  for (const row of owners(membersOf(5))) shares[row] = shares[row]! + 1;
  for (const share of shares) expect(Math.abs(share / (keys.length / 5) - 1)).toBeLessThan(0.25);
});

test('the order in which replicas are listed does not matter', () => {
  expect(owners([...membersOf(6)].reverse())).toEqual(owners(membersOf(6)));
});

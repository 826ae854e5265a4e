/** What is kept of who waits for which replicas, against a plain count. */
import { expect, test } from 'vitest';
import { Reaches } from '../../../src/dispatch/reaches.ts';
import { createPrng } from '../../../src/lib/prng.ts';

const seed = Number(process.env.SEED ?? Date.now() >>> 0);
console.info(`SEED=${seed}`);

/** Adapters 0 (none) to 4, and rows 0 to 4. */
const reachOf = (draw: number): number => draw - 5;

test('waiters come and go: who waits for any, and which reaches the others have', () => {
  const random = createPrng(seed);
  const reaches = new Reaches();
  const waiting: number[] = [];
  let most = 0;
  for (let step = 0; step < 20_000; step++) {
    // From full to empty and back, so that every reach is given up and taken again.
    const isFilling = Math.floor(step / 40) % 2 === 0;
    if (random.below(10) < (isFilling ? 7 : 3) || waiting.length === 0) {
      const reach = reachOf(random.below(10));
      waiting.push(reach);
      reaches.add(reach);
    } else reaches.remove(waiting.splice(random.below(waiting.length), 1)[0]!);
    const bound = [...new Set(waiting.filter((reach) => reach !== 0))].toSorted();
    expect(reaches.anywhere).toBe(waiting.filter((reach) => reach === 0).length);
    expect(reaches.bound.map(({ reach }) => reach).toSorted()).toEqual(bound);
    most = Math.max(most, bound.length);
    if (step % 100 > 0) continue;
    reaches.beginRecount();
    for (const reach of waiting) reaches.recount(reach);
    expect(reaches.assertRecounted()).toBe(waiting.length);
  }
  expect(most).toBe(9);
});

test.each([0, 3, -2])('a recount that differs at reach %i is told', (reach) => {
  const reaches = new Reaches();
  reaches.add(reach);
  for (const counted of [[], [reach, reach], [reach + 1]]) {
    reaches.beginRecount();
    for (const one of counted) reaches.recount(one);
    expect(() => reaches.assertRecounted()).toThrow('who waits for');
  }
  expect(() => reaches.remove(reach === 3 ? 2 : 3)).toThrow('who leaves has waited');
});

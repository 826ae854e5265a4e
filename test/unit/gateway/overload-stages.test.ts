import { expect, test } from 'vitest';
import {
  actionsOf,
  descriptorLadder,
  memoryLadder,
  overloadStages,
  rungsAfter,
  stageOf,
} from '../../../src/gateway/overload-stages.ts';
import { createPrng } from '../../../src/lib/prng.ts';

const ladders = [
  ['memory', memoryLadder],
  ['descriptors', descriptorLadder],
] as const;

test('memory: each stage begins at its share and includes those before it', () => {
  const reached = [0.5, 0.849, 0.85, 0.92, 0.95, 0.97, 5].map((share) => {
    const rungs = rungsAfter(memoryLadder, 0, share);
    return [stageOf(memoryLadder, rungs), actionsOf(memoryLadder, rungs)];
  });
  expect(reached).toEqual([
    ['none', 0],
    ['none', 0],
    ['keep_alive_off', 1],
    ['refuse_requests', 3],
    ['cut_slow_readers', 7],
    ['refuse_connections', 15],
    ['refuse_connections', 15],
  ]);
});

test('descriptors: no request is refused and nobody is cut for them', () => {
  const all = actionsOf(descriptorLadder, rungsAfter(descriptorLadder, 0, 1));
  expect([stageOf(descriptorLadder, 2), all]).toEqual(['refuse_connections', 9]);
});

test('a stage ends only some way below where it began', () => {
  let rungs = rungsAfter(memoryLadder, 0, 0.93);
  const stages = [0.91, 0.92, 0.9, 0.889, 0.91, 0.83, 0.81, 0.84].map((share) => {
    rungs = rungsAfter(memoryLadder, rungs, share);
    return stageOf(memoryLadder, rungs);
  });
  expect(stages).toEqual([
    ...['refuse_requests', 'refuse_requests', 'refuse_requests', 'keep_alive_off'],
    ...['keep_alive_off', 'keep_alive_off', 'none', 'none'],
  ]);
});

test.each(ladders)(
  '%s: shares that waver by less than the gap change a stage once',
  (_, ladder) => {
    const seed = Number(process.env.SEED ?? Date.now() % 1e9);
    const random = createPrng(seed);
    for (const { from } of ladder) {
      let rungs = 0;
      let changes = 0;
      for (let i = 0; i < 1000; i++) {
        const next = rungsAfter(ladder, rungs, from - 0.014 + random.below(28) / 1000);
        if (next !== rungs) changes++;
        rungs = next;
      }
      expect(changes, `SEED=${seed} at ${from}`).toBeLessThanOrEqual(ladder.length);
    }
  },
);

test.each(ladders)('%s: every rung has a name, and they rise', (_, ladder) => {
  const numbers = ladder.map(({ stage }) => overloadStages.indexOf(stage));
  expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
  expect(Math.min(...numbers)).toBeGreaterThan(0);
  const shares = ladder.map(({ from }) => from);
  expect(shares).toEqual([...shares].sort((a, b) => a - b));
});

import { expect, test } from 'vitest';
import { createPrng } from '../../../../src/lib/prng.ts';
import { ABSENT, BlockTable } from '../../../../src/replica/engine/block-table.ts';

const SEED = Number(process.env.SEED ?? 8128);

test('a table that is always nearly full agrees with a map', () => {
  const entries = 37;
  const table = new BlockTable(entries);
  const model = new Map<number, number>();
  const free = Array.from({ length: entries }, (_, i) => i);
  const random = createPrng(SEED);
  for (let round = 0; round < 50_000; round++) {
    const id = random.below(90) * 0x0100_0001; // up to 2^31, and ids that share their low bits
    const entry = model.get(id);
    expect(table.find(id), `SEED=${SEED}`).toBe(entry ?? ABSENT);
    if (entry !== undefined) {
      expect(table.idOf(entry)).toBe(id);
      table.remove(id);
      model.delete(id);
      free.push(entry);
    } else if (free.length > 0) {
      const taken = free.pop() ?? ABSENT;
      table.add(id, taken);
      model.set(id, taken);
    }
  }
  table.clear();
  for (const id of model.keys()) expect(table.find(id)).toBe(ABSENT);
});

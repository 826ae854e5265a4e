import { expect, test } from 'vitest';
import { SlotTimers } from '../../../src/dispatch/slot-timers.ts';
import { createPrng } from '../../../src/lib/prng.ts';

const seed = Number(process.env.SEED ?? 20_260_104);
console.info(`SEED=${seed}`);

test('the earliest timer is first under random setting and clearing', () => {
  const random = createPrng(seed);
  const timers = new SlotTimers(50);
  const model = new Map<number, number>();
  for (let step = 0; step < 20_000; step++) {
    const slot = random.below(50);
    if (model.delete(slot)) timers.clear(slot);
    else {
      const atUs = random.below(1000);
      timers.set(slot, atUs);
      model.set(slot, atUs);
    }
    const earliest = Math.min(...model.values());
    expect(timers.nextUs).toBe(earliest);
    expect(timers.length).toBe(model.size);
    expect(model.get(timers.first)).toBe(model.size > 0 ? earliest : undefined);
  }
});

test('one timer a slot: a second one is a broken invariant', () => {
  const timers = new SlotTimers(2);
  timers.set(1, 5);
  expect(() => timers.set(1, 6)).toThrow('one timer');
  expect(() => timers.clear(0)).toThrow('has a timer');
});

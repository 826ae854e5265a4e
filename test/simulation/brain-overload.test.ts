/** The brain with twice the load that its replica can take, on a virtual clock. */
import { describe, expect, test } from 'vitest';
import { createPrng, type Prng } from '../../src/lib/prng.ts';
import { BrainHarness } from '../support/brain-harness.ts';

const seed = Number(process.env.SEED ?? 20_261_129);
console.info(`SEED=${seed}`);

const places = 32;
const answerUs = 400_000;
const capacity = places / (answerUs / 1e6);
const seconds = 20;
const slots = 2048;

interface Outcome {
  /** Answers within their deadline, per second, as a share of the capacity. */
  readonly goodput: number;
  /** Requests whose place was wasted: they ran when their deadline came. */
  readonly cut: number;
  readonly waitedUsMax: number;
}

/** Arrivals at `factor` times the capacity; answers take from half to one and a half of the mean. */
function overload(factor: number, queueMax: number, deadlineMs: number): Outcome {
  const random = createPrng(seed);
  const harness = new BrainHarness({ slots, queueMax });
  harness.replica(0, { maxInFlight: places });
  const free = Array.from({ length: slots }, (_, slot) => slot);
  const deadlineUs = new Float64Array(slots);
  const endUs = new Map<number, number>();
  const stopUs = harness.nowUs + seconds * 1e6;
  let [arrivalUs, dispatched, refused, good, cut] = [harness.nowUs, 0, 0, 0, 0];
  while (harness.nowUs < stopUs) {
    const ending = earliest(endUs);
    const nextUs = Math.min(arrivalUs, ending?.[1] ?? Infinity, harness.brain.nextTimerUs);
    harness.nowUs = Math.max(harness.nowUs, nextUs);
    if (nextUs === arrivalUs) {
      const slot = free.pop()!;
      deadlineUs[slot] = arrivalUs + deadlineMs * 1000;
      harness.arrive(slot, 0, deadlineMs);
      arrivalUs += uniform(random) * ((2 * 1e6) / (factor * capacity));
    } else if (nextUs === ending?.[1]) {
      const [slot] = ending;
      endUs.delete(slot);
      if (nextUs < deadlineUs[slot]!) good++;
      else cut++;
      harness.finish(slot);
      free.push(slot);
    } else harness.brain.tick(harness.nowUs);
    for (; dispatched < harness.dispatches.length; dispatched++) {
      const { slot } = harness.dispatches[dispatched]!;
      const wholeUs = harness.nowUs + answerUs * (0.5 + uniform(random));
      endUs.set(slot, Math.min(wholeUs, deadlineUs[slot]!));
    }
    for (; refused < harness.refusals.length; refused++) free.push(harness.refusals[refused]!.slot);
  }
  const waitedUsMax = Math.max(...harness.dispatches.map(({ heldUs }) => heldUs));
  return { goodput: good / seconds / capacity, cut, waitedUsMax };
}

const uniform = (random: Prng): number => random.next() / 2 ** 32;

function earliest(times: ReadonlyMap<number, number>): [slot: number, us: number] | undefined {
  let first: [number, number] | undefined;
  for (const entry of times) if (first === undefined || entry[1] < first[1]) first = entry;
  return first;
}

describe('no collapse', () => {
  test.each([1.3, 2, 4])(
    'at %d times capacity a queue longer than deadlines wastes no place',
    (factor) => {
      const { goodput, cut, waitedUsMax } = overload(factor, 1000, 2000);
      expect(goodput).toBeGreaterThan(0.9);
      expect(cut).toBe(0);
      expect(waitedUsMax).toBeLessThanOrEqual(1_000_000);
    },
  );

  test('a short queue keeps the wait short as well', () => {
    const { goodput, waitedUsMax } = overload(4, 16, 2000);
    expect(goodput).toBeGreaterThan(0.9);
    expect(waitedUsMax).toBeLessThan(700_000);
  });
});

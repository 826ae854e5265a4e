/** The limits of tenants against a bucket that counts every unit, over random traffic. */
import { expect, test } from 'vitest';
import { Admission, LimitKind, type LimitRows } from '../../src/dispatch/limit-rows.ts';
import { Limits } from '../../src/dispatch/limits.ts';
import { createPrng } from '../../src/lib/prng.ts';
import { LimitsLayout } from '../../src/shm/limits.layout.ts';

const seed = Number(process.env.SEED ?? Date.now() % 1e9) >>> 0;
console.info(`SEED=${seed}`);
const of = (slot: number, limitRow: number, limitModelRow = -1) => ({
  ...{ slot, limitRow, limitModelRow },
});

/** Takes it, or takes nothing. */
const admits = (limits: Limits, ...request: Parameters<Limits['admit']>): boolean =>
  limits.admit(...request) === Admission.admitted;

function rowsFor(count: number): LimitRows {
  const region = LimitsLayout.create({ row: count });
  const { row: place } = LimitsLayout.place({ row: count }).at;
  return {
    count,
    words: new Int32Array(region),
    doubles: new Float64Array(region),
    word: (row) => place.base + row * place.stride,
    at: place.at,
  };
}

function set(
  rows: LimitRows,
  row: number,
  limits: Partial<Record<keyof LimitRows['at'], number>>,
): void {
  for (const [name, value] of Object.entries(limits)) {
    const at = rows.word(row) + rows.at[name as keyof LimitRows['at']];
    if (name === 'concurrency' || name === 'owner') rows.words[at] = value;
    else rows.doubles[at >> 1] = value;
  }
}

test('requests: as a bucket that is filled drop by drop, over 10,000 requests at three times the rate', () => {
  const random = createPrng(seed);
  for (let round = 0; round < 20; round++) {
    const perSecond = 1 + random.below(200);
    const burst = 1 + random.below(100);
    const rows = rowsFor(1);
    set(rows, 0, { requestRate: perSecond, requestBurst: burst });
    const limits = new Limits(rows, 1);
    let level = burst;
    let [now, last] = [1e6, 1e6];
    for (let i = 0; i < 10_000; i++) {
      now += Math.ceil((-Math.log(1 - random.next() / 2 ** 32) * 1e6) / (3 * perSecond));
      level = Math.min(burst, level + ((now - last) / 1e6) * perSecond);
      last = now;
      // Within a unit of the last place of the drop that is just there both answers are right.
      if (Math.abs(level - 1) < 1e-6) level = 1;
      const isIn = admits(limits, of(0, 0), 0, 0, now);
      if (Math.abs(level - 1) >= 1e-6)
        expect(isIn, `round ${round}, request ${i}`).toBe(level >= 1);
      if (isIn) {
        level -= 1;
        limits.close(0, true, now);
      } else {
        expect(limits.kind).toBe(LimitKind.requests);
        expect(limits.waitUs).toBeCloseTo(((1 - level) / perSecond) * 1e6, 0);
      }
    }
  }
});

test('tokens: what was not used comes back, what was not foreseen is taken, never more than full', () => {
  const random = createPrng(seed ^ 0x5bd1e995);
  const rows = rowsFor(2);
  const [rate, burst] = [1000, 5000];
  set(rows, 0, { inputRate: rate, inputBurst: burst, outputRate: rate, outputBurst: burst });
  set(rows, 1, { outputRate: rate / 2, outputBurst: burst });
  const slots = 64;
  const limits = new Limits(rows, slots);
  const running = new Map<number, { input: number; output: number }>();
  let now = 1e6;
  const used = { input: 0, output: 0 };
  for (let i = 0; i < 20_000; i++) {
    now += random.below(200_000);
    const slot = random.below(slots);
    const before = running.get(slot);
    if (before !== undefined) {
      const isUnknown = random.below(10) === 0;
      const input = isUnknown ? -1 : random.below(400);
      const output = isUnknown ? -1 : random.below(600);
      limits.began(slot);
      limits.used(slot, input, output);
      limits.close(slot, true, now);
      used.input += isUnknown ? before.input : input;
      used.output += isUnknown ? before.output : output;
      running.delete(slot);
    } else {
      const [input, output] = [random.below(300), random.below(500)];
      if (admits(limits, of(slot, 0, 1), input, output, now)) running.set(slot, { input, output });
    }
    expect(rows.words[rows.word(0) + rows.at.running]).toBe(running.size);
  }
  for (const slot of running.keys()) limits.close(slot, true, now);
  const seconds = (now - 1e6) / 1e6;
  // What was foreseen too low may go beyond it once, by what was running.
  expect(used.output).toBeLessThanOrEqual((rate / 2) * seconds + burst + slots * 600);
  expect(used.output).toBeGreaterThan((rate / 2) * seconds * 0.9);
  expect(used.input).toBeLessThanOrEqual(rate * seconds + burst + slots * 400);
});

test('a request that finds one limit used up takes of none', () => {
  const rows = rowsFor(2);
  set(rows, 0, { requestRate: 1, requestBurst: 2, concurrency: 5 });
  set(rows, 1, { inputRate: 1, inputBurst: 10 });
  const limits = new Limits(rows, 8);
  expect(admits(limits, of(0, 0, 1), 10, 0, 1000)).toBe(true);
  expect(admits(limits, of(1, 0, 1), 1, 0, 1000)).toBe(false);
  expect([limits.kind, Math.round(limits.waitUs)]).toEqual([LimitKind.input, 1e6]);
  expect(admits(limits, of(2, 0), 1, 0, 1000)).toBe(true);
  expect(admits(limits, of(3, 0), 1, 0, 1000)).toBe(false);
  expect(limits.kind).toBe(LimitKind.requests);
});

test('so many at one time, and each once', () => {
  const rows = rowsFor(1);
  set(rows, 0, { concurrency: 2 });
  const limits = new Limits(rows, 8);
  expect([0, 1, 2].map((slot) => admits(limits, of(slot, 0), 1, 1, 1))).toEqual([
    true,
    true,
    false,
  ]);
  expect(limits.kind).toBe(LimitKind.concurrency);
  limits.close(0, true, 2);
  limits.close(0, true, 2);
  expect([2, 3].map((slot) => admits(limits, of(slot, 0), 1, 1, 1))).toEqual([true, false]);
});

test('what is larger than the bucket passes a full one, and is paid off', () => {
  const rows = rowsFor(1);
  set(rows, 0, { inputRate: 10, inputBurst: 100 });
  const limits = new Limits(rows, 8);
  expect(admits(limits, of(0, 0), 500, 0, 0)).toBe(true);
  expect(admits(limits, of(1, 0), 1, 0, 0)).toBe(false);
  expect(limits.waitUs).toBeCloseTo(40.1e6, 0);
});

test('a row with another owner has full buckets, and what the last one runs is not its own', () => {
  const rows = rowsFor(1);
  set(rows, 0, { requestRate: 1, requestBurst: 1, concurrency: 1 });
  const limits = new Limits(rows, 8);
  expect(admits(limits, of(0, 0), 0, 0, 1)).toBe(true);
  set(rows, 0, { owner: 1 });
  expect(admits(limits, of(1, 0), 0, 0, 1)).toBe(true);
  limits.close(0, true, 1);
  expect(rows.words[rows.word(0) + rows.at.running]).toBe(1);
});

test('a row that changes hands at any time: each owner has what it allows, whoever ends when', () => {
  const random = createPrng(seed);
  const rows = rowsFor(1);
  const allowed = { requestBurst: 40, inputBurst: 300, outputBurst: 200, concurrency: 12 };
  // Nothing runs in, and a unit is a power of two microseconds: sums are exact.
  const rate = 1e6 / 2 ** 40;
  const rates = { requestRate: rate, inputRate: rate, outputRate: rate };
  set(rows, 0, { ...allowed, ...rates });
  const limits = new Limits(rows, 64);
  const free = Array.from({ length: 64 }, (_, slot) => slot);
  type Run = { slot: number; owner: number; input: number; output: number };
  const running: Run[] = [];
  const none = { requests: 0, input: 0, output: 0 };
  /** Of the owner that the row has. */
  let taken = { ...none };
  let late = 0;
  let owner = 0;
  for (let step = 0; step < 20_000; step++) {
    const draw = random.below(100);
    if (draw < 2) {
      set(rows, 0, { owner: ++owner });
      taken = { ...none };
    } else if (draw < 55 && free.length > 0) {
      const slot = free.pop()!;
      const [input, output] = [random.below(20), random.below(20)];
      const own = running.filter((run) => run.owner === owner).length;
      const fits =
        own < allowed.concurrency &&
        taken.requests + 1 <= allowed.requestBurst &&
        taken.input + input <= allowed.inputBurst &&
        taken.output + output <= allowed.outputBurst;
      expect(admits(limits, of(slot, 0), input, output, 1), `step ${step}`).toBe(fits);
      if (!fits) free.push(slot);
      else {
        running.push({ slot, owner, input, output });
        taken.requests++;
        taken.input += input;
        taken.output += output;
      }
    } else if (running.length > 0) {
      const [run] = running.splice(random.below(running.length), 1);
      const { slot, input, output } = run!;
      const [usedInput, usedOutput] = [random.below(input + 3), random.below(output + 3)];
      const isAsked = random.below(4) > 0;
      if (isAsked) {
        limits.began(slot);
        limits.used(slot, usedInput, usedOutput);
      }
      limits.close(slot, isAsked, 1);
      free.push(slot);
      if (run!.owner !== owner) {
        late++;
        continue;
      }
      taken.requests -= isAsked ? 0 : 1;
      taken.input -= input - (isAsked ? usedInput : 0);
      taken.output -= output - (isAsked ? usedOutput : 0);
    }
    const running0 = rows.words[rows.word(0) + rows.at.running];
    const isClaimed = rows.words[rows.word(0) + rows.at.usedBy] === owner;
    if (isClaimed) expect(running0).toBe(running.filter((run) => run.owner === owner).length);
  }
  expect(late).toBeGreaterThan(100);
});

test('what was set aside for output is no more than the bucket, and settled as it came', () => {
  const rows = rowsFor(1);
  set(rows, 0, { outputRate: 10, outputBurst: 100 });
  const limits = new Limits(rows, 8);
  expect(admits(limits, of(0, 0), 0, 2 ** 31 - 1, 0)).toBe(true);
  expect(admits(limits, of(1, 0), 0, 1, 0)).toBe(false);
  expect(limits.waitUs).toBeCloseTo(100_000, 0);
  limits.began(0);
  limits.used(0, 5, 30);
  limits.close(0, true, 0);
  expect(admits(limits, of(1, 0), 0, 69, 0)).toBe(true);
  expect(admits(limits, of(2, 0), 0, 2, 0)).toBe(false);
});

test('an answer that never began gives all back, and without a replica the request itself', () => {
  const rows = rowsFor(1);
  const bucket = { requestRate: 1, requestBurst: 2, outputRate: 1, outputBurst: 100 };
  set(rows, 0, bucket);
  const limits = new Limits(rows, 8);
  for (let i = 0; i < 20; i++) {
    expect(admits(limits, of(0, 0), 0, 100, 0), `try ${i}`).toBe(true);
    limits.close(0, false, 0);
  }
  expect(admits(limits, of(0, 0), 0, 100, 0)).toBe(true);
  limits.used(0, -1, -1); // an error of the replica
  limits.close(0, true, 0);
  expect(admits(limits, of(0, 0), 0, 100, 0)).toBe(true);
  limits.began(0);
  limits.used(0, -1, -1); // nobody has counted what the client got
  limits.close(0, true, 0);
  expect(admits(limits, of(0, 0), 0, 100, 0)).toBe(false);
  expect([limits.kind, limits.waitUs]).toEqual([LimitKind.output, 100e6]);
});

test('parts of an answer are summed up, and what became of a lost one stays taken', () => {
  const rows = rowsFor(1);
  set(rows, 0, { inputRate: 1, inputBurst: 100, outputRate: 1, outputBurst: 100 });
  const limits = new Limits(rows, 8);
  expect(admits(limits, of(0, 0), 10, 100, 0)).toBe(true);
  limits.began(0);
  limits.used(0, 10, 20);
  limits.used(0, -1, 30);
  limits.close(0, true, 0);
  expect(admits(limits, of(0, 0), 90, 50, 0)).toBe(true);
  limits.lose(0);
  limits.close(0, true, 0);
  expect(admits(limits, of(0, 0), 1, 0, 0)).toBe(false);
});

test('of several that are short the longest wait is told', () => {
  const rows = rowsFor(2);
  set(rows, 0, { requestRate: 1, requestBurst: 1, concurrency: 1 });
  set(rows, 1, { outputRate: 1, outputBurst: 50 });
  const limits = new Limits(rows, 8);
  expect(admits(limits, of(0, 0, 1), 0, 50, 0)).toBe(true);
  expect(admits(limits, of(1, 0, 1), 0, 50, 0)).toBe(false);
  expect([limits.kind, limits.waitUs]).toEqual([LimitKind.output, 50e6]);
});

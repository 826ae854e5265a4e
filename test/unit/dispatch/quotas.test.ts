/** What requests take of the limits of their tenant and what is left taken of it, however they end. */
import { expect, test } from 'vitest';
import { Ended, RetryRule, Verdict } from '../../../src/dispatch/decisions.ts';
import type { LimitRows } from '../../../src/dispatch/limit-rows.ts';
import { errors } from '../../../src/errors/catalogue.ts';
import { carried, remaining } from '../../../src/lib/gcra.ts';
import { LimitsLayout } from '../../../src/shm/limits.layout.ts';
import { BrainHarness } from '../../support/brain-harness.ts';

const burst = 6000;
const perSecond = burst / 60;

/** Rows of 6000 output and 6000 prompt tokens a minute. */
function scene(count = 2) {
  const region = LimitsLayout.create({ row: count });
  const { row: place } = LimitsLayout.place({ row: count }).at;
  const word = (row: number): number => place.base + row * place.stride;
  const { at } = place;
  const rows: LimitRows = {
    ...{ count, word, at, words: new Int32Array(region), doubles: new Float64Array(region) },
  };
  const double = (row: number, field: number): number => (word(row) + field) >> 1;
  const setRate = (row: number, rate: number): void => {
    for (const field of [at.inputRate, at.outputRate]) rows.doubles[double(row, field)] = rate;
    for (const field of [at.inputBurst, at.outputBurst]) {
      rows.doubles[double(row, field)] = rate * 60;
    }
  };
  for (let row = 0; row < count; row++) {
    rows.words[word(row) + at.owner] = 1;
    setRate(row, perSecond);
  }
  const harness = new BrainHarness({ limits: rows });
  harness.replica(0);
  const left = (rate: number, full: number, tat: number, tatRate: number, row: number): number => {
    const read = (field: number): number => rows.doubles[double(row, field)]!;
    const perUs = read(rate) / 1e6;
    const now = harness.nowUs;
    return Math.round(
      remaining(carried(read(tat), now, read(tatRate), perUs), now, perUs, read(full)),
    );
  };
  return {
    harness,
    setRate,
    /** As a limit that is not set is written: there is room for one, and nothing is counted. */
    countNoOutput: (row: number): void => {
      rows.doubles[double(row, at.outputRate)] = 0;
      rows.doubles[double(row, at.outputBurst)] = 1;
    },
    arrive: (slot: number, maxTokens: number, more: object = {}) =>
      harness.arrive(slot, 0, 600_000, { limitRow: 0, maxTokens, ...more }),
    output: (row = 0) => left(at.outputRate, at.outputBurst, at.outputTat, at.outputTatRate, row),
    input: (row = 0) => left(at.inputRate, at.inputBurst, at.inputTat, at.inputTatRate, row),
  };
}
const ends = { settled: true, verdict: Verdict.none } as const;

test('a stream whose forwarder died keeps what it took, for nobody has counted it', () => {
  const { harness, arrive, output, input } = scene();
  arrive(0, 5500, { promptTokens: 100 });
  harness.firstToken(0);
  harness.finish(0, { ...ends, ended: Ended.lost });
  expect([output(), input()]).toEqual([burst - 5500, burst - 100]);
});

test('what the dead forwarder had counted is what it used', () => {
  const { harness, arrive, output, input } = scene();
  arrive(0, 5500, { promptTokens: 100 });
  harness.firstToken(0);
  harness.finish(0, { ...ends, ended: Ended.lost, promptTokens: 90, completionTokens: 5000 });
  expect([output(), input()]).toEqual([burst - 5000, burst - 90]);
});

test('of a stream that was to go on and is lost in between nothing comes back', () => {
  const { harness, arrive, output } = scene();
  arrive(0, 5500);
  harness.firstToken(0);
  harness.fail(0, undefined, undefined, { ended: Ended.lost, continues: true });
  harness.finish(0, { promptTokens: 10, completionTokens: 10, continues: true });
  expect(output()).toBe(burst - 5500);
});

test('who leaves an answer in one piece is charged for the time it was made in', () => {
  const { harness, arrive, output, input } = scene();
  const leavesAfter = (ms: number): number => {
    const before = output();
    arrive(0, 5900 / 2, { streams: false, promptTokens: 50 });
    harness.advance(ms);
    harness.cancel(0);
    harness.finish(0, { ...ends, ended: Ended.left });
    return before - output() + Math.round((ms / 1000) * perSecond);
  };
  // The bucket of output was full and does not fill meanwhile.
  arrive(1, 1000);
  expect(leavesAfter(20)).toBe(20);
  expect(leavesAfter(700)).toBe(700);
  expect(input()).toBeLessThan(burst);
  expect(leavesAfter(9_000), 'no more than was set aside').toBe(5900 / 2);
});

test('a stream that was left before its first token has used its prompt alone', () => {
  const { harness, arrive, output, input } = scene();
  arrive(0, 5500, { promptTokens: 100 });
  harness.advance(0.001);
  harness.cancel(0);
  harness.finish(0, { ...ends, ended: Ended.left });
  expect([output(), input()]).toEqual([burst, burst - 100]);
});

test('an answer cut by the deadline of its client is charged, though the scheduler ends the request', () => {
  const { harness, output, input } = scene();
  const cutAfter = (ms: number, streams: boolean): void => {
    const more = { limitRow: 0, maxTokens: 5500, promptTokens: 100, streams };
    harness.arrive(0, 0, ms, more);
    harness.advance(ms);
    const { never } = RetryRule;
    const { number } = errors.DEADLINE;
    harness.fail(0, never, number, { verdict: Verdict.none, ended: Ended.left });
    expect(harness.running.size).toBe(0);
  };
  cutAfter(4, true);
  expect([output(), input()]).toEqual([burst, burst - 100]);
  harness.advance(1000);
  cutAfter(2000, false);
  expect(output()).toBe(burst - 2000 + 2 * perSecond);
});

test('what another request of its slot took does not bound what one is charged that left', () => {
  const { harness, arrive, output } = scene();
  arrive(0, 5900, { limitModelRow: 1 });
  harness.finish(0, { promptTokens: 1, completionTokens: 1 });
  harness.advance(60_000);
  arrive(0, 10, { streams: false });
  harness.advance(5000);
  harness.cancel(0);
  harness.finish(0, { ...ends, ended: Ended.left });
  expect(output(), 'the ten it took came back meanwhile').toBe(burst);
});

test('an attempt that ended by our fault before its answer has used nothing', () => {
  const { harness, arrive, output, input } = scene();
  arrive(0, 5500, { promptTokens: 100, streams: false });
  harness.finish(0, ends);
  expect([output(), input()]).toEqual([burst, burst]);
});

test('long answers of one tenant set nothing aside for another', () => {
  const { harness, arrive, output } = scene();
  for (let i = 0; i < 20; i++) {
    arrive(0, 100_000, { limitRow: -1 });
    harness.finish(0, { promptTokens: 10, completionTokens: 100_000 });
    harness.advance(1_000_000);
    arrive(0, 100_000, { limitRow: 1 });
    harness.finish(0, { promptTokens: 10, completionTokens: 100_000 });
  }
  for (let slot = 0; slot < 10; slot++) arrive(slot, 0);
  expect(harness.running.size).toBe(10);
  expect(output()).toBe(burst - 10 * 256);
});

test('a tenant cannot teach that its next answers are short, and long ones are set aside at once', () => {
  const { harness, arrive, output } = scene();
  for (let i = 0; i < 200; i++) {
    arrive(0, 1, { streams: false });
    harness.finish(0, { promptTokens: 10, completionTokens: 1 });
    harness.advance(600);
  }
  const before = output();
  for (let slot = 0; slot < 60; slot++) arrive(slot, 0, { streams: false });
  expect(harness.running.size).toBe(Math.floor(before / 256));
  for (const slot of harness.running.keys()) {
    harness.finish(slot, { promptTokens: 10, completionTokens: 5000 });
  }
  harness.advance(24 * 3_600_000);
  for (let slot = 0; slot < 60; slot++) arrive(slot, 0, { streams: false });
  expect(harness.running.size).toBe(1);
});

test.each([
  ['nobody with limits', { limitRow: -1 }],
  ['another tenant', { limitRow: 1 }],
])('answers of %s teach nothing of those of who had the slot before', (_, whose) => {
  const { harness, arrive, output } = scene();
  arrive(0, 0);
  harness.finish(0, { promptTokens: 10, completionTokens: 256 });
  for (let i = 0; i < 20; i++) {
    arrive(0, 1, whose);
    harness.finish(0, { promptTokens: 10, completionTokens: 5000 });
    harness.advance(60_000);
  }
  arrive(0, 0);
  expect(output()).toBe(burst - 256);
});

test('a row that does not count output learns how long its answers are all the same', () => {
  const { harness, arrive, output, countNoOutput } = scene();
  countNoOutput(1);
  for (let i = 0; i < 30; i++) {
    arrive(0, 0, { limitModelRow: 1 });
    harness.finish(0, { promptTokens: 10, completionTokens: 3000 });
    harness.advance(60_000);
  }
  arrive(0, 0, { limitModelRow: 1 });
  expect(output()).toBeLessThanOrEqual(burst - 2990);
});

test('an answer longer than the bucket that counts it is as one that fills it', () => {
  const { harness, arrive, output, countNoOutput } = scene();
  countNoOutput(1);
  arrive(0, 0, { limitModelRow: 1 });
  harness.finish(0, { promptTokens: 10, completionTokens: 40 * burst });
  harness.advance(3_600_000);
  arrive(0, 0, { limitModelRow: 1 });
  expect(output()).toBe(burst - (256 + burst) / 2);
});

test('where a model reads no text none is taken', () => {
  const { harness, arrive, input } = scene();
  arrive(0, 0, { textBytes: 0, generates: false });
  expect(input()).toBe(burst);
  harness.finish(0);
  arrive(0, 0, { textBytes: 1, generates: false });
  expect(input()).toBe(burst - 1);
});

test('the prompts of one tenant teach nothing of those of another', () => {
  const { harness, arrive, input } = scene();
  for (let i = 0; i < 50; i++) {
    arrive(0, 1, { limitRow: 1, textBytes: 4000 });
    harness.finish(0, { promptTokens: 4000, completionTokens: 1 });
    harness.advance(60_000);
  }
  arrive(0, 1, { textBytes: 400 });
  expect(input()).toBe(burst - 100);
  arrive(1, 1, { limitRow: 1, textBytes: 400 });
  expect(input(1)).toBe(burst - 400);
});

test.each([
  ['raised', 6_000_000],
  ['lowered', 600],
])('a limit that is %s while a request runs: what was taken is what comes back', (_, perMinute) => {
  const { harness, arrive, output, setRate } = scene();
  arrive(0, 500);
  setRate(0, perMinute / 60);
  expect(output(), 'shown').toBe(perMinute - 500);
  harness.firstToken(0);
  harness.finish(0, { promptTokens: 10, completionTokens: 100 });
  expect(output()).toBe(perMinute - 100);
});

test('as many choices as a column can hold take a full bucket, not less than nothing', () => {
  const { arrive, output } = scene();
  arrive(0, 2 ** 31 - 1, { choices: 2 ** 31 - 1 });
  expect(output()).toBe(0);
});

test('a request that would give is a defect', () => {
  const { arrive } = scene();
  expect(() => arrive(0, 10, { choices: -2 })).toThrow('takes');
});

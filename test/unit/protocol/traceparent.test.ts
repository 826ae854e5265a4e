import { expect, test } from 'vitest';
import {
  isChosen,
  isSampled,
  newSpanId,
  newTraceId,
  parseTraceparent,
  traceparentOf,
  unsampledTraceparent,
} from '../../../src/protocol/traceparent.ts';

const trace = '0af7651916cd43dd8448eb211c80319c';
const span = 'b7ad6b7169203331';

test.each([
  [`00-${trace}-${span}-01`, true],
  [`01-${trace}-${span}-01-more`, true],
  [`00-${trace}-${span}-01-more`, false],
  [`ff-${trace}-${span}-01`, false],
  [`00-${'0'.repeat(32)}-${span}-01`, false],
  [`00-${trace}-${'0'.repeat(16)}-01`, false],
  [`00-${trace.toUpperCase()}-${span}-01`, false],
  [`00-${trace}-${span}-0`, false],
  [`01-${trace}-${span}-01-${'x'.repeat(300)}`, false],
  ['', false],
])('traceparent %s', (value, expected) => {
  expect(parseTraceparent(value) !== undefined).toBe(expected);
});

test('what is read is written again as version 00, with the flags that are known', () => {
  const parsed = parseTraceparent(`01-${trace}-${span}-ff-more`);
  expect(parsed).toEqual({ traceId: trace, spanId: span, flags: 3 });
  expect(parsed && traceparentOf(parsed)).toBe(`00-${trace}-${span}-03`);
  expect(parsed && isSampled(parsed)).toBe(true);
  const not = parseTraceparent(`00-${trace}-${span}-02`);
  expect(not && isSampled(not)).toBe(false);
});

test('ids are new each time, of the right form and never zero', () => {
  const made = Array.from({ length: 3000 }, () => ({
    ...{ traceId: newTraceId(), spanId: newSpanId(), flags: 1 },
  }));
  expect(new Set(made.map(({ traceId }) => traceId)).size).toBe(3000);
  expect(new Set(made.map(({ spanId }) => spanId)).size).toBe(3000);
  for (const each of made) expect(parseTraceparent(traceparentOf(each))).toEqual(each);
  const others = Array.from({ length: 3000 }, () => parseTraceparent(unsampledTraceparent()));
  expect(new Set(others.map((each) => each?.traceId)).size).toBe(3000);
  for (const each of others) expect(each?.flags).toBe(0);
  const spans = new Set(Array.from({ length: 3000 }, newSpanId));
  expect(spans.size).toBe(3000);
  for (const id of spans) expect(id).toMatch(/^[1-9a-f][0-9a-f]{15}$/);
});

test('the share of trace ids that is taken is the one asked for', () => {
  const ids = Array.from({ length: 20_000 }, newTraceId);
  const taken = (ratio: number): number => ids.filter((id) => isChosen(id, ratio)).length;
  expect(taken(0)).toBe(0);
  expect(taken(1)).toBe(20_000);
  // Six standard deviations.
  expect(Math.abs(taken(0.1) - 2000)).toBeLessThan(260);
  // Who takes more takes the same ones and others.
  expect(ids.filter((id) => isChosen(id, 0.1) && !isChosen(id, 0.2))).toEqual([]);
});

test('the choice is that of a sampler by probability: the last 56 bits against a threshold', () => {
  const half = (bits: string): boolean => isChosen(`${'f'.repeat(18)}${bits}`, 0.5);
  expect(half('80000000000000')).toBe(true);
  expect(half('7fffffffffffff')).toBe(false);
});

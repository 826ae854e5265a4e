import { expect, test } from 'vitest';
import { FaultRules } from '../../../src/replica/fault-rules.ts';
import {
  FAULT_NAMES,
  type FaultPlan,
  readFaults,
  readFaultTags,
} from '../../../src/replica/faults.ts';
import { SSE_VARIANTS } from '../../../src/replica/sse-variants.ts';

test('several faults are read from one text', () => {
  const plan: FaultPlan = {};
  expect(readFaults('reset-after=3; mid-event, framing=close', plan)).toBeUndefined();
  expect(plan).toEqual({ cut: { kind: 'reset', at: 3 }, midEvent: true, framing: 'close' });
});

test.each(['', 'nonsense', 'status', 'status=abc', 'status=99', 'mid-event=1', 'framing=none'])(
  'the fault %j is refused by name',
  (text) => {
    expect(readFaults(text, {})).toMatch(/fault/);
  },
);

test('a prototype name is no fault', () => {
  expect(readFaults('constructor=1', {})).toMatch(/unknown fault/);
  expect(FAULT_NAMES).not.toContain('constructor');
});

test('a tag with a name is for that replica only', () => {
  const prompt = 'x [[fault@r1:status=500]] y [[fault:delay=5]]';
  const first: FaultPlan = {};
  const second: FaultPlan = {};
  expect(readFaultTags(prompt, 'r1', first)).toBeUndefined();
  expect(readFaultTags(prompt, 'r2', second)).toBeUndefined();
  expect(first).toEqual({ status: 500, delayMs: 5 });
  expect(second).toEqual({ delayMs: 5 });
});

function applied(rule: object, requests: number): number[] {
  const rules = new FaultRules();
  expect(rules.replace([rule])).toBeUndefined();
  const hits: number[] = [];
  for (let i = 0; i < requests; i++) if (rules.apply('generate', `id${i}`, '', {})) hits.push(i);
  return hits;
}

test('rules count, skip and choose', () => {
  expect(applied({ fault: 'status=500', every: 3 }, 9)).toEqual([2, 5, 8]);
  expect(applied({ fault: 'status=500', skip: 4, count: 2 }, 9)).toEqual([4, 5]);
  expect(applied({ fault: 'status=500', id: 'id6' }, 9)).toEqual([6]);
  expect(applied({ fault: 'status=500', on: 'health' }, 9)).toEqual([]);
});

test('a probability is kept, and its seed repeats it', () => {
  const rule = { fault: 'status=500', probability: 0.3, seed: 7 };
  const hits = applied(rule, 10_000);
  expect(hits.length).toBeGreaterThan(2800);
  expect(hits.length).toBeLessThan(3200);
  expect(applied(rule, 10_000)).toEqual(hits);
});

test('a wrong rule changes nothing', () => {
  const rules = new FaultRules();
  rules.replace([{ fault: 'status=500' }]);
  for (const wrong of [
    null,
    {},
    { fault: 'x' },
    { fault: 'delay=1', evry: 2 },
    { fault: 'delay=1', every: 0 },
  ]) {
    expect(rules.replace([wrong])).toEqual(expect.any(String));
  }
  const plan: FaultPlan = {};
  expect(rules.apply('generate', '', '', plan)).toBe(true);
  expect(plan.status).toBe(500);
});

test('every variant of an event stream changes it', () => {
  const events = ['{"a":1}', '{"finish_reason":"stop"}'].map((data) => `data: ${data}\n\n`);
  events.push('data: [DONE]\n\n');
  for (const [name, variant] of Object.entries(SSE_VARIANTS)) {
    expect(variant.apply(events, 1).join(''), name).not.toBe(events.join(''));
  }
  expect(Object.keys(SSE_VARIANTS).length).toBeGreaterThanOrEqual(30);
});

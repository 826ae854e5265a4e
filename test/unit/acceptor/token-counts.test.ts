/** Questions to the tokenizer pool: bounded, in time, and each answered once. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { TokenCounts } from '../../../src/acceptor/token-counts.ts';
import { createMetricsRegion } from '../../../src/shm/metrics.layout.ts';
import { MetricsReader, MetricsWriter } from '../../../src/shm/metrics.ts';
import type { FromThread } from '../../../src/shm/threads.ts';
import type { TokenAnswer, TokenTask } from '../../../src/shm/token-tasks.ts';
import { metrics } from '../../../src/telemetry/catalogue.ts';
import { defaultMetricDims, TokenCount } from '../../../src/telemetry/labels.ts';

const timeoutMs = 1000;
const task: Omit<TokenTask, 'deadlineMs'> = {
  want: 'count',
  shape: 'openai-chat',
  ...{ model: 0, start: 0, length: 2, room: 9, maxContext: 0 },
};
const seven: TokenAnswer = { kind: 'count', tokens: 7, isWhole: true };
const none = (reason: string) => ({ kind: 'none', reason });

let posted: FromThread[];
let heard: TokenAnswer[];
let counts: TokenCounts;
let region: SharedArrayBuffer;

beforeEach(() => {
  vi.useFakeTimers();
  posted = [];
  heard = [];
  region = createMetricsRegion(defaultMetricDims);
  const writer = new MetricsWriter(region, defaultMetricDims);
  const post = (message: FromThread): number => posted.push(message);
  counts = new TokenCounts({ askedMax: 2, timeoutMs }, writer, post);
});
afterEach(() => {
  vi.useRealTimers();
});

const ask = (): void => counts.ask(task, (answer) => heard.push(answer));
const ticketOf = (index: number): number => {
  const message = posted[index];
  if (message?.kind !== 'count') throw new Error('nothing was asked');
  return message.ticket;
};
const counted = (outcome: keyof typeof TokenCount): number =>
  new MetricsReader(defaultMetricDims, [region])
    .snapshot()
    .counter(metrics.tokenCounts, TokenCount[outcome]);

test('one more than may be open is busy at once, without a message', () => {
  ask();
  ask();
  ask();
  expect(heard).toEqual([none('busy')]);
  expect(posted).toHaveLength(2);
  counts.answer(ticketOf(0), seven);
  ask();
  expect(posted).toHaveLength(3);
  expect(counted('busy')).toBe(1);
});

test('who hears nothing is told when the time is over, and not again by a late answer', () => {
  ask();
  vi.advanceTimersByTime(timeoutMs - 1);
  expect(heard).toEqual([]);
  vi.advanceTimersByTime(1);
  expect(heard).toEqual([none('late')]);
  counts.answer(ticketOf(0), seven);
  expect(heard).toHaveLength(1);
  expect([counted('late'), counted('counted')]).toEqual([1, 0]);
});

test('an answer is given once, and its clock stands still', () => {
  ask();
  counts.answer(ticketOf(0), seven);
  counts.answer(ticketOf(0), seven);
  vi.advanceTimersByTime(2 * timeoutMs);
  expect(heard).toEqual([seven]);
  expect([counted('late'), counted('counted')]).toEqual([0, 1]);
});

test('an answer to nobody is no harm', () => {
  counts.answer(99, seven);
  expect(heard).toEqual([]);
});

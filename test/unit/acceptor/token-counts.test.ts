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
  counts = new TokenCounts({ askedMax: 4, postedMax: 2, timeoutMs }, writer, post);
});
afterEach(() => {
  vi.useRealTimers();
});

const ask = (tenant = 0, want: TokenTask['want'] = 'count', to = heard): void =>
  counts.ask(tenant, { ...task, want }, (answer) => to.push(answer));
const postedOf = (): string[] =>
  posted.flatMap((message) => (message.kind === 'count' ? message.task.want : []));
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
  for (let i = 0; i < 5; i++) ask();
  expect(heard).toEqual([none('busy')]);
  expect(posted).toHaveLength(2);
  counts.answer(ticketOf(0), seven);
  ask();
  expect(heard).toHaveLength(2);
  expect(posted).toHaveLength(3);
  expect(counted('busy')).toBe(1);
});

test('who floods it loses only its own questions, and waits for nobody else to wait', () => {
  const other: TokenAnswer[] = [];
  for (let i = 0; i < 10; i++) ask(7);
  expect(heard).toHaveLength(6);
  ask(8, 'count', other);
  vi.advanceTimersByTime(0);
  expect(heard).toHaveLength(7);
  expect(other).toEqual([]);
  // The one that waited first is next, then they take turns.
  counts.answer(ticketOf(0), seven);
  counts.answer(ticketOf(1), seven);
  counts.answer(ticketOf(3), seven);
  expect(other).toEqual([seven]);
  expect(posted).toHaveLength(4);
});

test('counts for limits come before answers of ours, and take their place', () => {
  const answers: TokenAnswer[] = [];
  for (const want of ['tokenize', 'count_tokens', 'tokenize', 'tokenize'] as const)
    ask(7, want, answers);
  ask(7);
  ask(7);
  expect(answers).toEqual([]);
  vi.advanceTimersByTime(0);
  expect(answers).toEqual([none('busy'), none('busy')]);
  expect(postedOf()).toEqual(['tokenize', 'count_tokens']);
  counts.answer(ticketOf(0), seven);
  expect(postedOf()).toEqual(['tokenize', 'count_tokens', 'count']);
  ask(7, 'tokenize', answers);
  counts.answer(ticketOf(1), seven);
  counts.answer(ticketOf(2), seven);
  expect(postedOf().slice(3)).toEqual(['count', 'tokenize']);
});

test('those that wait for their turn when the time is over leave their places to others', () => {
  for (let i = 0; i < 3; i++) ask();
  vi.advanceTimersByTime(timeoutMs);
  expect(heard).toEqual([none('late'), none('late'), none('late')]);
  ask();
  expect(posted).toHaveLength(4);
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

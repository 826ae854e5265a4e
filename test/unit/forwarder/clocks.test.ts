import { expect, test } from 'vitest';
import { AttemptClock } from '../../../src/forwarder/clocks.ts';
import { failures, Stage } from '../../../src/forwarder/failure.ts';

const limits = {
  connectUs: 100,
  firstTokenUs: 1000,
  answerUs: 4000,
  interTokenUs: 300,
  totalUs: 10_000,
};
const clock = (streams = true): AttemptClock => new AttemptClock(limits, 0, 5000, streams);

test('each stage has its own limit and its own name', () => {
  expect(clock().verdict(100, Stage.connecting)).toBeUndefined();
  expect(clock().verdict(101, Stage.connecting)).toBe(failures.connectTimeout);
  expect(clock().verdict(1000, Stage.sent)).toBeUndefined();
  expect(clock().verdict(1001, Stage.sent)).toBe(failures.headersTimeout);
  expect(clock().verdict(1001, Stage.head)).toBe(failures.firstTokenTimeout);
  expect(clock().verdict(1001, Stage.body)).toBe(failures.firstTokenTimeout);
});

test('a request that does not stream has the time of a whole answer', () => {
  expect(clock(false).verdict(4000, Stage.sent)).toBeUndefined();
  expect(clock(false).verdict(4001, Stage.sent)).toBe(failures.headersTimeout);
  expect(clock(false).verdict(4001, Stage.head)).toBe(failures.firstTokenTimeout);
});

test('after the first token only silence since the last one counts', () => {
  const attempt = clock();
  attempt.token(900);
  expect(attempt.verdict(1200, Stage.body)).toBeUndefined();
  expect(attempt.verdict(1201, Stage.body)).toBe(failures.interTokenTimeout);
});

test('a sign that is no token counts between tokens and not before the first', () => {
  const attempt = clock();
  attempt.sign(900);
  expect(attempt.verdict(1001, Stage.body)).toBe(failures.firstTokenTimeout);
  attempt.token(1001);
  attempt.sign(1200);
  expect(attempt.verdict(1500, Stage.body)).toBeUndefined();
  expect(attempt.verdict(1501, Stage.body)).toBe(failures.interTokenTimeout);
});

test('time in which the thread stood still is forgiven', () => {
  const attempt = clock();
  attempt.forgive(700);
  expect(attempt.verdict(1700, Stage.sent)).toBeUndefined();
  expect(attempt.verdict(1701, Stage.sent)).toBe(failures.headersTimeout);
});

test('the deadline moves for nothing', () => {
  const attempt = clock();
  attempt.token(4999);
  attempt.forgive(1000);
  expect(attempt.isPastDeadline(5000)).toBe(false);
  expect(attempt.isPastDeadline(5001)).toBe(true);
});

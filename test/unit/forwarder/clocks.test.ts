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
const clock = (streams = true, isOwnDeadline = false): AttemptClock =>
  new AttemptClock(limits, 0, { deadlineUs: 5000, isOwnDeadline, streams });

test('each stage has its own limit and its own name', () => {
  expect(clock().verdict(100, Stage.connecting, false)).toBeUndefined();
  expect(clock().verdict(101, Stage.connecting, false)).toBe(failures.connectTimeout);
  expect(clock().verdict(1000, Stage.sent, false)).toBeUndefined();
  expect(clock().verdict(1001, Stage.sent, false)).toBe(failures.headersTimeout);
  expect(clock().verdict(1001, Stage.head, false)).toBe(failures.firstTokenTimeout);
  expect(clock().verdict(1001, Stage.body, false)).toBe(failures.firstTokenTimeout);
});

test('a request that does not stream has the time of a whole answer', () => {
  expect(clock(false).verdict(4000, Stage.sent, false)).toBeUndefined();
  expect(clock(false).verdict(4001, Stage.sent, false)).toBe(failures.headersTimeout);
  expect(clock(false).verdict(4001, Stage.head, false)).toBe(failures.firstTokenTimeout);
});

test('after the first token only silence since the last one counts', () => {
  const attempt = clock();
  attempt.token(900);
  expect(attempt.verdict(1200, Stage.body, false)).toBeUndefined();
  expect(attempt.verdict(1201, Stage.body, false)).toBe(failures.interTokenTimeout);
});

test('a sign that is no token counts between tokens and not before the first', () => {
  const attempt = clock();
  attempt.sign(900);
  expect(attempt.verdict(1001, Stage.body, false)).toBe(failures.firstTokenTimeout);
  attempt.token(1001);
  attempt.sign(1200);
  expect(attempt.verdict(1500, Stage.body, false)).toBeUndefined();
  expect(attempt.verdict(1501, Stage.body, false)).toBe(failures.interTokenTimeout);
});

test('time in which the thread stood still is forgiven', () => {
  const attempt = clock();
  attempt.forgive(700);
  expect(attempt.verdict(1700, Stage.sent, false)).toBeUndefined();
  expect(attempt.verdict(1701, Stage.sent, false)).toBe(failures.headersTimeout);
});

test('the deadline moves for nothing', () => {
  const attempt = clock();
  attempt.token(4999);
  attempt.forgive(1000);
  expect(attempt.isPastDeadline(5000)).toBe(false);
  expect(attempt.isPastDeadline(5001)).toBe(true);
  expect(attempt.verdict(5001, Stage.body, false)).toBe(failures.deadline);
});

test('the time that a client allows or takes is not the replica’s', () => {
  expect(clock(true, true).verdict(5001, Stage.sent, false)).toBe(failures.clientDeadline);
  const paused = clock();
  paused.token(0);
  expect(paused.verdict(5000, Stage.body, true)).toBeUndefined();
  expect(paused.verdict(5001, Stage.body, true)).toBe(failures.clientDeadline);
});

test('after an answer of no use the first token is waited for anew', () => {
  const mine = clock();
  mine.token(100);
  mine.startAgain(200);
  const { firstTokenUs, interTokenUs } = limits;
  expect(interTokenUs).toBeLessThan(firstTokenUs);
  expect(mine.verdict(200 + firstTokenUs, Stage.sent, false)).toBeUndefined();
  expect(mine.verdict(201 + firstTokenUs, Stage.sent, false)).toBe(failures.headersTimeout);
});

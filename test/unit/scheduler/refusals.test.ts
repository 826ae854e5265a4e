import { expect, test } from 'vitest';
import { Refusal, RetryRule } from '../../../src/dispatch/decisions.ts';
import { errorOf, errors } from '../../../src/errors/catalogue.ts';
import { errorOfRefusal, retryRuleOf } from '../../../src/scheduler/refusals.ts';

test.each([
  ['queueFull', 429],
  ['queueWaitOver', 503],
  ['noReplica', 503],
  ['failed', 502],
  ['deadline', 504],
  ['clientGone', 499],
  ['stopping', 503],
] as const)('%s answers with status %i', (name, status) => {
  expect(errorOf(errorOfRefusal(Refusal[name], 0, 1)).status).toBe(status);
});

test('one failed attempt speaks for itself, several are summed up', () => {
  const reset = errors.RESET.number;
  expect(errorOfRefusal(Refusal.failed, reset, 1)).toBe(reset);
  expect(errorOfRefusal(Refusal.failed, reset, 2)).toBe(errors.ALL_ATTEMPTS_FAILED.number);
});

test('a refused key of the client is told however many replicas refused it', () => {
  const refused = errors.CLIENT_KEY_REFUSED.number;
  expect(errorOfRefusal(Refusal.failed, refused, 2)).toBe(refused);
  expect(retryRuleOf(refused)).toBe(RetryRule.elsewhere);
});

test('an error that forbids a retry is told whatever came before it', () => {
  for (const { number } of [errors.RESPONSE_TOO_LARGE, errors.DEADLINE, errors.SHUTTING_DOWN]) {
    expect(errorOfRefusal(Refusal.failed, number, 2)).toBe(number);
  }
});

test('only what failed before a byte was sent may be tried on the same replica', () => {
  expect(retryRuleOf(errors.CONNECT_REFUSED.number)).toBe(RetryRule.anywhere);
  expect(retryRuleOf(errors.RESET.number)).toBe(RetryRule.elsewhere);
  expect(retryRuleOf(errors.FORWARDER_LOST.number)).toBe(RetryRule.again);
  expect(retryRuleOf(errors.RESPONSE_TOO_LARGE.number)).toBe(RetryRule.never);
  expect(retryRuleOf(12345)).toBe(RetryRule.never);
});

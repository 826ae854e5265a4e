import { expect, test } from 'vitest';
import { errorList, errorOf } from '../../../src/errors/catalogue.ts';
import {
  failureOfError,
  failureOfHead,
  failures,
  retryAfterMs,
  Stage,
} from '../../../src/forwarder/failure.ts';
import { Outcome } from '../../../src/shm/rings.layout.ts';

const coded = (code: string, message = ''): Error => Object.assign(new Error(message), { code });

test.each([
  ['ECONNREFUSED', Stage.connecting, failures.refused],
  ['UND_ERR_CONNECT_TIMEOUT', Stage.connecting, failures.connectTimeout],
  ['ETIMEDOUT', Stage.connecting, failures.connectTimeout],
  ['ENOTFOUND', Stage.connecting, failures.dns],
  ['EAI_AGAIN', Stage.connecting, failures.dns],
  ['EHOSTUNREACH', Stage.connecting, failures.refused],
  ['EMFILE', Stage.connecting, failures.ownLimit],
  ['DEPTH_ZERO_SELF_SIGNED_CERT', Stage.connecting, failures.tls],
  ['ERR_TLS_CERT_ALTNAME_INVALID', Stage.connecting, failures.tls],
  ['EPROTO', Stage.connecting, failures.tls],
  ['ECONNRESET', Stage.connecting, failures.reset],
  ['ECONNRESET', Stage.sent, failures.reset],
  ['ECONNRESET', Stage.body, failures.truncated],
  ['EPIPE', Stage.sent, failures.reset],
  ['UND_ERR_SOCKET', Stage.sent, failures.closedEarly],
  ['UND_ERR_SOCKET', Stage.head, failures.truncated],
  ['UND_ERR_SOCKET', Stage.body, failures.truncated],
  ['UND_ERR_HEADERS_OVERFLOW', Stage.sent, failures.framing],
  ['UND_ERR_RES_CONTENT_LENGTH_MISMATCH', Stage.head, failures.framing],
  ['UND_ERR_RES_CONTENT_LENGTH_MISMATCH', Stage.body, failures.truncated],
  ['UND_ERR_CLOSED', Stage.connecting, failures.refused],
  ['UND_ERR_INVALID_ARG', Stage.connecting, failures.internal],
  ['ESOMETHING', Stage.body, failures.internal],
] as const)('%s at stage %i', (code, stage, expected) => {
  expect(failureOfError(coded(code), stage)).toBe(expected);
});

test('an error of the HTTP parser is a framing error whatever its code', () => {
  const error = Object.assign(new Error('bad'), { name: 'HTTPParserError', code: undefined });
  expect(failureOfError(error, Stage.sent)).toBe(failures.framing);
  expect(failureOfError(error, Stage.body)).toBe(failures.framingInBody);
});

test('what undici calls a bad response is framing, not a closed connection', () => {
  expect(failureOfError(coded('UND_ERR_SOCKET', 'bad response'), Stage.sent)).toBe(
    failures.framing,
  );
});

test.each([undefined, null, 'text', 7, {}, new Error('plain')])(
  '%s is our own failure',
  (error) => {
    expect(failureOfError(error, Stage.sent)).toBe(failures.internal);
  },
);

test('statuses: what fails, what passes', () => {
  const passed = [200, 201, 204, 400, 404, 409, 413, 422];
  for (const status of passed)
    expect(failureOfHead(status, {}, true, []), `${status}`).toBeUndefined();
  for (const status of [301, 307, 500, 502, 504, 529, 599]) {
    expect(failureOfHead(status, {}, true, []), `${status}`).toBe(failures.serverError);
  }
  expect(failureOfHead(429, {}, true, [])).toBe(failures.rateLimited);
  expect(failureOfHead(503, {}, true, [])).toBe(failures.overloaded);
  for (const status of [401, 403]) {
    const ofOwnKey = status === 401 ? failures.unauthorized : failures.forbidden;
    expect(failureOfHead(status, {}, true, [])).toBe(ofOwnKey);
    expect(failureOfHead(status, {}, false, [])).toBe(failures.clientKey);
  }
  expect(failureOfHead(408, {}, true, [])).toBe(failures.headersTimeout);
});

test('a 429 is for the client alone when it names the limits of a key that the client sent', () => {
  const limits = { 'retry-after': '7', 'x-ratelimit-remaining-requests': '0' };
  const sent = ['accept', '*/*', 'authorization', 'Bearer sk-1'];
  expect(failureOfHead(429, limits, false, sent)).toBeUndefined();
  expect(failureOfHead(429, { 'anthropic-ratelimit-reset': '1' }, false, sent)).toBeUndefined();
  expect(failureOfHead(429, limits, false, ['x-api-key', 'sk-1'])).toBeUndefined();
  const isBusy = failures.rateLimited;
  expect(failureOfHead(429, { 'retry-after': '7' }, false, sent), 'a full queue').toBe(isBusy);
  expect(failureOfHead(429, limits, true, sent), 'the key of the gateway').toBe(isBusy);
  expect(failureOfHead(429, limits, false, ['x-a', 'authorization']), 'no key').toBe(isBusy);
  expect(failureOfHead(503, limits, false, sent)).toBe(failures.overloaded);
});

test('every failure is an entry of the catalogue and only the replica moves its breaker', () => {
  const numbers = new Set(errorList.map(({ number }) => number));
  const breaking = new Set<Outcome>([Outcome.dead, Outcome.slow, Outcome.truncated]);
  for (const [name, failure] of Object.entries(failures)) {
    expect(numbers.has(failure.error), name).toBe(true);
    if (!breaking.has(failure.outcome)) continue;
    const { source } = errorOf(failure.error);
    expect(name === 'deadline' || source === 'upstream', name).toBe(true);
  }
});

test.each([
  ['', '', 0],
  ['', '3', 3000],
  ['', ' 3 ', 3000],
  ['', '0.5', 500],
  ['', '-3', 0],
  ['', 'never', 0],
  ['250', '3', 250],
  ['x', '3', 0],
  ['', '1e9', 0],
  ['999999999', '', 600_000],
  ['', new Date(65_000).toUTCString(), 15_000],
  ['', new Date(1000).toUTCString(), 0],
])('retry-after-ms %j and retry-after %j', (exact, coarse, expected) => {
  expect(retryAfterMs(exact, coarse, 50_000)).toBe(expected);
});

import { expect, test } from 'vitest';
import { OwnHeaders } from '../../../src/protocol/own-headers.ts';

test('a key is a bearer token, or stands alone in a header of its own', () => {
  expect(new OwnHeaders({ apiKey: 'k' }).list).toEqual(['authorization', 'Bearer k']);
  const named = { apiKey: 'k', apiKeyHeader: 'api-key', headers: { 'x-title': 'A b' } };
  expect(new OwnHeaders(named).list).toEqual(['api-key', 'k', 'x-title', 'A b']);
});

test('without a key the header for it is not sent, nor is one that is empty', () => {
  const none = new OwnHeaders({ apiKey: '', apiKeyHeader: 'api-key', headers: { 'x-title': '' } });
  expect(none.list).toEqual([]);
  expect(none.hasKey).toBe(false);
  expect(none.replaces('x-title')).toBe(false);
  expect(none.replaces('authorization')).toBe(false);
});

test.each([
  ['a key', { apiKey: 'k' }],
  ['a key elsewhere', { apiKey: 'k', apiKeyHeader: 'x-goog-api-key' }],
  ['a header that is one', { apiKey: '', headers: { authorization: 'Basic abc' } }],
])('%s of the gateway takes the place of every key of a client', (_, source) => {
  const own = new OwnHeaders(source);
  expect(own.hasKey).toBe(true);
  for (const name of ['authorization', 'x-api-key', 'api-key']) {
    expect(own.replaces(name), name).toBe(true);
  }
  expect(own.replaces('x-session-id')).toBe(false);
});

test('a header takes the place of the same one, and leaves the key of a client', () => {
  const own = new OwnHeaders({ apiKey: '', headers: { 'anthropic-version': '2023-06-01' } });
  expect(own.replaces('anthropic-version')).toBe(true);
  expect(own.replaces('authorization')).toBe(false);
});

test('key and values are secrets, and a credential is one without its scheme', () => {
  const headers = { 'x-team': 'of the team', authorization: 'Basic dXNlcg==' };
  const { secrets } = new OwnHeaders({ apiKey: 'key', apiKeyHeader: 'api-key', headers });
  expect(secrets).toEqual(
    expect.arrayContaining(['key', 'of the team', 'Basic dXNlcg==', 'dXNlcg==']),
  );
});

test('a secret is one also as a string of JSON has it', () => {
  const headers = { authorization: 'Digest user="me", of="\\home"', 'x-plain': 'plain' };
  const { secrets } = new OwnHeaders({ apiKey: 'k"ey', headers });
  expect([...secrets].toSorted()).toEqual(
    [
      ...['k"ey', 'k\\"ey', 'plain'],
      ...['Digest user="me", of="\\home"', 'Digest user=\\"me\\", of=\\"\\\\home\\"'],
      ...['user="me", of="\\home"', 'user=\\"me\\", of=\\"\\\\home\\"'],
    ].toSorted(),
  );
});

/** The edge rules on request heads, header lists, ids and the header codec. */
import { describe, expect, test } from 'vitest';
import { errors } from '../../../src/errors/catalogue.ts';
import {
  decodeHeaders,
  encodeHeaders,
  encodeHeadersInto,
} from '../../../src/protocol/header-codec.ts';
import {
  isForwardedToClient,
  isForwardedToReplica,
  isSafeValue,
  parseContentLength,
  RequestHead,
} from '../../../src/protocol/http-rules.ts';
import { uuidv7, validRequestId } from '../../../src/protocol/request-id.ts';

const head = new RequestHead();

function check(headers: [string, string][], method = 'POST'): number {
  head.reset();
  head.add('host', 'h');
  for (const [name, value] of headers) head.add(name, value);
  return head.finish(method);
}

const length: [string, string] = ['content-length', '3'];
const framing = errors.BAD_FRAMING.number;

describe('framing', () => {
  const table: [string, [string, string][], number][] = [
    ['a length', [length], 0],
    ['length 0', [['content-length', '0']], 0],
    ['chunked', [['transfer-encoding', 'chunked']], 0],
    ['Chunked in capitals', [['transfer-encoding', 'CHUNKED']], 0],
    ['neither', [], errors.LENGTH_REQUIRED.number],
    ['two equal lengths', [length, length], framing],
    ['two lengths', [length, ['content-length', '0']], framing],
    ['an empty length', [['content-length', '']], framing],
    ['a signed length', [['content-length', '+3']], framing],
    ['a negative length', [['content-length', '-3']], framing],
    ['a hexadecimal length', [['content-length', '0x3']], framing],
    ['a list of lengths', [['content-length', '3, 3']], framing],
    ['a length with a space', [['content-length', '3 ']], framing],
    ['a fractional length', [['content-length', '3.0']], framing],
    ['an exponent', [['content-length', '3e1']], framing],
    ['a length over 2^53', [['content-length', '9007199254740993']], framing],
    ['a very long length', [['content-length', '0'.repeat(400)]], framing],
    ['both', [length, ['transfer-encoding', 'chunked']], framing],
    ['both, the other way', [['transfer-encoding', 'chunked'], length], framing],
    [
      'an empty length and chunked',
      [
        ['content-length', ''],
        ['transfer-encoding', 'chunked'],
      ],
      framing,
    ],
    ['a length and an empty encoding', [length, ['transfer-encoding', '']], framing],
    ['identity', [['transfer-encoding', 'identity']], framing],
    ['xchunked', [['transfer-encoding', 'xchunked']], framing],
    ['gzip, chunked', [['transfer-encoding', 'gzip, chunked']], framing],
    [
      'chunked twice',
      [
        ['transfer-encoding', 'chunked'],
        ['transfer-encoding', 'chunked'],
      ],
      framing,
    ],
    ['an empty name', [['', 'x'], length], framing],
    ['a second host', [['host', 'h'], length], framing],
    ['an empty authorization', [length, ['authorization', '']], framing],
    ['two authorizations', [length, ['authorization', 'a'], ['authorization', 'a']], framing],
    ['two keys', [length, ['x-api-key', 'a'], ['x-api-key', 'b']], framing],
    ['two content types', [length, ['content-type', 'a'], ['content-type', 'a']], framing],
    ['two expects', [length, ['expect', '100-continue'], ['expect', '100-continue']], framing],
    ['another expectation', [length, ['expect', 'x']], errors.EXPECTATION.number],
    ['gzip', [length, ['content-encoding', 'gzip']], errors.CONTENT_ENCODING.number],
    ['identity encoding', [length, ['content-encoding', 'identity']], 0],
    ['gzip and bad framing: framing wins', [length, ['content-encoding', 'gzip'], length], framing],
    ['a line break in a value', [length, ['authorization', 'a\r\nx: y']], framing],
    ['a NUL in a forwarded value', [length, ['accept', 'a\0']], errors.BAD_HEADER.number],
    ['unknown headers repeat freely', [length, ['x-any', 'a'], ['x-any', '']], 0],
  ];

  test.each(table)('%s', (_name, headers, expected) => {
    expect(check(headers)).toBe(expected);
    expect(head.errorParam === '').toBe(expected === 0);
    expect(check([length]), 'nothing is left for the next request').toBe(0);
  });

  test('a GET needs no length, and no host is refused', () => {
    expect(check([], 'GET')).toBe(0);
    expect(check([], 'DELETE')).toBe(0);
    head.reset();
    expect(head.finish('GET')).toBe(framing);
    head.reset();
    head.add('host', '');
    expect(head.finish('GET')).toBe(framing);
  });
});

test('one pass yields what the acceptor needs and what a replica may see', () => {
  const code = check([
    ['content-type', 'application/json'],
    ['authorization', 'Bearer sk-1'],
    ['x-api-key', 'k'],
    ['cookie', 'c'],
    ['connection', 'keep-alive'],
    ['te', 'trailers'],
    ['x-forwarded-for', '1.2.3.4'],
    ['anthropic-version', '2023-06-01'],
    ['x-session-id', 's'],
    ['x-request-id', 'r'],
    ['traceparent', 't'],
    ['x-sluice-priority', 'high'],
    ['x-sluice-deadline-ms', '5'],
    ['x-sluice-hedge', '1'],
    ['x-sluice-explain', '1'],
    ['expect', '100-Continue'],
    ['content-length', '17'],
  ]);
  expect(code).toBe(0);
  expect(head).toMatchObject({
    contentLength: 17,
    isChunked: false,
    expectsContinue: true,
    authorization: 'Bearer sk-1',
    apiKey: 'k',
    contentType: 'application/json',
    sessionId: 's',
    requestId: 'r',
    traceparent: 't',
    priority: 'high',
    deadlineMs: '5',
    explain: '1',
    hedge: '1',
  });
  expect(head.forwarded).toEqual(
    [
      ['content-type', 'application/json'],
      ['anthropic-version', '2023-06-01'],
      ['x-session-id', 's'],
    ].flat(),
  );
});

test('allow-lists keep secrets and hop-by-hop headers on their side', () => {
  const never = ['authorization', 'x-api-key', 'cookie', 'host', 'connection', 'te', 'upgrade'];
  never.push('content-length', 'transfer-encoding', 'keep-alive', 'proxy-authorization', 'trailer');
  for (const name of never) expect(isForwardedToReplica(name)).toBe(false);
  never.push('set-cookie', 'server', 'date', 'x-ratelimit', '__proto__');
  for (const name of never) expect(isForwardedToClient(name)).toBe(false);
  for (const name of ['content-type', 'retry-after', 'x-ratelimit-remaining-tokens']) {
    expect(isForwardedToClient(name)).toBe(true);
  }
});

test('values: tab and Latin-1 pass, control codes and wider characters do not', () => {
  for (const value of ['', 'a\tb', 'é ÿ', '~']) expect(isSafeValue(value)).toBe(true);
  for (const value of ['a\rb', 'a\nb', '\0', '\x1f', '\x7f', '鍵']) {
    expect(isSafeValue(value)).toBe(false);
  }
});

test('lengths', () => {
  expect(parseContentLength('9007199254740991')).toBe(Number.MAX_SAFE_INTEGER);
  expect(parseContentLength('9007199254740992')).toBe(-1);
});

test('request ids', () => {
  for (const id of ['a', 'A-9._z', 'x'.repeat(128)]) expect(validRequestId(id)).toBe(true);
  for (const id of ['', 'x'.repeat(129), 'a b', 'a\n', 'é', 'a/b']) {
    expect(validRequestId(id)).toBe(false);
  }
});

test('UUIDv7: shape, time, order and no repeats across pool refills', () => {
  const ids = new Set<string>();
  for (let i = 0; i < 2000; i++) {
    const id = uuidv7(0x0123456789ab + i);
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    expect(validRequestId(id)).toBe(true);
    ids.add(id);
  }
  expect(ids.size).toBe(2000);
  expect([...ids].sort()).toEqual([...ids]);
  expect(uuidv7(0x0123456789ab).slice(0, 13)).toBe('01234567-89ab');
  const tails = new Set(Array.from({ length: 2000 }, () => uuidv7(5).slice(15)));
  expect(tails.size).toBe(2000);
});

describe('the header codec', () => {
  const list = ['content-type', 'application/json', 'x-empty', '', 'x-latin', 'é\xff', 'x', 'y'];

  test('a list survives the way through bytes, at any offset', () => {
    const bytes = encodeHeaders(list)!;
    expect(decodeHeaders(bytes)).toEqual(list);
    const target = new Uint8Array(new SharedArrayBuffer(300));
    expect(encodeHeadersInto(target, 100, list)).toBe(bytes.length);
    const reused = ['stale', 'entries'];
    expect(decodeHeaders(target, 100, reused)).toBe(reused);
    expect(reused).toEqual(list);
    expect(decodeHeaders(encodeHeaders([])!)).toEqual([]);
  });

  test('what does not fit, by one byte, is a return value', () => {
    const { length: size } = encodeHeaders(list)!;
    expect(encodeHeadersInto(new Uint8Array(size), 0, list)).toBe(size);
    for (let short = 0; short < size; short++) {
      expect(encodeHeadersInto(new Uint8Array(short), 0, list)).toBe(-1);
    }
  });

  test('what is not Latin-1 or too long is refused', () => {
    expect(encodeHeaders(['x', '鍵'])).toBeUndefined();
    expect(encodeHeaders(['x', 'a'.repeat(65_536)])).toBeUndefined();
    expect(() => encodeHeaders(['odd'])).toThrow('pairs');
  });

  test('a cut blob is a broken invariant', () => {
    const bytes = encodeHeaders(list)!;
    for (let cut = 0; cut < bytes.length; cut++) {
      expect(() => decodeHeaders(bytes.subarray(0, cut))).toThrow('header');
    }
  });
});

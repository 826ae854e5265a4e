import { expect, test } from 'vitest';
import { upstreamHead } from '../../../src/forwarder/upstream-head.ts';
import { encodeHeaders } from '../../../src/protocol/header-codec.ts';
import { ReplicaPaths } from '../../../src/protocol/replica-base.ts';
import { routeOf } from '../../../src/protocol/routes.ts';

const chat = routeOf(1);
const plain = new ReplicaPaths('http://h:1');
const blob = (...list: string[]): Uint8Array => encodeHeaders(list) as Uint8Array;

test('method and path come from the route unless the blob says otherwise', () => {
  expect(upstreamHead(blob(), chat, plain, '')).toEqual({
    method: 'POST',
    path: '/v1/chat/completions',
    headers: ['accept-encoding', 'identity'],
    requestSpan: '',
    hasTraceparent: false,
  });
  const dynamic = blob(':method', 'DELETE', ':path', '/v1/responses/r1');
  expect(
    upstreamHead(dynamic, routeOf(22), new ReplicaPaths('http://h:1/base/v2'), ''),
  ).toMatchObject({
    method: 'DELETE',
    path: '/base/v2/responses/r1',
  });
});

test('an empty blob is no headers', () => {
  expect(upstreamHead(new Uint8Array(0), chat, plain, '').headers).toEqual([
    'accept-encoding',
    'identity',
  ]);
});

test('the configured key takes the place of the one in the blob', () => {
  const keys = ['authorization', 'Bearer client', 'x-api-key', 'client'];
  const list = blob(...keys, 'x-session-id', 's');
  expect(upstreamHead(list, chat, plain, 'Bearer ours').headers).toEqual([
    'accept-encoding',
    'identity',
    'authorization',
    'Bearer ours',
    'x-session-id',
    's',
  ]);
  expect(upstreamHead(list, chat, plain, '').headers).toEqual(expect.arrayContaining(keys));
});

test('hop-by-hop and framing headers never go out', () => {
  const names = ['connection', 'keep-alive', 'te', 'trailer', 'transfer-encoding', 'upgrade'];
  const framing = ['host', 'content-length', 'expect', 'accept-encoding', 'proxy-authorization'];
  const list = [...names, ...framing].flatMap((name) => [name, 'x']);
  expect(upstreamHead(blob(...list), chat, plain, '').headers).toEqual([
    'accept-encoding',
    'identity',
  ]);
});

test('two heads share nothing', () => {
  const first = upstreamHead(blob('a', '1'), chat, plain, '');
  upstreamHead(blob('b', '2'), chat, plain, '');
  expect(first.headers).toEqual(['accept-encoding', 'identity', 'a', '1']);
});

test('the span of a traced request is told apart, and is no header', () => {
  const span = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  const head = upstreamHead(blob('tracestate', 'a=1', ':trace', span), chat, plain, '');
  expect(head.requestSpan).toBe(span);
  expect(head.headers).toEqual(['accept-encoding', 'identity', 'tracestate', 'a=1']);
  expect(head.hasTraceparent).toBe(false);
  expect(upstreamHead(blob('traceparent', span), chat, plain, '')).toMatchObject({
    headers: ['accept-encoding', 'identity', 'traceparent', span],
    requestSpan: '',
    hasTraceparent: true,
  });
});

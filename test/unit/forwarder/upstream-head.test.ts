import { expect, test } from 'vitest';
import { upstreamHead } from '../../../src/forwarder/upstream-head.ts';
import { encodeHeaders } from '../../../src/protocol/header-codec.ts';
import { OwnHeaders } from '../../../src/protocol/own-headers.ts';
import { ReplicaPaths } from '../../../src/protocol/replica-base.ts';
import { routeOf } from '../../../src/protocol/routes.ts';

const chat = routeOf(1);
const plain = new ReplicaPaths('http://h:1');
const none = new OwnHeaders({ apiKey: '' });
const ours = new OwnHeaders({ apiKey: 'ours' });
const blob = (...list: string[]): Uint8Array => encodeHeaders(list) as Uint8Array;

test('method and path come from the route unless the blob says otherwise', () => {
  expect(upstreamHead(blob(), chat, plain, none)).toEqual({
    method: 'POST',
    path: '/v1/chat/completions',
    headers: ['accept-encoding', 'identity'],
    requestSpan: '',
    hasTraceparent: false,
  });
  const dynamic = blob(':method', 'DELETE', ':path', '/v1/responses/r1');
  expect(
    upstreamHead(dynamic, routeOf(22), new ReplicaPaths('http://h:1/base/v2'), none),
  ).toMatchObject({
    method: 'DELETE',
    path: '/base/v2/responses/r1',
  });
});

test('an empty blob is no headers', () => {
  expect(upstreamHead(new Uint8Array(0), chat, plain, none).headers).toEqual([
    'accept-encoding',
    'identity',
  ]);
});

test('the configured key takes the place of the one in the blob', () => {
  const keys = ['authorization', 'Bearer client', 'x-api-key', 'client'];
  const list = blob(...keys, 'x-session-id', 's');
  expect(upstreamHead(list, chat, plain, ours).headers).toEqual([
    'accept-encoding',
    'identity',
    'authorization',
    'Bearer ours',
    'x-session-id',
    's',
  ]);
  expect(upstreamHead(list, chat, plain, none).headers).toEqual(expect.arrayContaining(keys));
});

test('a header of the config takes the place of the same one in the blob', () => {
  const own = new OwnHeaders({ apiKey: '', headers: { 'anthropic-version': 'b', 'x-team': 't' } });
  const list = blob('anthropic-version', 'a', 'authorization', 'Bearer client');
  expect(upstreamHead(list, chat, plain, own).headers).toEqual([
    ...['accept-encoding', 'identity', 'anthropic-version', 'b', 'x-team', 't'],
    ...['authorization', 'Bearer client'],
  ]);
});

test('hop-by-hop and framing headers never go out', () => {
  const names = ['connection', 'keep-alive', 'te', 'trailer', 'transfer-encoding', 'upgrade'];
  const framing = ['host', 'content-length', 'expect', 'accept-encoding', 'proxy-authorization'];
  const list = [...names, ...framing].flatMap((name) => [name, 'x']);
  expect(upstreamHead(blob(...list), chat, plain, none).headers).toEqual([
    'accept-encoding',
    'identity',
  ]);
});

test('two heads share nothing', () => {
  const first = upstreamHead(blob('a', '1'), chat, plain, none);
  upstreamHead(blob('b', '2'), chat, plain, none);
  expect(first.headers).toEqual(['accept-encoding', 'identity', 'a', '1']);
});

test('the span of a traced request is told apart, and is no header', () => {
  const span = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  const head = upstreamHead(blob('tracestate', 'a=1', ':trace', span), chat, plain, none);
  expect(head.requestSpan).toBe(span);
  expect(head.headers).toEqual(['accept-encoding', 'identity', 'tracestate', 'a=1']);
  expect(head.hasTraceparent).toBe(false);
  expect(upstreamHead(blob('traceparent', span), chat, plain, none)).toMatchObject({
    headers: ['accept-encoding', 'identity', 'traceparent', span],
    requestSpan: '',
    hasTraceparent: true,
  });
});

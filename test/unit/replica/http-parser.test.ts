import { expect, test } from 'vitest';
import { type ParsedRequest, RequestParser } from '../../../src/replica/http-parser.ts';

const BODY_MAX = 1000;
const GET = 'GET /a?b HTTP/1.1\r\nhost: h\r\n\r\n';
const POST = 'POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nX-Request-Id: r1\r\n\r\nhello';
const CHUNKED =
  'POST /c HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n';

function takeAll(parser: RequestParser): ParsedRequest[] {
  const requests: ParsedRequest[] = [];
  for (let next = parser.take(); next !== undefined; next = parser.take()) requests.push(next);
  return requests;
}

function parse(...segments: string[]): { parser: RequestParser; requests: ParsedRequest[] } {
  const parser = new RequestParser(BODY_MAX);
  const requests = segments.flatMap((segment) => {
    parser.feed(Buffer.from(segment, 'latin1'));
    return takeAll(parser);
  });
  return { parser, requests };
}

const bodies = (requests: ParsedRequest[]): string[] =>
  requests.map(({ method, target, body }) => `${method} ${target} ${body.toString()}`);

const EXPECTED = ['GET /a?b ', 'POST /p hello', 'POST /c abc0123456789', 'GET /a?b '];

test('pipelined requests are the same at every split into two segments', () => {
  const all = GET + POST + CHUNKED + GET;
  for (let at = 0; at <= all.length; at++) {
    const { parser, requests } = parse(all.slice(0, at), all.slice(at));
    expect(parser.failure, `split at ${at}`).toBeUndefined();
    expect(bodies(requests), `split at ${at}`).toEqual(EXPECTED);
  }
});

test('pipelined requests are the same byte by byte', () => {
  const { parser, requests } = parse(...(GET + POST + CHUNKED + GET));
  expect(bodies(requests)).toEqual(EXPECTED);
  expect(parser.pendingBytes).toBe(0);
});

test('the head is kept as received and the fields that matter are read', () => {
  const [request] = parse(POST).requests;
  expect(request?.requestId).toBe('r1');
  expect(request?.keepAlive).toBe(true);
  expect(request?.raw).toBe(POST.slice(0, POST.indexOf('\r\n\r\n')));
});

const head = (lines: string, method = 'POST'): string =>
  `${method} / HTTP/1.1\r\nhost: h\r\n${lines}\r\n\r\n`;

/** Shapes of RELIABILITY 3.1: two parsers could disagree about each. */
const REFUSED: [string, string, number][] = [
  ['two lengths', head('content-length: 3\r\ncontent-length: 0'), 400],
  ['two equal lengths', head('content-length: 3\r\ncontent-length: 3'), 400],
  ['an empty length', head('content-length: '), 400],
  ['a signed length', head('content-length: +3'), 400],
  ['a hexadecimal length', head('content-length: 0x3'), 400],
  ['a list of lengths', head('content-length: 3, 3'), 400],
  ['a length beyond any number', head('content-length: 99999999999999999999'), 400],
  ['a length over the cap', head(`content-length: ${BODY_MAX + 1}`), 413],
  ['length and chunked', head('content-length: 3\r\ntransfer-encoding: chunked'), 400],
  ['encoding identity', head('transfer-encoding: identity'), 400],
  ['encoding xchunked', head('transfer-encoding: xchunked'), 400],
  ['encoding gzip, chunked', head('transfer-encoding: gzip, chunked'), 400],
  ['an empty encoding', head('transfer-encoding:'), 400],
  ['encoding twice', head('transfer-encoding: chunked\r\ntransfer-encoding: chunked'), 400],
  ['an empty header name', head(': x\r\ncontent-length: 3'), 400],
  ['a space before the colon', head('content-length : 3'), 400],
  ['a folded line', head('x: a\r\n b'), 400],
  ['a NUL', head('x: a\0b'), 400],
  ['a bare CR', head('x: a\rb'), 400],
  ['a bare LF', 'POST / HTTP/1.1\nhost: h\n\n', 400],
  ['a bare LF between headers', head('x: a\ny: b'), 400],
  ['no host', 'GET / HTTP/1.1\r\n\r\n', 400],
  ['two hosts', head('host: i'), 400],
  ['two authorizations', head('authorization: a\r\nauthorization: b'), 400],
  ['an absolute target', 'GET http://h/ HTTP/1.1\r\nhost: h\r\n\r\n', 400],
  ['the h2 preface', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400],
  ['a leading CRLF', `\r\n${GET}`, 400],
  ['an unknown expectation', head('expect: 200-ok\r\ncontent-length: 3'), 417],
  ['chunked in HTTP/1.0', 'POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n', 400],
  ['a head without end', `GET /${'a'.repeat(40_000)}`, 431],
];

test.each(REFUSED)('%s is refused', (_name, bytes, status) => {
  const { parser, requests } = parse(bytes + GET);
  expect(requests).toEqual([]);
  expect(parser.failure?.status).toBe(status);
});

const chunked = (body: string): string => head('transfer-encoding: chunked') + body;

test.each([
  ['no digits', '\r\n'],
  ['a space after the size', '3 \r\nabc\r\n0\r\n\r\n'],
  ['a bare LF after the size', '3\nabc\r\n0\r\n\r\n'],
  ['an extension', '3;a=b\r\nabc\r\n0\r\n\r\n'],
  ['a wrong terminator', '3\r\nabcX\r\n0\r\n\r\n'],
  ['a trailer', '0\r\nx: y\r\n\r\n'],
  ['a size beyond the cap', 'FFFFFFFF\r\n'],
  ['a sign', '-3\r\nabc\r\n'],
])('a chunk with %s is refused', (_name, body) => {
  const { parser, requests } = parse(chunked(body));
  expect(requests).toEqual([]);
  expect(parser.failure?.status).toBeGreaterThanOrEqual(400);
});

test('expect: 100-continue waits for an answer until the body begins', () => {
  const { parser } = parse(head('expect: 100-continue\r\ncontent-length: 2'));
  expect(parser.awaitsContinue).toBe(true);
  parser.feed(Buffer.from('h'));
  expect(parser.awaitsContinue).toBe(false);
  parser.feed(Buffer.from('i'));
  expect(parser.take()?.body.toString()).toBe('hi');
});

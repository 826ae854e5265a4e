import { describe, expect, test } from 'vitest';
import {
  ParseFault,
  type ResponseHead,
  ResponseParser,
} from '../../../src/load/response-parser.ts';

interface Seen {
  readonly fault: ParseFault;
  readonly complete: boolean;
  readonly heads: { status: number; eventStream: boolean; keepAlive: boolean; requestId: string }[];
  readonly body: string;
}

function parse(segments: readonly Buffer[], ended = false): Seen {
  const heads: Seen['heads'] = [];
  let body = '';
  const parser = new ResponseParser({
    onHead: ({ status, eventStream, keepAlive, requestId }: ResponseHead) =>
      heads.push({ status, eventStream, keepAlive, requestId }),
    onBody: (bytes, start, end) => {
      body += bytes.toString('latin1', start, end);
    },
  });
  let fault: ParseFault = ParseFault.none;
  for (const segment of segments) {
    fault = parser.execute(segment, segment.length);
    if (fault !== ParseFault.none) break;
  }
  if (ended) parser.end();
  return { fault, complete: parser.complete, heads, body };
}

const shapes: Record<string, { wire: string; body: string; ended?: true; head: object }> = {
  'content-length': {
    wire: 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Request-Id: run-1\r\n\r\nhello',
    body: 'hello',
    head: { status: 200, eventStream: false, keepAlive: true, requestId: 'run-1' },
  },
  'an empty body': {
    wire: 'HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n',
    body: '',
    head: { status: 503, eventStream: false, keepAlive: false, requestId: '' },
  },
  'chunks with an extension and a trailer': {
    wire:
      'HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\ncontent-type: text/event-stream; charset=utf-8\r\n\r\n' +
      '5;x=1\r\nhello\r\n01\r\n \r\nA\r\n0123456789\r\n0\r\nx-sum: 1\r\n\r\n',
    body: 'hello 0123456789',
    head: { status: 200, eventStream: true, keepAlive: true, requestId: '' },
  },
  'interim answers before the real one': {
    wire: 'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok',
    body: 'ok',
    head: { status: 200, eventStream: false, keepAlive: true, requestId: '' },
  },
  'no content': {
    wire: 'HTTP/1.1 204 No Content\r\n\r\n',
    body: '',
    head: { status: 204, eventStream: false, keepAlive: true, requestId: '' },
  },
  'a body that ends with the connection': {
    wire: 'HTTP/1.1 200 OK\r\n\r\nuntil the end',
    body: 'until the end',
    ended: true,
    head: { status: 200, eventStream: false, keepAlive: false, requestId: '' },
  },
};

describe.each(Object.entries(shapes))('%s', (_name, { wire, body, ended, head }) => {
  const bytes = Buffer.from(wire);

  test('is the same answer split at every byte', () => {
    for (let cut = 0; cut <= bytes.length; cut++) {
      const seen = parse([bytes.subarray(0, cut), bytes.subarray(cut)], ended);
      expect(seen, `cut at ${cut}`).toEqual({
        fault: ParseFault.none,
        complete: true,
        heads: [head],
        body,
      });
    }
  });

  test('is the same answer byte by byte', () => {
    const seen = parse(
      Array.from(bytes, (byte) => Buffer.from([byte])),
      ended,
    );
    expect(seen).toEqual({ fault: ParseFault.none, complete: true, heads: [head], body });
  });

  test('is incomplete while any byte is missing', () => {
    if (ended) return expect(parse([bytes]).complete).toBe(false);
    for (let cut = 0; cut < bytes.length; cut++) {
      expect(parse([bytes.subarray(0, cut)], true).complete, `cut at ${cut}`).toBe(false);
    }
  });
});

test.each([
  ['no HTTP at all', 'garbage\r\n\r\n', ParseFault.head],
  ['a status that is no number', 'HTTP/1.1 2x0 OK\r\n\r\n', ParseFault.head],
  ['an empty header name', 'HTTP/1.1 200 OK\r\n: x\r\n\r\n', ParseFault.head],
  ['a header without a colon', 'HTTP/1.1 200 OK\r\nnothing\r\n\r\n', ParseFault.head],
  ['a bare line feed in the head', 'HTTP/1.1 200 OK\r\na: b\nc: d\r\n\r\n', ParseFault.head],
  ['two lengths', `${head('content-length: 1', 'content-length: 1')}x`, ParseFault.head],
  ['a length and chunks', head('content-length: 1', 'transfer-encoding: chunked'), ParseFault.head],
  ['a signed length', head('content-length: +1'), ParseFault.head],
  ['an unknown encoding', head('transfer-encoding: gzip, chunked'), ParseFault.head],
  ['a chunk size without digits', `${head('transfer-encoding: chunked')}\r\n`, ParseFault.chunk],
  [
    'a chunk size beyond 31 bits',
    `${head('transfer-encoding: chunked')}ffffffff\r\n`,
    ParseFault.chunk,
  ],
  ['a chunk without its end', `${head('transfer-encoding: chunked')}1\r\nab`, ParseFault.chunk],
  ['bytes after the answer', `${head('content-length: 1')}ab`, ParseFault.unsolicited],
])('%s is a fault, not an answer', (_name, wire, fault) => {
  expect(parse([Buffer.from(wire)]).fault).toBe(fault);
});

test('a head without an end is given up at its bound', () => {
  const line = Buffer.from(`x: ${'y'.repeat(1000)}\r\n`);
  const segments = [Buffer.from('HTTP/1.1 200 OK\r\n'), ...Array.from({ length: 64 }, () => line)];
  expect(parse(segments).fault).toBe(ParseFault.head);
});

function head(...headers: readonly string[]): string {
  return `HTTP/1.1 200 OK\r\n${headers.join('\r\n')}\r\n\r\n`;
}

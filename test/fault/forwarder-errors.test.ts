/** The error table of RELIABILITY 3.3 and the scorecard F01-F14, row by row, on raw sockets. */
import { describe, expect, test } from 'vitest';
import { errors } from '../../src/errors/catalogue.ts';
import { SlotState } from '../../src/shm/request-slots.layout.ts';
import { Outcome } from '../../src/shm/rings.layout.ts';
import type { ForwarderHarness, HarnessRequest, Released } from '../support/forwarder-harness.ts';
import { forwarderForAll } from '../support/forwarder-suite.ts';
import {
  chunk,
  jsonAnswer,
  type RawReplica,
  type RawRequest,
  roleEvent,
  sse,
  sseHead,
  tokenEvent,
} from '../support/raw-replica.ts';

const clocks = { connect: 300, firstToken: 400, interToken: 300, total: 1500 };
let replica: RawReplica;
let harness: ForwarderHarness;
forwarderForAll(
  {
    timeouts: clocks,
    more: ['http://127.0.0.1:1', 'http://no-such-host.invalid:80'],
  },
  (one, of) => {
    harness = one;
    replica = of;
  },
);

interface Expected {
  readonly error: number;
  readonly outcome: number;
}

/** The attempt fails, nothing was committed, and a second attempt serves the same request. */
async function failsThenServes(
  respond: (request: RawRequest) => void,
  expected: Expected,
  check: (released: Released) => void = () => {},
): Promise<void> {
  let attempts = 0;
  replica.respond = (request) => {
    if (attempts++ === 0) respond(request);
    else serve(request);
  };
  const request = harness.send();
  const released = await request.givenBack();
  expect(released).toMatchObject({ ...expected, state: SlotState.resuming });
  expect(request.head).toBeUndefined();
  expect(request.started).toBe(0);
  expect(attempts).toBe(1);
  await serveAgain(request);
  expect(attempts).toBe(2);
  check(released);
}

async function serveAgain(request: HarnessRequest): Promise<void> {
  harness.dispatch(request, 0);
  await harness.until(() => request.end !== undefined && request.released.length === 2);
  expect(JSON.parse(request.text)).toEqual({ served: true });
  harness.free(request);
}

const entry = (error: { readonly number: number }, outcome: number): Expected => ({
  error: error.number,
  outcome,
});
const write = (bytes: string | Buffer) => (request: RawRequest) => {
  request.connection.socket.write(bytes);
};
/** Closes the connection, so that each test begins on a fresh one. */
const serve = write(jsonAnswer({ served: true }, 200, 'connection: close\r\n'));
const serveAndKeep = write(jsonAnswer({ served: true }));

describe('before anything reached the client the request is given back', () => {
  test('F04: a refused connection', async () => {
    replica.respond = serve;
    const request = harness.send({ replica: 1 });
    expect(await request.givenBack()).toMatchObject(entry(errors.CONNECT_REFUSED, Outcome.dead));
    await serveAgain(request);
  });

  test('F05: a name that does not resolve', async () => {
    replica.respond = serve;
    const request = harness.send({ replica: 2 });
    const released = await request.givenBack();
    expect(released).toMatchObject(entry(errors.DNS_FAILED, Outcome.dead));
    await serveAgain(request);
  });

  test('FIN before the head', () =>
    failsThenServes(
      ({ connection }) => connection.socket.end(),
      entry(errors.CLOSED_EARLY, Outcome.dead),
    ));

  test('RST before the head', () =>
    failsThenServes(
      ({ connection }) => connection.socket.resetAndDestroy(),
      entry(errors.RESET, Outcome.dead),
    ));

  test('FIN in the middle of the head', () =>
    failsThenServes(
      ({ connection }) => connection.socket.end('HTTP/1.1 200 OK\r\ncontent-ty'),
      entry(errors.CLOSED_EARLY, Outcome.dead),
    ));

  test('F06: no head within the first-token clock', async () => {
    const start = performance.now();
    await failsThenServes(() => {}, entry(errors.HEADERS_TIMEOUT, Outcome.slow));
    expect(performance.now() - start).toBeLessThan(clocks.firstToken + 1000);
  });

  test('F07: a head and no token within the same clock', () =>
    failsThenServes(write(sseHead), entry(errors.FIRST_TOKEN_TIMEOUT, Outcome.slow)));

  test('F07: comments and a role are no token', () =>
    failsThenServes(
      ({ connection: { socket } }) => {
        socket.write(sse(chunk(roleEvent)));
        const timer = setInterval(() => socket.write(chunk(': ping\n\n')), 50);
        socket.on('close', () => clearInterval(timer));
      },
      entry(errors.FIRST_TOKEN_TIMEOUT, Outcome.slow),
    ));

  test('F07: not a stream, a head and no body', () =>
    failsThenServes(
      write('HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n'),
      entry(errors.FIRST_TOKEN_TIMEOUT, Outcome.slow),
    ));

  test.each([
    ['F01: 500', 500, errors.REPLICA_5XX, Outcome.dead],
    ['502', 502, errors.REPLICA_5XX, Outcome.dead],
    ['504', 504, errors.REPLICA_5XX, Outcome.dead],
    ['a redirect', 307, errors.REPLICA_5XX, Outcome.dead],
    ['408', 408, errors.HEADERS_TIMEOUT, Outcome.slow],
    ['F12: 401', 401, errors.CLIENT_KEY_REFUSED, Outcome.clientError],
    ['F12: 403', 403, errors.CLIENT_KEY_REFUSED, Outcome.clientError],
    ['503', 503, errors.REPLICA_OVERLOADED, Outcome.busy],
    ['429', 429, errors.REPLICA_RATE_LIMITED, Outcome.busy],
  ] as const)('%s', async (_name, status, error, outcome) => {
    const bytes = jsonAnswer({ error: { message: 'no' } }, status, 'location: /x\r\n');
    const connections = replica.connections.length;
    await failsThenServes(write(bytes), entry(error, outcome));
    // A short error body is read to its end, so both attempts share the connection.
    expect(replica.connections.length - connections).toBeLessThanOrEqual(1);
  });

  test('a 429 to the key of the client goes to the client, with what it says of the limits', async () => {
    const advice = 'retry-after: 7\r\nx-ratelimit-remaining-tokens: 0\r\n';
    replica.respond = write(jsonAnswer({ error: { code: 'insufficient_quota' } }, 429, advice));
    const request = await harness.send({ headers: ['authorization', 'Bearer sk-1'] }).ended();
    expect(request.head?.status).toBe(429);
    expect(request.headers.join()).toContain('retry-after,7,x-ratelimit-remaining-tokens,0');
    expect(JSON.parse(request.text).error.code).toBe('insufficient_quota');
    expect(request.released).toMatchObject([{ outcome: Outcome.clientError, error: 0 }]);
    harness.free(request);
  });

  test.each([
    ['F02: seconds', 'retry-after: 5\r\n', 5000, 5000],
    ['a fraction of a second', 'retry-after: 0.25\r\n', 250, 250],
    ['retry-after-ms before retry-after', 'retry-after: 5\r\nretry-after-ms: 120\r\n', 120, 120],
    ['a date', `retry-after: ${new Date(Date.now() + 60_000).toUTCString()}\r\n`, 40_000, 60_000],
    ['a date in the past', 'retry-after: Wed, 21 Oct 2015 07:28:00 GMT\r\n', 0, 0],
    ['nonsense', 'retry-after: soon\r\n', 0, 0],
    ['an absurd wait', 'retry-after: 99999999\r\n', 600_000, 600_000],
  ])('retry-after as %s', async (_name, header, least, most) => {
    await failsThenServes(
      write(jsonAnswer({}, 503, header)),
      entry(errors.REPLICA_OVERLOADED, Outcome.busy),
      (released) => {
        expect(released.retryAfterMs).toBeGreaterThanOrEqual(least);
        expect(released.retryAfterMs).toBeLessThanOrEqual(most);
      },
    );
  });

  test('F13: 200 with an error body', () =>
    failsThenServes(
      write(jsonAnswer({ error: { message: 'out of memory' } })),
      entry(errors.ERROR_BODY, Outcome.dead),
    ));

  test('F13: an error event first in the stream', () =>
    failsThenServes(
      write(sse(chunk(roleEvent), chunk('data: {"error":{"message":"x"}}\n\n'))),
      entry(errors.ERROR_EVENT, Outcome.dead),
    ));

  test('a stream cut before its first token', () =>
    failsThenServes(
      ({ connection }) => connection.socket.end(sse(chunk(roleEvent))),
      entry(errors.TRUNCATED_STREAM, Outcome.truncated),
    ));

  test('a whole answer cut before its length', () =>
    failsThenServes(
      ({ connection }) =>
        connection.socket.end(
          'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"a":1',
        ),
      entry(errors.TRUNCATED_STREAM, Outcome.truncated),
    ));

  test('a chunked whole answer without its last chunk', () =>
    failsThenServes(
      ({ connection }) =>
        connection.socket.end(
          'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{"a":\r\n',
        ),
      entry(errors.TRUNCATED_STREAM, Outcome.truncated),
    ));

  const fin = ({ connection: { socket } }: RawRequest) => socket.end();
  const reset = ({ connection: { socket } }: RawRequest) => socket.resetAndDestroy();
  test.each([
    ['FIN', '{"a":[1,2', fin],
    ['FIN before its first byte', '', fin],
    ['RST', '{"a":[1,2', reset],
  ])('a whole answer without a length, cut by %s', (_name, start, cut) =>
    failsThenServes(
      (request) => {
        const { socket } = request.connection;
        const head =
          'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n';
        socket.write(head + start, () => setTimeout(() => cut(request), 20));
      },
      entry(errors.TRUNCATED_STREAM, Outcome.truncated),
    ),
  );

  test.each([
    ['two differing content-lengths', 'content-length: 3\r\ncontent-length: 5\r\n\r\nabcde'],
    [
      'content-length and chunked',
      'content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    ['a content-length that is no number', 'content-length: 3x\r\n\r\nabc'],
    ['a header without a colon', 'nonsense\r\n\r\n'],
    ['a head of 20 KB', `x: ${'y'.repeat(20_000)}\r\ncontent-length: 0\r\n\r\n`],
    ['an upgrade', 'connection: upgrade\r\nupgrade: websocket\r\n\r\n'],
  ])('a head with %s', (name, rest) => {
    const status = name === 'an upgrade' ? '101 Switching Protocols' : '200 OK';
    return failsThenServes(
      write(`HTTP/1.1 ${status}\r\n${rest}`),
      entry(errors.RESPONSE_FRAMING, Outcome.dead),
    );
  });

  test('bytes that are not HTTP', () =>
    failsThenServes(
      write('SSH-2.0-OpenSSH_9.2\r\n'),
      entry(errors.RESPONSE_FRAMING, Outcome.dead),
    ));

  test('a compressed stream, which could not be followed', () =>
    failsThenServes(
      write(sseHead.replace('\r\n\r\n', '\r\ncontent-encoding: gzip\r\n\r\n')),
      entry(errors.RESPONSE_FRAMING, Outcome.dead),
    ));

  test('another epoch of the row is another replica', async () => {
    replica.respond = serve;
    const seen = replica.requests.length;
    const request = harness.send({ epoch: 9 });
    expect(await request.givenBack()).toMatchObject(entry(errors.CONNECT_REFUSED, Outcome.dead));
    expect(replica.requests.length).toBe(seen);
    await serveAgain(request);
  });
});

describe('F08: a stream cut after tokens ends with the error and without [DONE]', () => {
  const head = (extra: string): string =>
    `HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n${extra}\r\n`;
  const tokens = tokenEvent('one') + tokenEvent('two');
  const halfEvent = tokenEvent('three').slice(0, 40);
  const framings: readonly [string, Buffer][] = [
    ['chunked', Buffer.concat([Buffer.from(sseHead), chunk(tokens + halfEvent)])],
    ['content-length', Buffer.from(head('content-length: 5000\r\n') + tokens + halfEvent)],
    ['close-delimited', Buffer.from(head('connection: close\r\n') + tokens + halfEvent)],
  ];
  const cuts: readonly [string, (request: RawRequest) => void][] = [
    ['FIN', ({ connection }) => connection.socket.end()],
    ['RST', ({ connection }) => connection.socket.resetAndDestroy()],
  ];
  const rows = framings.flatMap(([framing, bytes]) =>
    cuts.map(([name, cut]) => [framing, name, bytes, cut] as const),
  );
  test.each(rows)('%s, %s', async (_framing, _name, bytes, cut) => {
    replica.respond = (request) => request.connection.socket.write(bytes);
    const request = harness.send();
    await harness.until(() => request.body.length > 0); // the tokens are out before the cut
    cut(replica.requests.at(-1)!);
    await request.ended();
    expect(request.text).toBe(tokens);
    expect(request.end).toEqual({ error: errors.TRUNCATED_STREAM.number, whole: false });
    expect(request.released).toMatchObject([
      { ...entry(errors.TRUNCATED_STREAM, Outcome.truncated), state: SlotState.settled },
    ]);
    harness.free(request);
  });

  test('a broken chunk size', async () => {
    replica.respond = write(sse(chunk(tokens), 'zz\r\n'));
    const request = await harness.send().ended();
    expect(request.end?.error).toBe(errors.RESPONSE_FRAMING.number);
    expect(request.text).toBe(tokens);
    harness.free(request);
  });

  test('a large whole answer that breaks after its beginning', async () => {
    const length = 400_000;
    replica.respond = ({ connection: { socket } }) => {
      socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${length}\r\n\r\n`);
      socket.write(Buffer.alloc(length - 1, 'x'), () => socket.end());
    };
    const request = await harness.send().ended();
    expect(request.text.length).toBe(length - 1);
    expect(request.end?.error).toBe(errors.TRUNCATED_STREAM.number);
    harness.free(request);
  });
});

describe('T07: a kept-alive connection the replica had given up', () => {
  test.each([
    ['FIN', (request: RawRequest) => request.connection.socket.end()],
    ['RST', (request: RawRequest) => request.connection.socket.resetAndDestroy()],
  ])('%s costs no attempt', async (_name, cut) => {
    replica.respond = (request) => {
      // Only a connection that has served is given up, at the moment the next request arrives.
      if (request.connection.requests === 1) serveAndKeep(request);
      else cut(request);
    };
    const first = await harness.send().ended();
    harness.free(first);
    const connection = replica.requests.at(-1)!.connection;
    const reused = await harness.send().ended();
    expect(connection.requests).toBe(2);
    expect(reused.released).toMatchObject([{ outcome: Outcome.ok }]);
    expect(JSON.parse(reused.text)).toEqual({ served: true });
    harness.free(reused);
  });

  test('a fresh connection that fails is a failed attempt, after one retry', async () => {
    replica.respond = (request) => {
      if (request.index === first) serveAndKeep(request);
      else request.connection.socket.resetAndDestroy();
    };
    const first = replica.requests.length;
    harness.free(await harness.send().ended());
    const request = harness.send();
    expect(await request.givenBack()).toMatchObject(entry(errors.RESET, Outcome.dead));
    expect(replica.requests.length - first).toBe(3);
    replica.respond = serve;
    await serveAgain(request);
  });

  test('one that began to answer is not tried again', async () => {
    replica.respond = (request) => {
      if (request.connection.requests === 1) serveAndKeep(request);
      else request.connection.socket.end('HTTP/1.1 2');
    };
    harness.free(await harness.send().ended());
    const seen = replica.requests.length;
    const request = harness.send();
    expect(await request.givenBack()).toMatchObject(entry(errors.CLOSED_EARLY, Outcome.dead));
    expect(replica.requests.length).toBe(seen + 1);
    replica.respond = serve;
    await serveAgain(request);
  });
});

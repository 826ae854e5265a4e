/** How streams end: completeness against the connection, and the clocks after the first token. */
import { describe, expect, test } from 'vitest';
import { errors } from '../../src/errors/catalogue.ts';
import { Outcome } from '../../src/shm/rings.layout.ts';
import type { ForwarderHarness } from '../support/forwarder-harness.ts';
import { forwarderForAll } from '../support/forwarder-suite.ts';
import {
  chunk,
  doneEvent,
  finishEvent,
  jsonAnswer,
  lastChunk,
  type RawReplica,
  type RawRequest,
  sse,
  tokenEvent,
} from '../support/raw-replica.ts';

const clocks = { connect: 300, firstToken: 400, interToken: 300, total: 1500 };
let replica: RawReplica;
let harness: ForwarderHarness;
forwarderForAll({ timeouts: clocks }, (one, of) => {
  harness = one;
  replica = of;
});

const write = (bytes: string | Buffer) => (request: RawRequest) => {
  request.connection.socket.write(bytes);
};
/** Closes the connection, so that each test begins on a fresh one. */
const serve = write(jsonAnswer({ served: true }, 200, 'connection: close\r\n'));

describe('a stream that is complete ends well however its connection ends', () => {
  test.each([
    ['[DONE], then RST', doneEvent],
    ['a finish reason, then RST', finishEvent],
  ])('%s', async (_name, last) => {
    replica.respond = ({ connection: { socket } }) =>
      socket.write(sse(chunk(tokenEvent('a') + last)));
    const request = harness.send();
    await harness.until(() => request.body.length > 0);
    replica.requests.at(-1)!.connection.socket.resetAndDestroy();
    await request.ended();
    expect(request.text).toBe(tokenEvent('a') + last);
    expect(request.end?.error).toBe(0);
    expect(request.released).toMatchObject([{ outcome: Outcome.ok, error: 0 }]);
    harness.free(request);
  });

  test('a finish reason, then silence', async () => {
    replica.respond = write(sse(chunk(tokenEvent('a') + finishEvent)));
    const start = performance.now();
    const request = await harness.send().ended();
    expect(performance.now() - start).toBeGreaterThanOrEqual(clocks.interToken);
    expect(request.text).toBe(tokenEvent('a') + finishEvent);
    expect(request.end?.error).toBe(0);
    expect(request.released).toMatchObject([{ outcome: Outcome.ok, error: 0 }]);
    await replica.requests.at(-1)!.connection.closed;
    harness.free(request);
  });

  test('n = 2 wants a finish reason for both', async () => {
    replica.respond = ({ connection }) =>
      connection.socket.end(sse(chunk(tokenEvent('a') + finishEvent), lastChunk));
    const request = await harness.send({ choices: 2 }).ended();
    expect(request.end?.error).toBe(errors.TRUNCATED_STREAM.number);
    harness.free(request);
  });
});

describe('clocks after the first token', () => {
  test('F09: silence ends the stream with the inter-token clock', async () => {
    replica.respond = write(sse(chunk(tokenEvent('a'))));
    const start = performance.now();
    const request = await harness.send().ended();
    const took = performance.now() - start;
    expect(request.end?.error).toBe(errors.INTER_TOKEN_TIMEOUT.number);
    expect(request.released[0]?.outcome).toBe(Outcome.slow);
    expect(took).toBeGreaterThanOrEqual(clocks.interToken);
    expect(took).toBeLessThan(clocks.interToken + 1000);
    await replica.requests.at(-1)!.connection.closed;
    harness.free(request);
  });

  test('T10: a drip of bytes without an event is silence', async () => {
    replica.respond = ({ connection: { socket } }) => {
      socket.write(sse(chunk(tokenEvent('a'))));
      const timer = setInterval(() => socket.write(chunk('x')), 30);
      socket.on('close', () => clearInterval(timer));
    };
    const request = await harness.send().ended();
    expect(request.end?.error).toBe(errors.INTER_TOKEN_TIMEOUT.number);
    harness.free(request);
  });

  test.each([
    ['timeouts.total', 0, Outcome.slow],
    ['the client, which the replica is not blamed for', 900, Outcome.cancelled],
  ])('F14: tokens just inside the clock end at the deadline of %s', async (_name, ms, outcome) => {
    replica.respond = ({ connection: { socket } }) => {
      socket.write(sse(chunk(tokenEvent('a'))));
      const timer = setInterval(() => socket.write(chunk(tokenEvent('b'))), 200);
      socket.on('close', () => clearInterval(timer));
    };
    const request = await harness.send({ deadlineMs: ms }).ended();
    expect(request.end?.error).toBe(errors.DEADLINE.number);
    expect(request.released).toMatchObject([{ outcome, error: errors.DEADLINE.number }]);
    expect(request.body.length).toBeGreaterThan(2);
    harness.free(request);
  });

  test('a deadline of the client before the first token gives the request back', async () => {
    const request = harness.send({ deadlineMs: 150 });
    expect(await request.givenBack()).toMatchObject({
      error: errors.DEADLINE.number,
      outcome: Outcome.cancelled,
    });
    replica.respond = serve;
    await replica.requests.at(-1)!.connection.closed;
  });
});

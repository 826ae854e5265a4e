/** Credit and full rings: a slow client costs its own stream, and no byte is lost. */
import { createHash } from 'node:crypto';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { errors } from '../../src/errors/catalogue.ts';
import { Outcome } from '../../src/shm/rings.layout.ts';
import { metrics } from '../../src/telemetry/catalogue.ts';
import { Ring } from '../../src/telemetry/labels.ts';
import { ForwarderHarness, type HarnessRequest } from '../support/forwarder-harness.ts';
import {
  chunk,
  doneEvent,
  jsonAnswer,
  lastChunk,
  RawReplica,
  type RawRequest,
  sse,
  sseHead,
  tokenEvent,
} from '../support/raw-replica.ts';

const window = 64 * 1024;
const recordMax = 16 * 1024;

let replica: RawReplica;
let harness: ForwarderHarness;
beforeAll(async () => {
  replica = await RawReplica.listen();
});
afterAll(() => replica.close());
beforeEach(() => {
  replica.respond = () => {};
});
afterEach(() => harness.close());

const sha = (bytes: Buffer | string): string => createHash('sha256').update(bytes).digest('hex');

/** Writes `events` as one stream, as fast as the socket takes them. */
function pour(events: readonly string[]): (request: RawRequest) => void {
  return ({ connection: { socket } }) => {
    socket.write(sseHead);
    let next = 0;
    const more = (): void => {
      while (next < events.length) if (!socket.write(chunk(events[next++]!))) break;
      if (next < events.length) socket.once('drain', more);
      else socket.write(lastChunk);
    };
    more();
  };
}

const sized = (count: number, bytes: number): string[] => [
  ...Array.from({ length: count }, (_, i) => tokenEvent(`${i}${'x'.repeat(bytes)}`)),
  doneEvent,
];

/** Resolves when `value` has stopped to change over many turns of the harness. */
async function settles(value: () => number): Promise<number> {
  let last = Number.NaN;
  let same = 0;
  await harness.until(() => {
    same = value() === last ? same + 1 : 0;
    last = value();
    return same > 60;
  });
  return last;
}

describe('credit', () => {
  test.each([
    [window, 36_000],
    [8 * 1024, 14_000],
  ])('a window of %i is kept to the byte', async (streamWindow, count) => {
    harness = await ForwarderHarness.start({ urls: [replica.url], streamWindow });
    const events = sized(count, 1000);
    replica.respond = pour(events);
    const request = harness.send({ reads: false });
    await harness.until(() => request.unconsumed >= streamWindow);
    const { socket } = replica.requests[replica.requests.length - 1]!.connection;
    const left = await settles(() => socket.bytesWritten - socket.writableLength);
    // The replica's socket has stopped: what it could push is what the kernel buffers hold.
    expect(left).toBeLessThan(0.8 * count * 1000);
    let most = request.unconsumed;
    while (request.end === undefined) {
      most = Math.max(most, request.unconsumed);
      const before = request.records.length;
      if (request.unconsumed > 0) request.take(request.unconsumed);
      await harness.until(() => request.records.length > before || request.end !== undefined);
    }
    expect(most).toBeGreaterThanOrEqual(streamWindow);
    expect(most).toBeLessThanOrEqual(streamWindow + recordMax);
    expect(Math.max(...request.records)).toBeLessThanOrEqual(recordMax);
    expect(request.end).toEqual({ error: 0, whole: false });
    expect(sha(Buffer.concat(request.body))).toBe(sha(events.join('')));
  });

  test('one byte at a time is credit too', async () => {
    harness = await ForwarderHarness.start({ urls: [replica.url], streamWindow: 1024 });
    const events = sized(20, 400);
    replica.respond = pour(events);
    const request = harness.send({ reads: false });
    while (request.end === undefined) {
      await harness.until(() => request.unconsumed > 0 || request.end !== undefined);
      while (request.unconsumed > 0) request.take(1);
    }
    expect(request.text).toBe(events.join(''));
  });

  test('counters that wrap do not stop a stream', async () => {
    harness = await ForwarderHarness.start({ urls: [replica.url] });
    const events = sized(200, 2000);
    replica.respond = pour(events);
    const slots = harness.slots;
    // The client's connection has taken almost 2^31 bytes, as the row of a long life would say.
    const request = harness.send({ reads: true, consumedBytes: 2 ** 31 - 50_000 });
    await request.ended();
    expect(request.text).toBe(events.join(''));
    expect(slots.words[slots.row(request.slot) + slots.at.producedBytes]).toBeLessThan(0);
  });

  test('T22, T23: a client that does not read leaves the others alone', async () => {
    harness = await ForwarderHarness.start({ urls: [replica.url] });
    const large = sized(5000, 1000);
    const small = sized(50, 20);
    replica.respond = (request) => pour(request.body.includes('large') ? large : small)(request);
    const stuck = Array.from({ length: 20 }, () => harness.send({ body: 'large', reads: false }));
    await harness.until(() => stuck.every((request) => request.unconsumed >= window));
    for (let i = 0; i < 20; i++) {
      const request = await harness.send({ body: 'small' }).ended();
      expect(request.text).toBe(small.join(''));
      harness.free(request);
    }
    for (const request of stuck) expect(request.unconsumed).toBeLessThanOrEqual(window + recordMax);
    for (const request of stuck) {
      request.abort();
      await request.ended();
      harness.free(request);
    }
    expect(harness.inUse).toBe(0);
  });

  test('a client that waits is no silence of the replica', async () => {
    harness = await ForwarderHarness.start({
      urls: [replica.url],
      timeouts: { interToken: 200, firstToken: 200 },
    });
    const events = sized(400, 1000);
    replica.respond = (received) => {
      const { socket } = received.connection;
      if (received.body.toString() === 'silent') socket.write(sse(chunk(tokenEvent('x'))));
      else pour(events)(received);
    };
    const request = harness.send({ reads: false });
    await harness.until(() => request.unconsumed >= window);
    // Two silences that began later have been found by the same clock.
    for (let i = 0; i < 2; i++) {
      const silent = await harness.send({ body: 'silent' }).ended();
      expect(silent.end?.error).toBe(errors.INTER_TOKEN_TIMEOUT.number);
    }
    expect(request.end).toBeUndefined();
    while (request.end === undefined) {
      if (request.unconsumed > 0) request.take(request.unconsumed);
      await harness.until(() => request.unconsumed > 0 || request.end !== undefined);
    }
    expect(request.end.error).toBe(0);
    expect(request.text).toBe(events.join(''));
  });
});

describe('a client that does not read until the deadline is no failure of the replica', () => {
  beforeEach(async () => {
    harness = await ForwarderHarness.start({ urls: [replica.url], timeouts: { total: 700 } });
  });

  async function expectBlameless(request: HarnessRequest): Promise<void> {
    await request.ended();
    const error = errors.DEADLINE.number;
    expect(request.end).toEqual({ error, whole: false });
    expect(request.released).toMatchObject([{ outcome: Outcome.cancelled, error }]);
    harness.free(request);
  }

  test('while the replica is paused', async () => {
    replica.respond = pour(sized(400, 1000));
    await expectBlameless(harness.send({ reads: false }));
  });

  test('when the answer is all here', async () => {
    const [first, second] = [tokenEvent('x'.repeat(60_000)), tokenEvent('y'.repeat(30_000))];
    replica.respond = ({ connection }) => connection.socket.write(sse(chunk(first)));
    const request = harness.send({ reads: false });
    await harness.until(() => request.unconsumed === first.length);
    const { socket } = replica.requests.at(-1)!.connection;
    socket.write(Buffer.concat([chunk(second + doneEvent), Buffer.from(lastChunk)]));
    await expectBlameless(request);
  });
});

describe('T38: a full response ring', () => {
  test.each([1024, 8 * 1024])('of %i bytes pauses the streams and loses nothing', async (bytes) => {
    harness = await ForwarderHarness.start({ urls: [replica.url], responseRingBytes: bytes });
    const events = Array.from({ length: 6 }, (_, i) => [
      ...Array.from({ length: 300 }, (_unused, k) => tokenEvent(`${i}:${k} ${'y'.repeat(k)}`)),
      doneEvent,
    ]);
    replica.respond = (request) => pour(events[Number(request.body)]!)(request);
    harness.paused = true;
    const requests = events.map((_, i) => harness.send({ body: String(i) }));
    await harness.until(() => fullTurns() > 0);
    const whole = (request: HarnessRequest): boolean => request.end !== undefined;
    while (!requests.every(whole)) {
      harness.readRecords(1);
      await new Promise((resolve) => setImmediate(resolve));
    }
    harness.paused = false;
    for (const [i, request] of requests.entries()) {
      await request.ended();
      expect(request.end).toEqual({ error: 0, whole: false });
      expect(sha(Buffer.concat(request.body))).toBe(sha(events[i]!.join('')));
      harness.free(request);
    }
  });

  test('a stream paused in the middle of an event goes on once there is room', async () => {
    harness = await ForwarderHarness.start({ urls: [replica.url], responseRingBytes: 1024 });
    const event = tokenEvent('second');
    replica.respond = ({ connection: { socket }, body }) => {
      if (body.toString() === 'halved') socket.write(sse(chunk(tokenEvent('first'))));
      else pour(sized(500, 100))({ connection: { socket } } as RawRequest);
    };
    const halved = harness.send({ body: 'halved' });
    await harness.until(() => halved.text === tokenEvent('first'));
    const { socket } = replica.requests.at(-1)!.connection;
    harness.paused = true;
    const other = harness.send({ body: 'fills the ring' });
    await harness.until(() => fullTurns() > 0);
    socket.write(chunk(event.slice(0, 10))); // completes no event: nothing to write for this stream
    const turns = fullTurns();
    await harness.until(() => fullTurns() > turns);
    harness.paused = false;
    await other.ended();
    socket.write(Buffer.concat([chunk(event.slice(10)), chunk(doneEvent), Buffer.from(lastChunk)]));
    await halved.ended();
    expect(halved.text).toBe(tokenEvent('first') + event + doneEvent);
    for (const request of [halved, other]) harness.free(request);
  });

  test('holds whole answers back in order', async () => {
    harness = await ForwarderHarness.start({ urls: [replica.url], responseRingBytes: 1024 });
    replica.respond = ({ connection, body }) =>
      connection.socket.write(jsonAnswer({ is: body.toString(), pad: 'z'.repeat(200) }));
    harness.paused = true;
    const requests = Array.from({ length: 30 }, (_, i) => harness.send({ body: String(i) }));
    await harness.until(() => fullTurns() > 0);
    harness.paused = false;
    for (const [i, request] of requests.entries()) {
      await request.ended();
      expect(request.end?.whole).toBe(true);
      expect(JSON.parse(request.text)).toEqual({ is: String(i), pad: 'z'.repeat(200) });
      harness.free(request);
    }
  });

  test('an abort still settles once there is room', async () => {
    harness = await ForwarderHarness.start({ urls: [replica.url], responseRingBytes: 1024 });
    replica.respond = pour(sized(500, 100));
    harness.paused = true;
    const request = harness.send();
    await harness.until(() => fullTurns() > 0);
    request.abort();
    await replica.requests[replica.requests.length - 1]!.connection.closed;
    harness.paused = false;
    await request.ended();
    harness.free(request);
  });
});

function fullTurns(): number {
  return harness.snapshot().counter(metrics.ringFull, Ring.response);
}

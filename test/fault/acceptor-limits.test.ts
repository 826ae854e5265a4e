/** An acceptor under pressure and with injected faults: full tables, slow clients, hostile input, throws. */
import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { errors } from '../../src/errors/catalogue.ts';
import { SlotState } from '../../src/shm/request-slots.layout.ts';
import { AcceptorHarness, type Arrival } from '../support/acceptor-harness.ts';
import { chat, codeOf, get, post } from '../support/acceptor-wire.ts';
import { RawClient, rawRequest } from '../support/raw-client.ts';

/** Their list does not fit one burst. */
const manyModels = Array.from({ length: 60 }, (_, k) => ({
  name: `model-${k}-${'n'.repeat(200)}`,
  aliases: Array.from({ length: 10 }, (__, a) => `alias-${k}-${a}-${'a'.repeat(200)}`),
  policy: 'random',
  sessionAffinity: true,
}));

/** Sends to a client that does not read until its socket takes no more; the bytes that were sent. */
async function fillsSocket(
  harness: AcceptorHarness,
  { slot }: Arrival,
  lease: number,
): Promise<number> {
  const piece = Buffer.alloc(8 * 1024, 'z');
  for (let sent = piece.length; ; sent += piece.length) {
    expect(harness.tryChunk(slot, lease, piece)).toBe(true);
    const isAllTaken = (): boolean => harness.column(slot, 'consumedBytes') === sent;
    // What its loop has not taken by its third heartbeat the client's socket does not take.
    const beats = harness.beats + 3;
    await harness.until(() => isAllTaken() || harness.beats >= beats, 'taken or not');
    if (!isAllTaken()) return sent;
  }
}

/** A stream whose client does not read and whose socket is full. */
async function blockedStream(harness: AcceptorHarness) {
  const client = await RawClient.connect(harness.port);
  await client.send(post(chat({ stream: true })));
  client.socket.pause();
  const arrival = await harness.arrival();
  const lease = harness.head(arrival);
  return { client, arrival, lease, sent: await fillsSocket(harness, arrival, lease) };
}

describe.each(['uws', 'node'] as const)('acceptor limits, engine %s', (engine) => {
  test('full slots and a full arena answer 503 and recover', async () => {
    const harness = await AcceptorHarness.start({ engine, slots: 4, arenaBytes: 64 * 1024 });
    const clients: RawClient[] = [];
    for (let i = 0; i < 4; i++) {
      const client = await RawClient.connect(harness.port);
      await client.send(post(chat()));
      clients.push(client);
    }
    const held = [];
    for (let i = 0; i < 4; i++) held.push(await harness.arrival());
    const full = await rawRequest(harness.port, post(chat()));
    expect(full.responses[0]!.status).toBe(503);
    expect(codeOf(full.responses[0]!.body)).toBe('slots_full');
    expect(full.responses[0]!.headers.get('retry-after')).toBe('1');
    for (const arrival of held) harness.whole(arrival, 'ok');
    await harness.quiet();
    const large = await rawRequest(harness.port, post(chat({ pad: 'x'.repeat(70_000) })));
    expect(large.responses[0]!.status).toBe(503);
    expect(codeOf(large.responses[0]!.body)).toBe('body_memory_full');
    await harness.quiet();
    for (const client of clients) await client.close();
    await harness.stop();
  });

  test.each([
    ['transfer-encoding: chunked', ''],
    ['content-length: 250000', '{"model":'],
  ])('heads that claim a body take next to nothing (%s)', async (framing, body) => {
    const harness = await AcceptorHarness.start({ engine, slots: 64, arenaBytes: 1024 * 1024 });
    const claim = `POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\n${framing}\r\n\r\n${body}`;
    const clients: RawClient[] = [];
    for (let i = 0; i < 40; i++) {
      const client = await RawClient.connect(harness.port);
      await client.send(claim);
      clients.push(client);
    }
    await harness.until(() => harness.slotsInUse === 40, 'forty bodies awaited');
    harness.onArrival = (arrival) => harness.whole(arrival, 'ok');
    const beside = await rawRequest(harness.port, post(chat()));
    expect(beside.responses[0]!.status).toBe(200);
    for (const client of clients) client.reset();
    await harness.quiet();
    await harness.stop();
  });

  test('T39: with every 10th wake-up lost nothing hangs', async () => {
    const harness = await AcceptorHarness.start({ engine });
    harness.loseNotify(10);
    harness.onArrival = (arrival) => harness.whole(arrival, 'ok');
    const client = await RawClient.connect(harness.port);
    for (let i = 1; i <= 300; i++) {
      await client.send(post(chat()));
      const { responses } = await client.responses(i);
      expect(responses[i - 1]!.status).toBe(200);
    }
    await client.close();
    await harness.quiet();
    await harness.stop();
  });

  test('T24: large events under backpressure keep the framing, and the credit is exact', async () => {
    const harness = await AcceptorHarness.start({ engine });
    for (const size of [14, 16, 17, 64].map((k) => k * 1024)) {
      const client = await RawClient.connect(harness.port);
      await client.send(post(chat({ stream: true })));
      client.socket.pause();
      const arrival = await harness.arrival();
      const lease = harness.head(arrival);
      const event = Buffer.from(`data: ${'y'.repeat(size - 8)}\n\n`);
      const events = Math.ceil((12 * 1024 * 1024) / size);
      const bytes = Buffer.concat(Array.from({ length: events }, () => event));
      let isWritten = false;
      const written = harness.stream(arrival.slot, lease, bytes, size).then(() => {
        isWritten = true;
      });
      let seen = -1;
      // The socket buffers are full once the credit stands still.
      while (seen !== harness.column(arrival.slot, 'consumedBytes')) {
        seen = harness.column(arrival.slot, 'consumedBytes');
        await harness.beat();
      }
      expect(isWritten).toBe(false);
      client.socket.resume();
      await written;
      harness.end(arrival.slot, lease);
      const { responses, problem } = await client.responses(1);
      expect(problem).toBeUndefined();
      const sha = (data: Buffer): string => createHash('sha256').update(data).digest('hex');
      expect(sha(responses[0]!.body)).toBe(sha(bytes));
      await client.close();
      await harness.quiet();
    }
    expect(harness.counter('handlerErrors')).toBe(0);
    await harness.stop();
  });

  test('the tail of a stream arrives although nothing follows it', async () => {
    // uWebSockets.js keeps what a full socket refused until the next write, unless it is asked to send.
    const harness = await AcceptorHarness.start({ engine });
    const { client, arrival, lease, sent } = await blockedStream(harness);
    client.socket.resume();
    await harness.until(
      () => harness.column(arrival.slot, 'consumedBytes') === sent,
      'the client has taken all',
    );
    await client.until((bytes) => bytes.length > sent);
    harness.end(arrival.slot, lease);
    const { responses } = await client.responses(1);
    expect(responses[0]!.body.length).toBe(sent);
    await client.close();
    await harness.stop();
  });

  test('a blocked client that leaves while its answer ends keeps no slot', async () => {
    const harness = await AcceptorHarness.start({ engine });
    const { client, arrival, lease } = await blockedStream(harness);
    client.reset();
    await harness.cancelled(1);
    harness.end(arrival.slot, lease); // whole: the forwarder was done before it heard of the abort
    await harness.quiet();
    expect(harness.counter('handlerErrors')).toBe(0);
    await harness.stop();
  });

  test('T35: a throw in a handler, in onAborted, in a timer or at a record harms one request only', async () => {
    const harness = await AcceptorHarness.start({ engine, faultHooks: true });
    harness.onArrival = (arrival) => {
      if (harness.slots.state(arrival.slot) === SlotState.queued) harness.whole(arrival, 'ok');
    };
    const serves = async (): Promise<void> => {
      const { responses } = await rawRequest(harness.port, post(chat()));
      expect(responses[0]!.status).toBe(200);
    };
    harness.fault('handler');
    await harness.beat();
    const hit = await rawRequest(harness.port, post(chat()));
    expect(hit.responses).toEqual([]);
    await harness.until(
      () => harness.counter('handlerErrors') === 1,
      'the handler fault is counted',
    );
    await serves();
    harness.fault('aborted');
    await harness.beat(); // the thread has the fault
    const client = await RawClient.connect(harness.port);
    await client.send(post(chat()).slice(0, -3));
    await harness.until(() => harness.slotsInUse === 1, 'the body is being read');
    client.reset();
    await harness.until(() => harness.counter('handlerErrors') === 2, 'the abort fault is counted');
    await serves();
    harness.fault('timer', 2);
    await harness.until(
      () => harness.counter('handlerErrors') === 4,
      'the timer faults are counted',
    );
    await serves();
    harness.fault('record');
    await harness.beat();
    const cut = await RawClient.connect(harness.port);
    harness.onArrival = undefined;
    await cut.send(post(chat()));
    const arrival = await harness.arrival();
    const lease = harness.head(arrival);
    await cut.closed;
    await harness.cancelled(1);
    harness.end(arrival.slot, lease, errors.CLIENT_GONE.number);
    await harness.quiet();
    harness.onArrival = (next) => harness.whole(next, 'ok');
    await serves();
    await harness.quiet();
    expect(harness.counter('handlerErrors')).toBe(5);
    expect(await harness.stop()).toBe(0);
  });

  test('T35: a throw once a slot is taken, or in a later turn, costs neither slot nor thread', async () => {
    const harness = await AcceptorHarness.start({ engine, faultHooks: true, models: manyModels });
    for (const [count, stage, request] of [
      [1, 'admitted', post(chat())],
      [2, 'later', get('/v1/models')],
    ] as const) {
      harness.fault(stage);
      await harness.beat();
      const hit = await rawRequest(harness.port, request);
      expect(hit.responses, stage).toEqual([]);
      expect(harness.counter('handlerErrors'), stage).toBe(count);
      await harness.quiet();
    }
    const { responses } = await rawRequest(harness.port, get('/v1/models'));
    expect(responses[0]!.status).toBe(200);
    expect(await harness.stop()).toBe(0);
  });

  test('T35: without the environment flag the hooks are unreachable', async () => {
    const harness = await AcceptorHarness.start({ engine });
    harness.onArrival = (arrival) => harness.whole(arrival, 'ok');
    for (const stage of ['handler', 'timer', 'record', 'aborted'] as const)
      harness.fault(stage, 100);
    await harness.beat();
    const { responses } = await rawRequest(harness.port, post(chat()));
    expect(responses[0]!.status).toBe(200);
    expect(harness.counter('handlerErrors')).toBe(0);
    await harness.stop();
  });

  test('T28: connections above the cap are closed at once and the others are served', async () => {
    const harness = await AcceptorHarness.start({ engine, maxConnections: 50 });
    harness.onArrival = (arrival) => harness.whole(arrival, 'ok');
    const first = await RawClient.connect(harness.port);
    const others = await Promise.all(
      Array.from({ length: 249 }, () => RawClient.connect(harness.port)),
    );
    let closed = 0;
    for (const client of others) void client.closed.then(() => closed++);
    await harness.until(() => closed === 200, 'the excess is closed');
    await first.send(post(chat()));
    expect((await first.responses(1)).responses[0]!.status).toBe(200);
    await harness.beat();
    expect(harness.connections).toBe(50);
    for (const client of [first, ...others]) await client.close();
    await harness.until(() => harness.connections === 0, 'all connections are gone');
    const { responses } = await rawRequest(harness.port, post(chat()));
    expect(responses[0]!.status).toBe(200);
    await harness.stop();
  });

  test('many models make a list that is streamed', async () => {
    const harness = await AcceptorHarness.start({ engine, models: manyModels });
    const client = await RawClient.connect(harness.port);
    await client.send(get('/v1/models'));
    const { responses } = await client.responses(1);
    expect(JSON.parse(responses[0]!.body.toString()).data.length).toBe(660);
    await client.closed;
    await harness.stop();
  });
});

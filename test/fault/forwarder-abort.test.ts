/** T20 at the forwarder: a client that leaves frees slot and replica, in every stage. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { errors } from '../../src/errors/catalogue.ts';
import { nowMs } from '../../src/lib/clock.ts';
import { ControlLayout, ThreadId, ThreadPhase } from '../../src/shm/control.layout.ts';
import { controlCounts } from '../../src/shm/memory.ts';
import { SlotState } from '../../src/shm/request-slots.layout.ts';
import { DispatchKind, Outcome } from '../../src/shm/rings.layout.ts';
import { metrics } from '../../src/telemetry/catalogue.ts';
import { ForwarderHarness, type HarnessRequest } from '../support/forwarder-harness.ts';
import { inTime } from '../support/in-time.ts';
import {
  chunk,
  doneEvent,
  jsonAnswer,
  lastChunk,
  RawReplica,
  roleEvent,
  sseHead,
  tokenEvent,
} from '../support/raw-replica.ts';
import { replicaAddress } from '../support/replica-address.ts';

/** The promise of the design for the 99th percentile. */
const cancelMsMax = 250;

let replica: RawReplica;
let other: RawReplica;
let harness: ForwarderHarness;
beforeAll(async () => {
  replica = await RawReplica.listen();
  other = await RawReplica.listen();
});
afterAll(async () => {
  await replica.close();
  await other.close();
});
beforeEach(async () => {
  replica.respond = () => {};
  other.respond = () => {};
  harness = await ForwarderHarness.start({
    urls: [replica.url, `https://127.0.0.1:${replica.port}`],
    maxInFlight: 2,
  });
  return () => harness.close();
});

const cancels = (): number =>
  harness
    .snapshot()
    .buckets(metrics.cancel, 0)
    .reduce((sum, count) => sum + count);

/** A request whose replica does not read, so that most of its body waits in the gateway's socket. */
async function sendUnread() {
  const connections = replica.connections.length;
  const body = Buffer.alloc(32_000_000, 'p');
  const request = harness.send({ body });
  await replica.until(() => replica.connections.length > connections);
  const { socket, closed } = replica.connections.at(-1)!;
  socket.pause();
  return { request, body, socket, closed };
}

async function abortAndSettle(request: HarnessRequest): Promise<void> {
  const before = cancels();
  request.abort();
  await request.ended();
  expect(request.end).toEqual({ error: errors.CLIENT_GONE.number, whole: false });
  expect(request.released).toEqual([
    {
      outcome: Outcome.cancelled,
      error: errors.CLIENT_GONE.number,
      retryAfterMs: 0,
      state: SlotState.settled,
    },
  ]);
  expect(cancels()).toBe(before + 1);
  harness.free(request);
  expect(harness.inUse).toBe(0);
}

/** Aborts what `begin` has brought so far, and sees the replica's connection close in time. */
function abortSeen(begin: () => Promise<HarnessRequest>): Promise<void> {
  return inTime(cancelMsMax, async () => {
    const request = await begin();
    const { closed } = replica.connections.at(-1)!;
    const start = nowMs();
    await Promise.all([abortAndSettle(request), closed]);
    return nowMs() - start;
  });
}

describe('an abort reaches the replica', () => {
  test('while connecting: the handshake is cut', () =>
    abortSeen(async () => {
      const connections = replica.connections.length;
      const request = harness.send({ replica: 1 });
      await replica.until(() => replica.connections.length > connections);
      return request;
    }));

  test('while queued behind max_in_flight: the request is never sent', async () => {
    const seen = replica.requests.length;
    const first = harness.send();
    const second = harness.send();
    await replica.arrivals(seen + 2);
    const third = harness.send();
    third.abort();
    await third.ended();
    expect(third.end?.error).toBe(errors.CLIENT_GONE.number);
    harness.free(third);
    replica.respond = ({ connection }) => connection.socket.write(jsonAnswer({ n: 4 }));
    for (const { connection } of replica.requests.slice(seen)) {
      connection.socket.write(jsonAnswer({ ok: true }));
    }
    for (const request of [first, second]) harness.free(await request.ended());
    // The one after it goes out: the withdrawn request holds no connection.
    const fourth = await harness.send().ended();
    expect(fourth.text).toBe('{"n":4}');
    harness.free(fourth);
    expect(replica.requests.length).toBe(seen + 3);
  });

  test('when the request is sent', () =>
    abortSeen(async () => {
      const seen = replica.requests.length;
      const request = harness.send();
      await replica.arrivals(seen + 1);
      return request;
    }));

  test('while a large body is on its way: nothing of it is read later', async () => {
    const { request, body, socket, closed } = await sendUnread();
    request.abort();
    await request.ended();
    harness.free(request);
    socket.resume();
    await closed;
    expect(socket.bytesRead).toBeLessThan(body.length);
    expect(harness.inUse).toBe(0);
  });

  test('an answer that overtakes its request takes the connection with it', async () => {
    // What is unsent is a view of a body that the acceptor frees: it must never leave later.
    const { request, body, socket, closed } = await sendUnread();
    socket.write(jsonAnswer({ error: { message: 'too large' } }, 413));
    await request.ended();
    expect(request.head?.status).toBe(413);
    harness.free(request);
    socket.resume();
    await closed;
    expect(socket.bytesRead).toBeLessThan(body.length);
  });

  test('when the head is here and no token', async () => {
    replica.respond = ({ connection }) => connection.socket.write(sseHead);
    const requests: HarnessRequest[] = [];
    await abortSeen(async () => {
      const seen = replica.requests.length;
      const request = harness.send();
      requests.push(request);
      await replica.arrivals(seen + 1);
      return harness.until(() => request.status === 200, request);
    });
    for (const { head } of requests) expect(head).toBeUndefined();
  });

  test('in the middle of the stream', async () => {
    replica.respond = ({ connection }) =>
      connection.socket.write(Buffer.concat([Buffer.from(sseHead), chunk(tokenEvent('a'))]));
    await abortSeen(() => {
      const request = harness.send();
      return harness.until(() => request.body.length > 0, request);
    });
  });

  test('while the stream waits for credit', async () => {
    replica.respond = ({ connection }) =>
      connection.socket.write(
        Buffer.concat([Buffer.from(sseHead), chunk(tokenEvent('x'.repeat(500_000)))]),
      );
    await abortSeen(() => {
      const request = harness.send({ reads: false });
      return harness.until(() => request.unconsumed >= 64 * 1024, request);
    });
  });

  test('in a whole answer that is half here', async () => {
    replica.respond = ({ connection }) =>
      connection.socket.write('HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{"half":');
    await abortSeen(async () => {
      const seen = replica.requests.length;
      const request = harness.send();
      await replica.arrivals(seen + 1);
      return harness.until(() => request.status === 200, request);
    });
  });

  test('after the end it is late and only counted', async () => {
    replica.respond = ({ connection }) => connection.socket.write(jsonAnswer({ ok: true }));
    const request = await harness.send().ended();
    const before = harness.snapshot().counter(metrics.lateEvents, 0);
    request.abort();
    await harness.until(() => harness.snapshot().counter(metrics.lateEvents, 0) === before + 1);
    expect(request.released.length).toBe(1);
    harness.free(request);
  });

  test('200 at random moments leave nothing behind', async () => {
    const seen = replica.connections.length;
    await harness.close();
    harness = await ForwarderHarness.start({ urls: [replica.url], maxInFlight: 64 });
    replica.respond = ({ connection: { socket } }) => {
      socket.write(Buffer.concat([Buffer.from(sseHead), chunk(roleEvent)]));
      const timer = setInterval(() => socket.write(chunk(tokenEvent('t'))), 2);
      socket.on('close', () => clearInterval(timer));
    };
    const seed = Number(process.env.SEED ?? Date.now() % 100_000);
    console.log(`SEED=${seed}`);
    let state = seed;
    const random = (bound: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
      return Math.floor((state / 2 ** 32) * bound);
    };
    const one = async (): Promise<void> => {
      const request = harness.send();
      await new Promise((resolve) => setTimeout(resolve, random(20)));
      request.abort();
      await request.ended();
      harness.free(request);
    };
    for (let round = 0; round < 4; round++) await Promise.all(Array.from({ length: 50 }, one));
    expect(harness.inUse).toBe(0);
    const mine = replica.connections.slice(seen);
    // Those whose request was never written may idle; all others are cut.
    await replica.until(() => mine.every((c) => c.isClosed() || c.requests === 0));
    const conflicts = harness.snapshot().counter(metrics.settleConflicts, 0);
    expect(conflicts).toBe(0);
  });
});

describe('what is late is dropped', () => {
  test('a start for an older attempt or generation sends nothing', async () => {
    replica.respond = ({ connection }) => connection.socket.write(jsonAnswer({ ok: true }));
    const first = await harness.send().ended();
    const { slot, lease } = first;
    harness.free(first);
    const seen = replica.requests.length;
    replica.respond = () => {};
    const second = harness.send();
    expect(second.slot).toBe(slot);
    expect(second.generation).toBe(first.generation + 1);
    await replica.arrivals(seen + 1);
    harness.push(DispatchKind.start, slot, lease, 0, 1);
    harness.push(DispatchKind.start, slot, second.lease + 1, 0, 1);
    await harness.until(() => harness.snapshot().counter(metrics.lateEvents, 0) === 2);
    replica.requests.at(-1)!.connection.socket.write(jsonAnswer({ second: true }));
    await second.ended();
    expect(second.text).toBe('{"second":true}');
    expect(replica.requests.length).toBe(seen + 1);
    harness.free(second);
  });

  test('bytes that arrive for the slot before belong to nobody', async () => {
    const seen = replica.requests.length;
    const first = harness.send();
    await replica.arrivals(seen + 1);
    const late = replica.requests.at(-1)!.connection;
    first.abort();
    late.socket.write(Buffer.concat([Buffer.from(sseHead), chunk(tokenEvent('late'))]));
    await first.ended();
    harness.free(first);
    const second = harness.send();
    expect(second.slot).toBe(first.slot);
    await replica.arrivals(seen + 2);
    late.socket.write(chunk(tokenEvent('later') + doneEvent));
    replica.requests
      .at(-1)!
      .connection.socket.write(
        Buffer.concat([Buffer.from(sseHead), chunk(tokenEvent('mine') + doneEvent)]),
      );
    await second.ended();
    expect(second.text).toBe(tokenEvent('mine') + doneEvent);
    harness.free(second);
  });
});

describe('replicas come and go', () => {
  test('a forgotten replica ends its streams and takes nothing new', async () => {
    const seen = replica.requests.length;
    replica.respond = ({ connection }) =>
      connection.socket.write(Buffer.concat([Buffer.from(sseHead), chunk(tokenEvent('a'))]));
    const request = harness.send();
    await harness.until(() => request.body.length > 0);
    harness.post({ kind: 'forget', row: 0, epoch: 1 });
    await harness.until(() => harness.messages.some(({ kind }) => kind === 'applied'));
    const refused = harness.send();
    expect(await refused.givenBack()).toMatchObject({ error: errors.CONNECT_REFUSED.number });
    const { connection } = replica.requests.at(-1)!;
    connection.socket.write(Buffer.concat([chunk(doneEvent), Buffer.from(lastChunk)]));
    await request.ended();
    expect(request.text).toBe(tokenEvent('a') + doneEvent);
    await connection.closed; // and is not kept alive
    expect(replica.requests.length).toBe(seen + 1);
  });

  test('a new epoch of the row goes to the new address only', async () => {
    replica.respond = ({ connection }) =>
      connection.socket.write(Buffer.concat([Buffer.from(sseHead), chunk(tokenEvent('old'))]));
    other.respond = ({ connection }) => connection.socket.write(jsonAnswer({ at: 'new' }));
    const old = harness.send();
    await harness.until(() => old.body.length > 0);
    harness.post({ kind: 'replica', replica: replicaAddress(0, 2, other.url) });
    await harness.until(() => harness.messages.some(({ kind }) => kind === 'applied'));
    const fresh = await harness.send({ epoch: 2 }).ended();
    expect(fresh.text).toBe('{"at":"new"}');
    replica.requests.at(-1)!.connection.socket.write(chunk(doneEvent));
    await old.ended();
    expect(old.end?.error).toBe(0);
  });
});

describe('the end of the gateway', () => {
  test('stopping cuts streams with an error and gives the rest back within a second', async () => {
    const seen = replica.requests.length;
    const start = nowMs();
    replica.respond = ({ connection, index }) => {
      if (index > seen) return;
      connection.socket.write(Buffer.concat([Buffer.from(sseHead), chunk(tokenEvent('a'))]));
    };
    const streaming = harness.send();
    await harness.until(() => streaming.body.length > 0);
    const waiting = harness.send();
    await replica.arrivals(seen + 2);
    harness.setStopping();
    await streaming.ended();
    expect(streaming.end?.error).toBe(errors.SHUTTING_DOWN.number);
    expect(streaming.text).toBe(tokenEvent('a'));
    const released = await waiting.givenBack();
    expect(released).toMatchObject({
      error: errors.SHUTTING_DOWN.number,
      state: SlotState.resuming,
    });
    const late = harness.send();
    expect((await late.givenBack()).error).toBe(errors.SHUTTING_DOWN.number);
    expect(nowMs() - start).toBeLessThan(1000);
  });

  test('an idle thread ends in order', async () => {
    const exited = new Promise<number>((resolve) => harness.worker.once('exit', resolve));
    harness.post({ kind: 'stop' });
    await harness.until(() => harness.messages.some(({ kind }) => kind === 'stopped'));
    expect(await exited).toBe(0);
  });

  test('the thread beats while it lives', async () => {
    const { memory } = harness;
    const { at } = ControlLayout.place(controlCounts(memory.size));
    const row = at.thread.base + ThreadId.forwarder(0, memory.size) * at.thread.stride;
    const words = new Int32Array(memory.control);
    const beats = (): number => Atomics.load(words, row + at.thread.at.beats);
    const first = beats();
    await harness.until(() => beats() >= first + 3);
    expect(Atomics.load(words, row + at.thread.at.phase)).toBe(ThreadPhase.running);
    const beatUs = new Float64Array(memory.control)[(row + at.thread.at.beatUs) / 2]!;
    expect(Math.abs(beatUs / 1000 - nowMs())).toBeLessThan(1000);
  });
});

/** Two exchanges of one attempt at the forwarder: which counts, how the other ends, what is told. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { errors } from '../../src/errors/catalogue.ts';
import { HedgeFlag } from '../../src/shm/request-slots.layout.ts';
import { metrics } from '../../src/telemetry/catalogue.ts';
import { ForwarderHarness, type HarnessRequest } from '../support/forwarder-harness.ts';
import {
  chunk,
  doneEvent,
  finishEvent,
  jsonAnswer,
  lastChunk,
  RawReplica,
  type RawRequest,
  roleEvent,
  sseHead,
  tokenEvent,
  usageEvent,
} from '../support/raw-replica.ts';

let replicas: readonly [RawReplica, RawReplica];
let harness: ForwarderHarness;
beforeAll(async () => {
  replicas = [await RawReplica.listen(), await RawReplica.listen()];
});
afterAll(() => Promise.all(replicas.map((replica) => replica.close())));
beforeEach(async () => {
  for (const replica of replicas) replica.respond = () => {};
  harness = await ForwarderHarness.start({ urls: replicas.map(({ url }) => url) });
  return () => harness.close();
});

/** The first exchange at replica 0, its hedge at replica 1, and what each has received. */
async function hedged(stream = true) {
  const before = replicas.map(({ requests }) => requests.length);
  const request = harness.send({ stream });
  const { words, at } = harness.slots;
  words[harness.slots.row(request.slot) + at.hedgeReplica] = 1; // as the scheduler does
  harness.hedge(request, 1);
  await Promise.all(replicas.map((replica, i) => replica.arrivals(before[i]! + 1)));
  const received = replicas.map(({ requests }) => requests.at(-1)!) as [RawRequest, RawRequest];
  return { request, received };
}

const write = ({ connection }: RawRequest, ...parts: (string | Buffer)[]): void => {
  for (const part of parts) connection.socket.write(part);
};
const token = chunk(roleEvent + tokenEvent('a'));
const rest = [chunk(finishEvent + usageEvent + doneEvent), lastChunk];

async function endedWell(request: HarnessRequest, attempts = 1): Promise<void> {
  await request.ended();
  expect(request.end?.error).toBe(0);
  expect(request.released).toHaveLength(attempts);
  harness.free(request);
  expect(harness.inUse).toBe(0);
}

describe.each([0, 1])('with the first token from %i', (winner) => {
  const [won, lost] = winner === 1 ? ['hedge', 'first'] : ['first', 'hedge'];

  test('it is passed on at once, the other connection is closed, nothing of it is read', async () => {
    const { request, received } = await hedged();
    const other = received[1 - winner]!;
    write(other, sseHead, chunk(roleEvent));
    write(received[winner]!, sseHead, token);
    await harness.until(() => request.text.includes('"a"'));
    await other.connection.closed;
    expect(request.end).toBeUndefined();
    expect(request.told).toEqual([`${won} started`]);
    const flags = winner === 1 ? HedgeFlag.alone : HedgeFlag.over;
    expect(harness.column(request.slot, 'hedgeFlags')).toBe(HedgeFlag.begun | flags);
    expect(harness.slots.servingReplica(request.slot)).toBe(winner);
    write(received[winner]!, ...rest);
    await request.ended();
    expect(request.text.match(/"role"/g)).toHaveLength(1);
    expect(request.reported).toEqual([7, 3]);
    expect(request.told).toEqual([`${won} started`, `${won} released`]);
    expect(harness.slots.attempts(request.slot)).toBe(2);
    await endedWell(request);
  });

  test('a whole answer is that of the first to be complete', async () => {
    const { request, received } = await hedged(false);
    const other = received[1 - winner]!;
    write(other, 'HTTP/1.1 201 X\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{');
    write(received[winner]!, jsonAnswer({ from: winner }));
    await request.ended();
    await other.connection.closed;
    expect(request.text).toBe(`{"from":${winner}}`);
    expect(request.head?.status).toBe(200);
    expect(request.status).toBe(200);
    expect(request.told).toEqual([`${won} released`]);
    await endedWell(request);
  });

  test('the failure of the other before it is told and harms nobody', async () => {
    const { request, received } = await hedged();
    write(received[1 - winner]!, jsonAnswer({ error: 1 }, 500));
    await harness.until(() => request.told.length === 1);
    expect(request.told).toEqual([`${lost} dropped`]);
    write(received[winner]!, sseHead, token, ...rest);
    await request.ended();
    expect(request.told).toEqual([`${lost} dropped`, `${won} started`, `${won} released`]);
    expect(harness.column(request.slot, 'error')).toBe(0);
    expect(request.status).toBe(200);
    await endedWell(request);
  });

  test('both fail: the request is given back once', async () => {
    const { request, received } = await hedged();
    received[1 - winner]!.connection.socket.resetAndDestroy();
    await harness.until(() => request.told.length === 1);
    write(received[winner]!, jsonAnswer({ error: 1 }, 503));
    expect((await request.givenBack()).error).toBe(errors.REPLICA_OVERLOADED.number);
    expect(request.told).toEqual([`${lost} dropped`, `${won} released`]);
    const seen = replicas[0].requests.length;
    harness.dispatch(request, 0);
    await replicas[0].arrivals(seen + 1);
    write(replicas[0].requests.at(-1)!, sseHead, token, ...rest);
    await endedWell(request, 2);
  });
});

test('both in one read: one answer, told once', async () => {
  for (let round = 0; round < 20; round++) {
    const { request, received } = await hedged();
    for (const one of received) write(one, sseHead, token, ...rest);
    await request.ended();
    expect(request.text.match(/"a"/g)).toHaveLength(1);
    expect(request.told.map((text) => text.split(' ')[1])).toEqual(['started', 'released']);
    await endedWell(request);
  }
});

test('the client leaves: both connections close, one end is told', async () => {
  const { request, received } = await hedged();
  request.abort();
  await request.ended();
  await Promise.all(received.map(({ connection }) => connection.closed));
  expect(request.end?.error).toBe(errors.CLIENT_GONE.number);
  expect(request.told).toEqual(['first released']);
  harness.free(request);
});

test('the gateway stops: one is dropped, the other gives the request back', async () => {
  const { request } = await hedged();
  harness.setStopping();
  expect((await request.givenBack()).error).toBe(errors.SHUTTING_DOWN.number);
  expect(request.told.map((text) => text.split(' ')[1])).toEqual(['dropped', 'released']);
});

test('a hedge that comes again, or after the answer, or for an older attempt, is late', async () => {
  const { request, received } = await hedged();
  const late = (): number => harness.snapshot().counter(metrics.lateEvents, 0);
  const seen = replicas[1].requests.length;
  harness.hedge(request, 1);
  await harness.until(() => late() === 1);
  write(received[0], sseHead, token);
  await harness.until(() => request.started === 1);
  harness.hedge(request, 1);
  await harness.until(() => late() === 2);
  write(received[0], ...rest);
  await request.ended();
  harness.hedge(request, 1);
  await harness.until(() => late() === 3);
  expect(replicas[1].requests).toHaveLength(seen);
  await endedWell(request);
});

test('a hedge for a replica that is gone is told to have failed', async () => {
  const seen = replicas[0].requests.length;
  const request = harness.send();
  harness.hedge(request, 1, 7);
  await harness.until(() => request.told.length === 1);
  expect(request.told).toEqual(['hedge dropped']);
  await replicas[0].arrivals(seen + 1);
  write(replicas[0].requests.at(-1)!, sseHead, token, ...rest);
  await request.ended();
  expect(harness.slots.attempts(request.slot)).toBe(1);
  await endedWell(request);
});

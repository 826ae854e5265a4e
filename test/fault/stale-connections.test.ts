/**
 * T07 through the whole gateway: a kept-alive connection that its replica closes as the next request
 * comes in. Within a round trip that says nothing about the replica; later the replica died of it.
 */
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { expectQuiet, type GatewayProcess, gatewayProcess } from '../support/gateway.ts';
import { jsonAnswer, RawReplica, type RawRequest } from '../support/raw-replica.ts';
import { type Answer, post, total } from '../support/scenario.ts';

/** Longer than a dead connection takes to show (src/forwarder/replica-link.ts). */
const idleMs = 700;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

type OnChat = (request: RawRequest) => void;
const serve: OnChat = ({ connection }) =>
  connection.socket.write(jsonAnswer({ choices: [{ message: { content: 'a' } }] }));
const fin: OnChat = ({ connection }) => connection.socket.end();
const reset: OnChat = ({ connection }) => connection.socket.resetAndDestroy();

/** A replica whose test says what a chat meets; probes are always answered. */
class Replica {
  chats: RawRequest[] = [];
  onChat: OnChat = serve;
  raw!: RawReplica;

  async listen(): Promise<this> {
    this.raw = await RawReplica.listen((request) => {
      if (request.method === 'GET') request.connection.socket.write(jsonAnswer({ data: [] }));
      else {
        this.chats.push(request);
        this.onChat(request);
      }
    });
    return this;
  }
}

const only = new Replica();
const first = new Replica();
const second = new Replica();
let gateway: GatewayProcess;

beforeAll(async () => {
  await Promise.all([only, first, second].map((replica) => replica.listen()));
  const row = (name: string, { raw }: Replica) => ({ name, url: raw.url });
  gateway = await gatewayProcess({
    config: {
      health: { interval: '10m' },
      models: [
        { name: 'one', replicas: [row('only', only)] },
        {
          name: 'two',
          policy: 'round_robin',
          replicas: [row('first', first), row('second', second)],
        },
      ],
    },
  });
});
afterAll(async () => {
  await gateway.finish();
  for (const { raw } of [only, first, second]) await raw.close();
});
afterEach(async () => {
  await expectQuiet(gateway);
});

const ask = (model: string, id = 'any'): Promise<Answer> =>
  post(
    gateway.url,
    { model, messages: [{ role: 'user', content: 'a' }] },
    { 'x-request-id': `${id}-0123456789` },
  );

/** One chat for every replica, on a connection that then stays idle for longer than 500 ms. */
async function leaveIdle(model: string, replicas: readonly Replica[]): Promise<void> {
  for (const replica of replicas) {
    replica.chats = [];
    replica.onChat = serve;
  }
  for (const _ of replicas) expect((await ask(model)).status).toBe(200);
  for (const { chats } of replicas) expect(chats.length).toBe(1);
  await pause(idleMs);
}

const outcome = ({ status, headers }: Answer) => [status, Number(headers.get('x-sluice-attempts'))];

/** Chats that came on the connection of the first one. */
const onTheOldOne = ({ chats }: Replica): RawRequest[] =>
  chats.filter(({ connection }) => connection === chats[0]!.connection);

/** Attempts, failures and retries that the gateway counts for a replica. */
async function counted(name: string): Promise<number[]> {
  const metrics = await gateway.metrics();
  return ['requests', 'errors', 'retries'].map((what) =>
    total(metrics, `sluice_replica_${what}_total`, { replica: name }),
  );
}

async function added(name: string, during: () => Promise<void>): Promise<number[]> {
  const before = await counted(name);
  await during();
  const after = await counted(name);
  return after.map((value, i) => value - before[i]!);
}

test.each([
  ['FIN', fin],
  ['RST', reset],
])('closed by %s as the request comes in: sent once more, to the same replica', async (_, cut) => {
  await leaveIdle('one', [only]);
  const old = only.chats[0]!.connection;
  only.onChat = (request) => (request.connection === old ? cut : serve)(request);
  const more = await added('only', async () => {
    expect(outcome(await ask('one', 'stale'))).toEqual([200, 1]);
  });
  expect([only.chats.length, onTheOldOne(only).length]).toEqual([3, 2]);
  // The very same request, so that a replica that had begun on it can tell.
  const [, cutShort, served] = only.chats as [RawRequest, RawRequest, RawRequest];
  expect(cutShort.headers['x-request-id']).toBe('stale-0123456789');
  expect(served.headers['x-request-id']).toBe('stale-0123456789');
  expect(served.body.equals(cutShort.body)).toBe(true);
  expect(more, 'one attempt, no failure, no retry').toEqual([1, 0, 0]);
});

test('T07: closed while it was idle: the next request goes out once', async () => {
  await leaveIdle('one', [only]);
  only.chats[0]!.connection.socket.end();
  await only.chats[0]!.connection.closed;
  expect(outcome(await ask('one'))).toEqual([200, 1]);
  expect([only.chats.length, onTheOldOne(only).length]).toEqual([2, 1]);
});

test('T07: closed long after the request was in: a failed attempt, and the other replica is asked', async () => {
  await leaveIdle('two', [first, second]);
  first.onChat = (request) => void pause(idleMs).then(() => fin(request));
  const more = await added('first', async () => {
    expect(outcome(await ask('two'))).toEqual([200, 2]);
  });
  expect([first.chats.length, onTheOldOne(first).length, second.chats.length]).toEqual([2, 2, 2]);
  expect(more).toEqual([1, 1, 1]);
});

test('T07: closed long after the request was in, by the only replica: an error, and it is not asked again', async () => {
  await leaveIdle('one', [only]);
  only.onChat = (request) => void pause(idleMs).then(() => fin(request));
  const answer = await ask('one');
  expect(answer.status).toBe(502);
  expect(JSON.parse(answer.text).error.type).toBeTypeOf('string');
  expect(onTheOldOne(only).length).toBe(2);
});

test('T07: a connection made for the second try that is cut too is a failed attempt', async () => {
  await leaveIdle('two', [first, second]);
  first.onChat = reset;
  const more = await added('first', async () => {
    expect(outcome(await ask('two'))).toEqual([200, 2]);
  });
  expect([first.chats.length, onTheOldOne(first).length, second.chats.length]).toEqual([3, 2, 2]);
  expect(more, 'sent twice, and one attempt').toEqual([1, 1, 1]);
});

/**
 * T27: 500 connections that never get on with their request, in front of the whole gateway: it closes
 * each in time, gives back what they held, and serves a normal client all the while.
 */
import { expect, test } from 'vitest';
import { nowMs } from '../../src/lib/clock.ts';
import { quantile } from '../../src/lib/quantile.ts';
import { expectQuiet, type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { parseResponses, RawClient, rawPost } from '../support/raw-client.ts';
import { withReplicas } from '../support/replica.ts';
import { call, reached } from '../support/traffic.ts';

const perKind = 125;
/** Both engines wait 10 s; one checks each second, the other in steps of 4 s. */
const closedMsMax = 15_000;
/** A connection closed before this was refused and not waited for. */
const closedMsMin = 5_000;
const trickleMs = 500;
/** Between two calls of a normal client, so that both engines can be served at once. */
const restMs = 20;
/**
 * What nearly all calls may take beside them: they need some milliseconds, the rest is for a busy machine,
 * which may stand still for longer once in a while.
 */
const callMsMax = 2_000;
const nearlyAll = 0.95;

interface Kind {
  readonly name: string;
  /** Sent at once. */
  readonly first: string;
  /** Sent again and again, one every `trickleMs`. */
  readonly trickle: string;
  /** Answers before the connection falls silent. */
  readonly answers: number;
}

const postHead = 'POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\n';
const kinds: readonly Kind[] = [
  { name: 'slow header', first: `${postHead}x: `, trickle: 'a', answers: 0 },
  {
    name: 'slow body',
    first: `${postHead}content-length: 1000\r\n\r\n{"model":"`,
    trickle: 'a',
    answers: 0,
  },
  { name: 'no bytes', first: '', trickle: '', answers: 0 },
  {
    name: 'idle keep-alive',
    first: rawPost('/v1/chat/completions', {
      model: 'm',
      messages: [{ role: 'user', content: 'a' }],
      max_tokens: 1,
    }),
    trickle: '',
    answers: 1,
  },
];

/** A connection of a kind, opened and at its first silence. */
async function opened(port: number, { first, answers }: Kind): Promise<RawClient> {
  const client = await RawClient.connect(port);
  await client.send(first);
  if (answers > 0) await client.responses(answers); // a GET would close
  return client;
}

interface Closed {
  readonly kind: Kind;
  readonly ms: number;
  readonly received: Buffer;
}

/** Sends on slowly until the gateway closes. */
async function lingers(client: RawClient, kind: Kind): Promise<Closed> {
  const since = nowMs();
  const drip = (): void => {
    if (client.socket.writable) client.socket.write(kind.trickle);
  };
  const timer = kind.trickle === '' ? undefined : setInterval(drip, trickleMs);
  await client.closed;
  clearInterval(timer);
  return { kind, ms: nowMs() - since, received: client.received };
}

function expectTimedOut({ kind, ms, received }: Closed): void {
  const what = `${kind.name}: ${received.toString('latin1').slice(0, 200)}`;
  expect(ms, what).toBeLessThanOrEqual(closedMsMax);
  expect(ms, what).toBeGreaterThan(closedMsMin);
  const { responses } = parseResponses(received, true);
  expect(responses.filter(({ status }) => status < 300).length, what).toBe(kind.answers);
  for (const { status } of responses.slice(kind.answers)) expect(status, what).toBe(408);
}

async function connectionsOf(gateway: GatewayProcess): Promise<number> {
  const { threads } = await gateway.slots();
  const acceptors = threads.filter(({ name }) => name.startsWith('acceptor'));
  expect(acceptors.length).toBeGreaterThan(0);
  return acceptors.reduce((sum, { connections }) => sum + connections, 0);
}

/** A client that calls again and again until told to stop; how long each call took. */
async function normalClient(port: number, isOver: () => boolean): Promise<number[]> {
  const times: number[] = [];
  while (!isOver()) {
    const stream = times.length % 2 === 0;
    const served = await call(port, { nonce: `normal-${times.length}`, stream }).ended;
    expect(served.end, `${served.status} ${served.body}`).toBe('done');
    times.push(served.endedAt - served.startedAt);
    await new Promise((resolve) => setTimeout(resolve, restMs));
  }
  return times;
}

async function slowClients(gateway: GatewayProcess): Promise<void> {
  const { port } = gateway;
  const closing: Promise<Closed>[] = [];
  for (const kind of kinds) {
    const clients = await Promise.all(Array.from({ length: perKind }, () => opened(port, kind)));
    for (const client of clients) closing.push(lingers(client, kind));
  }
  await reached(
    () => gateway.slots(),
    ({ states }) => states.reading === perKind,
    'the slow bodies are being read',
  );
  await reached(
    () => connectionsOf(gateway),
    (count) => count >= perKind * kinds.length,
    'all are open',
  );
  let isOver = false;
  const serving = normalClient(port, () => isOver);
  const closed = await Promise.all(closing).finally(() => {
    isOver = true;
  });
  const times = await serving;
  for (const one of closed) expectTimedOut(one);
  expect(times.length).toBeGreaterThan(20);
  expect(quantile(times, nearlyAll)).toBeLessThan(callMsMax);
  await expectQuiet(gateway);
  await reached(
    () => connectionsOf(gateway),
    (count) => count === 0,
    'no connection is left',
  );
  const slowest = kinds.map(({ name }) => {
    const ms = Math.max(...closed.filter(({ kind }) => kind.name === name).map((one) => one.ms));
    return `${name} ${(ms / 1000).toFixed(1)} s`;
  });
  process.stdout.write(
    `T27 ${gateway.engine}: ${closed.length} connections closed within: ${slowest.join(', ')}; ` +
      `${times.length} calls beside them, p50 ${quantile(times, 0.5).toFixed(1)} ms, ` +
      `max ${Math.max(...times).toFixed(1)} ms\n`,
  );
}

test.concurrent.each(testEngines)(
  'T27: slow clients are timed out and others are served, engine %s',
  (engine) =>
    withReplicas(1, { model: 'm', profile: 'tokens:ttft=5ms,itl=1ms' }, async (replicas) => {
      const config = {
        listen: { engine },
        log: { level: 'fatal' as const },
        health: { interval: '10m' },
        models: [{ name: 'm', replicas: replicas.map(({ url }) => ({ url })) }],
      };
      await withGateway({ config }, slowClients);
    }),
  60_000,
);

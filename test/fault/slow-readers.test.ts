/**
 * T22 and T23 through the whole gateway: clients that do not read, or read slowly, hold back their own
 * stream and cost a bounded amount of memory; everybody else is served as before.
 */
import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { nowMs } from '../../src/lib/clock.ts';
import { quantile } from '../../src/lib/quantile.ts';
import { figure } from '../support/figures.ts';
import { Flood, Torrent } from '../support/flood.ts';
import { expectQuiet, type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { logged } from '../support/logged.ts';
import {
  chunk,
  doneEvent,
  finishEvent,
  jsonAnswer,
  lastChunk,
  RawReplica,
  type RawRequest,
  sseHead,
  tokenEvent,
} from '../support/raw-replica.ts';
import { total } from '../support/scenario.ts';
import { Call, heldBack, reached, streamWindow } from '../support/traffic.ts';
import { eventually } from '../support/until.ts';

/**
 * The battery asks for 200. Sockets between replica, gateway and client hold up to 10 MB of a stream
 * that nobody ends, and no option of Node makes them smaller: 200 of them would take more than the
 * kernel has for TCP before it is pressed (1.5 GB of 24), and more time to fill than a client that takes
 * nothing is left alone.
 */
const readersNot = process.env.SLUICE_BATTERY === '1' ? 96 : 24;
/** What a stream may hold in the gateway: its window, and one chunk of undici in hand. */
const bytesPerStream = 2 * streamWindow;
/** Rings, and what any process gains while it warms up. */
const rssSlack = 40 * 1024 * 1024;
/** So long after the last byte it took a client is dropped. */
const droppedMsMax = 30_000;
const slowBytes = 3 * 1024 * 1024;

/** Small streams one after the other, and how long each took. */
async function streamLatencies(port: number, count: number, prefix: string): Promise<number[]> {
  const times: number[] = [];
  for (let i = 0; i < count; i++) {
    const c = await new Call(port, { nonce: `${prefix}-${i}`, stream: true }).ended;
    expect(c.end, `${c.status} ${c.body}`).toBe('done');
    times.push(c.endedAt - c.startedAt);
  }
  return times;
}

/** Reads a piece, then leaves the connection alone for a while, until it is over. */
async function readSlowly(c: Call): Promise<void> {
  let isOver = false;
  void c.ended.then(() => {
    isOver = true;
  });
  while (!isOver) {
    const from = c.bytes;
    c.resume();
    await c.until(({ bytes }) => bytes > from + streamWindow).catch(() => {}); // over before
    c.pause();
    await new Promise((resolve) => setTimeout(resolve, 20));
    if (c.isComplete) c.resume();
  }
}

const writtenBy = (torrents: readonly Torrent[]): number =>
  torrents.reduce((sum, { written }) => sum + written, 0);

/** Clients that take the head of their stream and no more. */
async function stuckCalls(port: number, prefix: string): Promise<Call[]> {
  const calls = Array.from(
    { length: readersNot },
    (_, i) => new Call(port, { nonce: `${prefix}-${i}`, stream: true }),
  );
  await Promise.all(
    calls.map(async (c) => {
      await c.until(({ status }) => status === 200);
      c.pause();
    }),
  );
  return calls;
}

async function flooded(
  gateway: GatewayProcess,
  floods: ReadonlyMap<string, Flood>,
  torrents: readonly Torrent[],
): Promise<void> {
  const { port } = gateway;
  await eventually('ready', async () => (await gateway.ready()).ready);
  const baseline = await streamLatencies(port, 100, 'before');
  // A first time for what stays after any such load: freed pages that the process keeps.
  const warm = await stuckCalls(port, 'warm');
  await heldBack(gateway, readersNot, () => writtenBy(torrents));
  for (const c of warm) c.leave();
  await expectQuiet(gateway);
  const before = (await gateway.slots()).rss_bytes;
  const stuck = await stuckCalls(port, 'stuck');
  await heldBack(gateway, readersNot, () => writtenBy(torrents));
  const started = nowMs();
  const slots = await gateway.slots();
  expect(slots.states.streaming).toBe(readersNot);
  const grown = slots.rss_bytes - before;
  for (const { unsent_bytes } of slots.rows) expect(unsent_bytes).toBeLessThan(bytesPerStream);
  expect(grown).toBeLessThan(readersNot * bytesPerStream + rssSlack);

  const slow = new Call(port, { nonce: 'slow', stream: true });
  await slow.until(({ status }) => status === 200);
  const reading = readSlowly(slow);
  const others = await streamLatencies(port, 100, 'during');
  await reading;
  expect(slow.end).toBe('done');
  const sha = createHash('sha256').update(slow.body).digest('hex');
  expect(sha).toBe(floods.get('slow')!.sha);

  // Who takes nothing is dropped, and its replica's connection with it.
  await reached(
    () => gateway.slots(),
    ({ states }) => states.free === slots.count,
    'those who do not read are dropped',
    droppedMsMax - (nowMs() - started),
  );
  const dropped = nowMs() - started;
  expect(total(await gateway.metrics(), 'sluice_slow_readers_cut_total')).toBe(readersNot);
  for (const { nonce } of stuck) {
    const line = { status: 499, err: 'client_stalled', flag: 'SI' };
    expect(await logged(gateway, nonce)).toMatchObject(line);
  }
  for (const c of stuck) c.leave();
  await expectQuiet(gateway);
  figure(
    'T22',
    gateway.engine,
    `RSS +${(grown / 2 ** 20).toFixed(1)} MiB for ${readersNot} ` +
      `clients that do not read, dropped within ${(dropped / 1000).toFixed(1)} s`,
  );
  const [alone, beside] = [quantile(baseline, 0.5), quantile(others, 0.5)];
  figure('T23', gateway.engine, `other streams p50 ${alone.toFixed(1)} -> ${beside.toFixed(1)} ms`);
  // Who waits for a slow client would wait for seconds.
  expect(beside).toBeLessThan(Math.max(5 * alone, 100));
}

test.each(testEngines)(
  'T22, T23: clients that do not read, engine %s',
  async (engine) => {
    const floods = new Map<string, Flood>();
    const torrents: Torrent[] = [];
    const waiting: RawRequest[] = [];
    const replica = await RawReplica.listen((request) => {
      const id = request.headers['x-request-id'] ?? '';
      const { socket } = request.connection;
      if (request.method === 'GET') socket.write(jsonAnswer({ data: [] }));
      else if (id.startsWith('stuck') || id.startsWith('warm')) {
        // All at once: the first is not to be dropped before the last is held back.
        waiting.push(request);
        if (waiting.length < readersNot) return;
        for (const each of waiting.splice(0)) {
          torrents.push(new Torrent(each));
        }
      } else if (id === 'slow') floods.set(id, new Flood(request, slowBytes));
      else {
        const events = tokenEvent('a') + finishEvent + doneEvent;
        socket.write(sseHead + chunk(events).toString('latin1') + lastChunk);
      }
    });
    const config = {
      listen: { engine },
      log: { level: 'info' as const, sample: 1 },
      memory: { stream_window: '64KiB' },
      health: { interval: '10s', timeout: '10s', unhealthy_after: 10 },
      timeouts: { inter_token: '60s' },
      models: [{ name: 'm', replicas: [{ url: replica.url }] }],
    };
    try {
      await withGateway({ config }, (gateway) => flooded(gateway, floods, torrents));
    } finally {
      await replica.close();
    }
  },
  180_000,
);

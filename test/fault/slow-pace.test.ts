/**
 * T23: clients that read a KiB a second hold back their own streams only: one that is short enough comes
 * whole, and the streams of others keep the pace that they have alone.
 *
 * Rounds with and without slow clients follow each other, and the p99 between two tokens is compared
 * within a pair. Over loopback a window opens by 64 KiB, so a client of a KiB a second takes a minute to
 * move its sender; beside those there are some of 256 KiB a second, whose streams never stand still.
 */
import { connect, type Socket } from 'node:net';
import { expect, test } from 'vitest';
import { quantile } from '../../src/lib/quantile.ts';
import { figure } from '../support/figures.ts';
import { Flood } from '../support/flood.ts';
import { expectQuiet, type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { parseResponses, rawPost } from '../support/raw-client.ts';
import { jsonAnswer, RawReplica } from '../support/raw-replica.ts';
import { chatBody, chatPath, chatSeries, load, withReplicas } from '../support/scenario.ts';
import { readSse } from '../support/sse-ledger.ts';
import { reached, streamWindow } from '../support/traffic.ts';

const rounds = process.env.SLUICE_BATTERY === '1' ? 11 : 5;
const roundMs = 1500;
const slowest = { count: 16, bytes: 1024, everyMs: 1000 };
const slow = { count: 4, bytes: 64 * 1024, everyMs: 250 };
/** A second of all slow clients together, in a fifth of a second, is more than they take. */
const stillMs = 200;
const stillBytes = slow.count * slow.bytes * 4;
/** 60 events, 11 KiB: eleven seconds at that pace. */
const intactTokens = 60;
const intactPrompt = `nonce=intact [[len=${intactTokens}]]`;

/** A client that takes so many bytes from its socket in such a time, and no more. */
class PacedClient {
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #chunks: Buffer[] = [];

  constructor(port: number, body: object, pace: { bytes: number; everyMs: number }) {
    const callback = (count: number, buffer: Uint8Array): boolean => {
      this.#chunks.push(Buffer.from(buffer.subarray(0, count)));
      setTimeout(() => this.#socket.resume(), (pace.everyMs * count) / pace.bytes);
      return false;
    };
    const onread = { buffer: Buffer.alloc(pace.bytes), callback };
    this.#socket = connect({ port, host: '127.0.0.1', onread });
    this.#socket.on('error', () => {}); // it is read from what came
    this.closed = new Promise((resolve) => this.#socket.once('close', () => resolve()));
    this.#socket.write(rawPost(chatPath, { stream: true, ...body }, 'connection: close\r\n'));
  }

  get received(): Buffer {
    return Buffer.concat(this.#chunks);
  }

  leave(): void {
    this.#socket.destroy();
  }
}

/** The p99 between two tokens of streams that want to be read. */
async function interTokenMs(gateway: GatewayProcess): Promise<number> {
  const plan = { stream: true, durationMs: roundMs, connections: 8 };
  const { metrics } = await load(gateway, plan);
  expect([...metrics.statuses.keys()]).toEqual([200]);
  expect(metrics.failed).toBe(0);
  return metrics.itl.percentileMs(99);
}

/** Resolves once the sockets on the way hold all they can: what is written is what slow clients take. */
async function filled(written: () => number): Promise<void> {
  let before = written();
  for (let moved = Number.POSITIVE_INFINITY; moved > stillBytes; ) {
    await new Promise((resolve) => setTimeout(resolve, stillMs));
    moved = written() - before;
    before = written();
  }
}

/** Runs `use` beside slow clients, the slowest of which are held back by now. */
async function besideSlow(
  gateway: GatewayProcess,
  written: () => number,
  use: () => Promise<number>,
): Promise<number> {
  const body = { ...chatBody('x'), model: 'flood' };
  const clients = [slowest, slow].flatMap(({ count, ...pace }) =>
    Array.from({ length: count }, () => new PacedClient(gateway.port, body, pace)),
  );
  const held = async (): Promise<number> =>
    (await gateway.slots()).rows.filter(({ unsent_bytes }) => unsent_bytes >= streamWindow).length;
  await reached(held, (count) => count >= slowest.count, 'they are held back', 20_000);
  await filled(written);
  const result = await use();
  expect(await held(), 'they have been there all the time').toBeGreaterThanOrEqual(slowest.count);
  for (const client of clients) client.leave();
  for (const { closed } of clients) await closed;
  return result;
}

async function paced(gateway: GatewayProcess, written: () => number): Promise<void> {
  const body = chatBody(intactPrompt, { max_tokens: intactTokens });
  const intact = new PacedClient(gateway.port, body, slowest);
  await interTokenMs(gateway); // warm
  const pairs: { readonly alone: number; readonly beside: number }[] = [];
  for (let round = 0; round < rounds; round++) {
    const measured = { alone: 0, beside: 0 };
    const order = round % 2 === 0 ? (['alone', 'beside'] as const) : (['beside', 'alone'] as const);
    for (const which of order) {
      const use = (): Promise<number> => interTokenMs(gateway);
      measured[which] = which === 'alone' ? await use() : await besideSlow(gateway, written, use);
    }
    pairs.push(measured);
  }
  await intact.closed;
  const { responses, problem } = parseResponses(intact.received, true);
  expect(problem).toBeUndefined();
  expect(responses).toMatchObject([{ status: 200, complete: true }]);
  expect(readSse(responses[0]!.body, chatSeries(intactPrompt))).toMatchObject({
    ...{ tokens: intactTokens, exact: true, duplicates: 0, gaps: 0, foreign: 0, sawDone: true },
  });
  await expectQuiet(gateway);
  const median = (of: (pair: (typeof pairs)[number]) => number): number =>
    quantile(pairs.map(of), 0.5);
  const ratio = median(({ alone, beside }) => beside / alone);
  const [alone, beside] = [median((pair) => pair.alone), median((pair) => pair.beside)];
  figure(
    'T23',
    `${gateway.engine}: p99 between tokens`,
    `${ratio.toFixed(2)} x beside ${slowest.count} clients of 1 KiB/s and ${slow.count} of ` +
      `256 KiB/s, ${alone.toFixed(1)} -> ${beside.toFixed(1)} ms, medians of ${rounds} pairs`,
  );
  // Who waits for a slow client would wait for seconds.
  expect(ratio).toBeLessThan(2);
}

test.each(testEngines)(
  'T23: beside clients that read a KiB a second others keep their pace, engine %s',
  async (engine) => {
    const floods: Flood[] = [];
    const written = (): number => floods.reduce((sum, flood) => sum + flood.written, 0);
    const flooding = await RawReplica.listen((request) => {
      if (request.method === 'GET') request.connection.socket.write(jsonAnswer({ data: [] }));
      else floods.push(new Flood(request, Number.POSITIVE_INFINITY));
    });
    try {
      await withReplicas(1, { profile: 'tokens:ttft=5ms,itl=10ms' }, async ([replica]) => {
        const config = {
          listen: { engine },
          health: { interval: '10s', timeout: '10s', unhealthy_after: 10 },
          models: [
            { name: 'm', replicas: [{ url: replica!.url }] },
            { name: 'flood', replicas: [{ url: flooding.url }] },
          ],
        };
        await withGateway({ config }, (gateway) => paced(gateway, written));
      });
    } finally {
      await flooding.close();
    }
  },
  180_000,
);

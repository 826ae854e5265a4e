/**
 * T49: whatever becomes of the log, the gateway serves: its stdout is a full device, a pipe that nobody
 * reads or somebody slowly, a pipe whose reader has gone. Lines that cannot leave are dropped and counted.
 *
 * A gateway for each, in short rounds one after the other: what the machine does to a round it does to
 * the others of that round, and a second good log says how much of a difference is its doing.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { quantile } from '../../src/lib/quantile.ts';
import { figure } from '../support/figures.ts';
import { freePort } from '../support/free-port.ts';
import { type GatewayProcess, withStartingGateway } from '../support/gateway.ts';
import { parsePrometheusText } from '../support/prometheus-text.ts';
import { configOf, load, total, withReplicas } from '../support/scenario.ts';
import { reached } from '../support/traffic.ts';

const folder = mkdtempSync(join(tmpdir(), 'sluice-sinks-'));
afterAll(() => rmSync(folder, { recursive: true }));

interface Sink {
  /** Where the shell sends stdout. */
  readonly path: string;
  /** Once it serves. */
  readonly spoil: () => void;
  readonly close: () => void;
}

function fifo(name: string): string {
  const path = join(folder, name);
  expect(spawnSync('mkfifo', [path]).status).toBe(0);
  return path;
}

type Reader = 'takes nothing' | 'is slow' | 'leaves';
/** 16 KiB a second; a hundred requests a second write more. */
const slowBytes = 4096;
const slowMs = 250;

/** `spoil` has the reader behave as it does from then on. */
function pipe(name: string, how: Reader): Sink {
  const path = fifo(name);
  let reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  let timer: NodeJS.Timeout | undefined;
  const close = (): void => {
    clearInterval(timer);
    if (reader >= 0) closeSync(reader);
    reader = -1;
  };
  const taken = Buffer.alloc(slowBytes);
  const spoil = (): void => {
    if (how === 'leaves') close();
    if (how === 'is slow') timer = setInterval(() => takeFrom(reader, taken), slowMs);
  };
  return { path, spoil, close };
}

function takeFrom(reader: number, taken: Buffer): void {
  try {
    readSync(reader, taken);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error; // nothing there
  }
}

const file = (path: string) => (): Sink => ({ path, spoil: () => {}, close: () => {} });
const good = 'a good one';
const sinks: readonly [name: string, open: () => Sink][] = [
  [good, file('/dev/null')],
  ['another good one', file('/dev/null')],
  ['a full device', file('/dev/full')],
  ['a pipe that nobody reads', () => pipe('deaf', 'takes nothing')],
  ['a slow pipe', () => pipe('slow', 'is slow')],
  ['a pipe whose reader leaves', () => pipe('gone', 'leaves')],
];

/** Their lines are more than a sink holds back: a pipe and a mebibyte. */
const fillRequests = 6000;
const rounds = 15;
const roundRequests = 300;

interface Logged {
  readonly name: string;
  readonly sink: Sink;
  readonly url: string;
  readonly admin: string;
  readonly gateway: GatewayProcess;
  /** Of each round, in ms. */
  readonly p99s: number[];
}

/** Runs `use` with a gateway for each sink. */
async function withSinks(
  replica: { readonly url: string },
  use: (all: readonly Logged[]) => Promise<void>,
  all: readonly Logged[] = [],
): Promise<void> {
  const next = sinks[all.length];
  if (next === undefined) return use(all);
  const [name, open] = next;
  const sink = open();
  const [port, adminPort] = [await freePort(), await freePort()];
  const config = configOf([replica], {
    ...{ listen: { port }, admin: { port: adminPort } },
    log: { level: 'debug', sample: 1, pretty: 'never' },
  });
  const wrapper = ['sh', '-c', `exec "$0" "$@" > ${sink.path}`];
  const addresses = { url: `http://127.0.0.1:${port}`, admin: `http://127.0.0.1:${adminPort}` };
  try {
    await withStartingGateway({ config, wrapper }, async (gateway) => {
      await reached(
        async () => (await fetch(`${addresses.url}/readyz`).catch(() => undefined))?.status,
        (status) => status === 200,
        'it is ready',
        60_000,
      );
      await withSinks(replica, use, [...all, { name, sink, ...addresses, gateway, p99s: [] }]);
    });
  } finally {
    sink.close();
  }
}

/** The p99 of so many requests, all of which are answered. */
async function servedWell({ url }: Logged, requestsMax: number): Promise<number> {
  const { metrics } = await load({ url }, { requestsMax, connections: 8 });
  expect([...metrics.statuses.keys()]).toEqual([200]);
  expect(metrics.failed).toBe(0);
  return metrics.e2el.percentileMs(99);
}

async function droppedBy({ admin }: Logged): Promise<number> {
  const page = await (await fetch(`${admin}/metrics`)).text();
  return total(parsePrometheusText(page), 'sluice_log_dropped_total');
}

test('T49: a log that fails or blocks harms no request', async () => {
  await withReplicas(1, { profile: 'instant' }, ([replica]) =>
    withSinks(replica!, async (all) => {
      for (const each of all) {
        each.sink.spoil();
        await servedWell(each, fillRequests);
        if (each.sink.path === '/dev/null') continue;
        await reached(
          () => droppedBy(each),
          (lines) => lines > 0,
          'dropped lines are counted',
        );
      }
      for (let round = 0; round < rounds; round++) {
        for (let i = 0; i < all.length; i++) {
          const each = all[(round + i) % all.length]!;
          each.p99s.push(await servedWell(each, roundRequests));
        }
      }
      const [base, other, ...bad] = all as [Logged, Logged, ...Logged[]];
      for (const each of [base, other]) expect(await droppedBy(each)).toBe(0);
      /** Median of what the p99 of a round was, over that of the good log in that round. */
      const over = ({ p99s }: Logged): number =>
        quantile(
          p99s.map((ms, round) => ms / base.p99s[round]!),
          0.5,
        );
      figure('T49', `p99, ${good}`, quantile(base.p99s, 0.5), 'ms');
      for (const each of [other, ...bad]) figure('T49', `p99, ${each.name}`, over(each), 'x');
      // What blocks a thread would show as hundreds of times; two good logs differ by what is noise.
      const noise = Math.max(over(other), 1 / over(other));
      for (const each of bad) expect(over(each), each.name).toBeLessThan(1.5 * noise);
      for (const { gateway } of all) {
        gateway.kill('SIGTERM');
        expect(await gateway.exited).toEqual({ code: 0, signal: null });
      }
    }),
  );
}, 240_000);

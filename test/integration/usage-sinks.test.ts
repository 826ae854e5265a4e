/**
 * Usage events in servers of their kind, over the ledger's own parts: what a server is told, that it is told
 * again after it was away, and what becomes of credentials. Without the gateway; see usage-delivery.test.ts.
 */
import { appendFileSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type SinkName, sinkNames } from '../../src/config/sinks.ts';
import { Ledger } from '../../src/ledger/ledger.ts';
import { openSink } from '../../src/ledger/sinks/open-sink.ts';
import { openRedisStream } from '../../src/ledger/sinks/redis-stream.ts';
import { LedgerLayout } from '../../src/shm/ledger.layout.ts';
import { LedgerTable, ledgerCounts } from '../../src/shm/ledger.ts';
import { hasOpenssl, makeCertificate } from '../support/certificates.ts';
import { freePort } from '../support/free-port.ts';
import { eventually } from '../support/until.ts';
import {
  has,
  kafkaServer,
  natsServer,
  redisServer,
  storedIds,
  type UsageServer,
} from '../support/usage-servers.ts';
import { loaded, models } from '../unit/config/support.ts';

let folder: string;
let path: string;
/** Files that a config names, for whoever looks whether they are there. */
const pems: Record<string, string> = {};
const closing: { close(): Promise<void> }[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-sinks-'));
  path = join(folder, 'u.ndjson');
});
afterEach(async () => {
  for (const one of closing.splice(0).reverse()) await one.close();
  rmSync(folder, { recursive: true, force: true });
});

const idOf = (n: number): string => `00000000-0000-7000-8000-${String(n).padStart(12, '0')}`;
function write(from: number, to: number): void {
  for (let n = from; n < to; n++) {
    const tenant = n % 3 === 0 ? null : `tenant.${n % 3}`;
    const event = { id: idOf(n), time: new Date().toISOString(), tenant, n };
    appendFileSync(path, `${JSON.stringify(event)}\n`);
  }
}

interface Watched {
  readonly table: LedgerTable;
  readonly troubles: unknown[];
  readonly counts: { stored: number; failed: number; lost: number };
  readonly ledger: Ledger;
}

async function ledgerOf(server: Pick<UsageServer, 'config'>, sink: SinkName): Promise<Watched> {
  const { usage } = loaded(
    `usage: ${JSON.stringify({ file: 'u.ndjson', ...server.config })}\n${models}`,
    { files: { ...pems } },
  );
  const table = new LedgerTable(LedgerLayout.create(ledgerCounts));
  const troubles: unknown[] = [];
  const counts = { stored: 0, failed: 0, lost: 0 };
  const ledger = new Ledger({
    ...{ path, acceptors: 1, table, sinks: [sink], budgets: [] },
    log: { warn: () => {}, error: () => {} },
    open: (name) => openSink(name, usage),
    onStored: (_, events) => {
      counts.stored += events;
    },
    onFailed: (_, events) => {
      counts.failed += events;
    },
    onTrouble: (_, error) => troubles.push(error),
    onLost: (_, events) => {
      counts.lost += events;
    },
  });
  await ledger.start();
  closing.push({ close: () => ledger.close(1000) });
  return { table, troubles, counts, ledger };
}

const kinds = [
  ['kafka', has.kafka, kafkaServer],
  ['redis_stream', has.redis, redisServer],
  ['nats', has.nats, natsServer],
] as const;

describe.each(kinds)('%s', (sink, isThere, open) => {
  const waiting = ({ table }: Watched): number =>
    table.readSink(sinkNames.indexOf(sink), 'waiting');

  test.runIf(isThere)('gets every event, with its id and tenant, in order', async () => {
    const server = await open();
    closing.push(server);
    const watched = await ledgerOf(server, sink);
    write(0, 1000);
    const stored = await storedIds(server, 1000);
    expect(stored.length).toBe(1000);
    for (const key of ['', 'tenant.1', 'tenant.2']) {
      const own = stored.filter((each) => each.key === key);
      expect(own.length).toBeGreaterThan(300);
      const numbers = own.map(({ event }) => Number(event.n));
      // Without a tenant Kafka has any partition take a message.
      if (key !== '' || sink !== 'kafka')
        expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
      for (const { id, event } of own) {
        expect([id, event.id]).toEqual([idOf(Number(event.n)), idOf(Number(event.n))]);
        expect(event.tenant ?? '').toBe(key);
      }
    }
    await eventually('nothing waits', () => waiting(watched) === 0);
    expect(watched.counts).toEqual({ stored: 1000, failed: 0, lost: 0 });
    expect(watched.troubles).toEqual([]);
  });

  test.runIf(isThere)('was away: its events wait, are said to, and come', async () => {
    const server = await open();
    closing.push(server);
    const watched = await ledgerOf(server, sink);
    write(0, 10);
    await storedIds(server, 10);
    await eventually('nothing waits', () => waiting(watched) === 0);
    await server.kill();
    write(10, 700);
    await eventually('it is said', () => watched.troubles.length > 0, 20_000);
    await eventually('they wait', () => waiting(watched) === 690);
    expect(watched.counts.failed).toBeGreaterThan(0);
    const oldestMs = watched.table.readSink(sinkNames.indexOf(sink), 'oldestMs');
    expect(Date.now() - oldestMs).toBeLessThan(30_000);
    await server.start();
    const stored = await storedIds(server, 700, 30_000);
    expect(new Set(stored.map(({ id }) => id)).size).toBe(700);
    await eventually('nothing waits', () => waiting(watched) === 0);
    expect(watched.troubles.length).toBe(2);
    expect(watched.troubles[1]).toBe(undefined);
  });

  test.runIf(isThere)('another ledger goes on where one has stopped', async () => {
    const server = await open();
    closing.push(server);
    const first = await ledgerOf(server, sink);
    write(0, 300);
    await storedIds(server, 300);
    await first.ledger.close(1000);
    closing.splice(1);
    write(300, 310);
    const second = await ledgerOf(server, sink);
    await storedIds(server, 310);
    await eventually('nothing waits', () => waiting(second) === 0);
    expect(second.counts.stored).toBe(10);
  });
});

/** Those that keep on disk what they have said is stored; Kafka's stand-in has all in memory. */
const durable = kinds.filter(([sink]) => sink !== 'kafka');

describe.each(durable)('%s is killed without warning', (sink, isThere, open) => {
  const kills = 5;
  const each = 400;
  test.runIf(isThere)(
    'amid what it stores: nothing is lost, ids tell what came twice',
    async () => {
      const server = await open();
      closing.push(server);
      const watched = await ledgerOf(server, sink);
      let written = 0;
      for (let n = 1; n <= kills; n++) {
        const before = watched.counts.stored;
        // Its own loop, so that the kill falls into the sending and not between two batches of a pause.
        const writing = (async () => {
          for (const until = written + each; written < until; written += 20) {
            write(written, written + 20);
            await turn();
          }
        })();
        await eventually('some are stored', () => watched.counts.stored > before, 20_000);
        await server.kill('SIGKILL');
        await writing;
        await server.start();
      }
      const stored = await storedIds(server, kills * each, 30_000);
      const byId = new Map(stored.map(({ id, event }) => [id, event]));
      expect([...byId.keys()].toSorted()).toEqual(
        Array.from({ length: kills * each }, (_, n) => idOf(n)),
      );
      for (const [id, event] of byId) expect(event.id).toBe(id);
      await eventually(
        'nothing waits',
        () => watched.table.readSink(sinkNames.indexOf(sink), 'waiting') === 0,
      );
      expect(watched.counts.lost).toBe(0);
      expect(watched.counts.stored).toBe(kills * each);
    },
  );
});

const withCertificates = [
  [
    'redis_stream',
    has.redis,
    (cert: string, key: string) =>
      redisServer(
        [
          ...['--tls-cert-file', cert, '--tls-key-file', key, '--tls-ca-cert-file', cert],
          ...['--requirepass', 's3cret'],
        ],
        { tls: { ca: cert, cert, key }, password: 's3cret' },
      ),
  ],
  [
    'nats',
    has.nats,
    (cert: string, key: string) =>
      natsServer(
        [
          '--auth',
          's3cret',
          '--tls',
          '--tlsverify',
          '--tlscert',
          cert,
          '--tlskey',
          key,
          '--tlscacert',
          cert,
        ],
        { tls: { ca: cert, cert, key }, token: 's3cret' },
      ),
  ],
] as const;

describe.runIf(hasOpenssl).each(withCertificates)('%s over TLS', (sink, isThere, open) => {
  test.runIf(isThere)('with a certificate on both sides', async () => {
    const { cert, key } = makeCertificate(folder, 'server');
    for (const name of [cert, key]) pems[name] = '-----BEGIN ';
    const server = await open(cert, key);
    closing.push(server);
    const watched = await ledgerOf(server, sink);
    write(0, 20);
    const stored = await storedIds(server, 20);
    expect(stored.length).toBe(20);
    expect(watched.troubles).toEqual([]);
  });
});

test.runIf(has.redis)(
  'Redis: a connection that has nothing to send for long is still there',
  async () => {
    const server = await redisServer();
    closing.push(server);
    const { usage } = loaded(
      `usage: ${JSON.stringify({ file: 'u.ndjson', ...server.config })}\n${models}`,
    );
    const timeoutMs = 500;
    const sink = await openRedisStream(usage.redis_stream!, timeoutMs);
    closing.push(sink);
    const record = (n: number) => ({ id: idOf(n), tenant: null, line: JSON.stringify({ n }) });
    await sink.send([record(1)]);
    await sleep(3 * 2 * timeoutMs); // its socket is closed after two of them without a word
    await sink.send([record(2)]);
    expect((await server.stored()).map(({ id }) => id)).toEqual([idOf(1), idOf(2)]);
  },
);

test('away for longer than files are kept: what it misses is counted, the rest still waits', async () => {
  const config = { redis_stream: { url: `redis://127.0.0.1:${await freePort()}` } };
  const watched = await ledgerOf({ config }, 'redis_stream');
  const row = sinkNames.indexOf('redis_stream');
  const waits = (events: number): Promise<void> =>
    eventually(`${events} wait`, () => watched.table.readSink(row, 'waiting') === events, 10_000);
  write(0, 30);
  await waits(30);
  renameSync(path, `${path}.1`);
  write(30, 50);
  await waits(50);
  rmSync(`${path}.1`);
  renameSync(path, `${path}.1`);
  write(50, 55);
  await waits(25);
  expect(watched.counts).toMatchObject({ stored: 0, lost: 30 });
});

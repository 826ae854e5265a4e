/** The ledger over files as acceptors write them: midnight, power failures, files that cannot be read, starts. */
import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  rmSync,
  truncateSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { threadId } from 'node:worker_threads';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Ledger } from '../../../src/ledger/ledger.ts';
import { inBillionths } from '../../../src/lib/price.ts';
import { LedgerLayout } from '../../../src/shm/ledger.layout.ts';
import { LedgerTable, ledgerCounts } from '../../../src/shm/ledger.ts';
import { eventually } from '../../support/until.ts';

let folder: string;
let path: string;
let table: LedgerTable;
let ledger: Ledger;
/** What a sink has, in its order. */
let stored: number[];
let lost: number;
let said: string[];

const acme = { tenant: 'acme', row: 3, isClosed: false, day: 100, month: 1000 };

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-ledger-'));
  path = join(folder, 'u.ndjson');
  table = new LedgerTable(LedgerLayout.create(ledgerCounts));
  stored = [];
  lost = 0;
  said = [];
  ledger = ledgerOf();
});
afterEach(async () => {
  vi.useRealTimers();
  vi.restoreAllMocks();
  await ledger.close(1000);
  rmSync(folder, { recursive: true, force: true });
});

function ledgerOf({ acceptors = 1, budgets = [acme] } = {}): Ledger {
  return new Ledger({
    ...{ path, acceptors, table, budgets, sinks: ['nats'] },
    log: {
      warn: (text: string) => said.push(text),
      error: (text: string) => said.push(text),
    },
    open: async () => ({
      send: async (records) => {
        stored.push(...records.map(({ line }) => Number(JSON.parse(line).n)));
      },
      close: async () => {},
    }),
    onStored: () => {},
    onFailed: () => {},
    onTrouble: () => {},
    onLost: (_, lines) => {
      lost += lines;
    },
  });
}

/** Another one, as after a restart. */
async function next(options: Parameters<typeof ledgerOf>[0] = {}): Promise<void> {
  await ledger.close(1000);
  ledger = ledgerOf(options);
  await ledger.start();
}

const idOf = (n: number): string => `00000000-0000-7000-8000-${String(n).padStart(12, '0')}`;
const line = (n: number, time = new Date().toISOString()): string =>
  `${JSON.stringify({ id: idOf(n), time, tenant: 'acme', cost: 1, n })}\n`;
const write = (to: string, ...numbers: number[]): void =>
  appendFileSync(to, numbers.map((n) => line(n)).join(''));
const spent = (field: 'daySpent' | 'monthSpent' = 'daySpent'): number =>
  table.readTenant(acme.row, field) / inBillionths(1);
const numbers = (from: number, to: number): number[] =>
  Array.from({ length: to - from }, (_, i) => from + i);

test('the first events of a day, a month and a year count, though they are read before it is said to be one', async () => {
  vi.useFakeTimers({ toFake: ['Date'], now: Date.parse('2026-12-31T23:59:59.900Z') });
  await ledger.start();
  write(path, 1, 2);
  await eventually('two are summed up', () => spent() === 2);
  const time = '2027-01-01T00:00:00.050Z';
  appendFileSync(path, line(3, time));
  vi.setSystemTime(Date.parse(time));
  await eventually('the day is another', () => spent() !== 2);
  expect([spent(), spent('monthSpent')]).toEqual([1, 1]);
});

test('a clock that is wrong for a while switches no budget off, nor does a restart meanwhile', async () => {
  vi.useFakeTimers({ toFake: ['Date'], now: Date.parse('2026-12-15T12:00:00.000Z') });
  await ledger.start();
  write(path, ...numbers(0, 100));
  await eventually('it is spent', () => spent() === 100);
  vi.setSystemTime(Date.parse('2028-03-15T12:00:00.000Z'));
  write(path, 100);
  await eventually('it is another day', () => spent() === 1);
  await next();
  vi.setSystemTime(Date.parse('2026-12-15T12:00:01.000Z'));
  await next();
  write(path, 101);
  await eventually('it counts on', () => spent() === 101);
  expect(table.readTenant(acme.row, 'refusedUntilMs')).toBe(Date.parse('2026-12-16T00:00:00Z'));
});

test('a power failure took the end of a file: nothing counts twice, and sinks go on with what comes', async () => {
  write(path, ...numbers(0, 50));
  await ledger.start();
  await eventually('all are there', () => stored.length === 50);
  await ledger.close(1000);
  // Of the state all is on the disk, of the file as much as ends in the middle of a line.
  truncateSync(path, line(0).length * 30 + 50);
  ledger = ledgerOf();
  await ledger.start();
  expect(spent()).toBe(50);
  appendFileSync(path, '\n'); // as the acceptor does behind what is cut in two
  write(path, ...numbers(50, 55));
  await eventually('the others come', () => stored.length >= 55);
  expect(stored).toEqual(numbers(0, 55));
  // As far as the file was and further.
  write(path, ...numbers(55, 90));
  await eventually('and more', () => stored.length >= 90 && spent() === 90);
  expect(stored).toEqual(numbers(0, 90));
  expect(lost).toBe(0);
});

test('files are on the disk before a state that points into them', async () => {
  await ledger.start();
  const synced: string[] = [];
  const handle = await open(folder);
  const kind = Object.getPrototypeOf(handle);
  await handle.close();
  const { datasync } = kind;
  vi.spyOn(kind, 'datasync').mockImplementation(async function (this: { fd: number }) {
    synced.push(basename(readlinkSync(`/proc/self/fd/${this.fd}`)));
    await datasync.call(this);
  });
  write(path, 1, 2);
  await ledger.close(1000);
  expect(synced).toEqual(['u.ndjson', `u.ndjson.ledger.${process.pid}-${threadId}`]);
});

test('one file cannot be read: those of other acceptors are, and it is once it can be', async () => {
  const [first, second] = [0, 1].map((n) => join(folder, `u.${n}.ndjson`)) as [string, string];
  await next({ acceptors: 2 });
  write(first, 1);
  write(second, 2);
  await eventually('both are there', () => spent() === 2 && stored.length === 2);
  renameSync(first, `${first}.away`);
  mkdirSync(first);
  write(second, 3);
  await eventually('the other is read', () => spent() === 3 && stored.length === 3);
  await eventually('it is said', () => said.length > 0);
  rmdirSync(first);
  renameSync(`${first}.away`, first);
  write(first, 4);
  await eventually('it is read', () => spent() === 4 && stored.length === 4);
  expect(stored.toSorted()).toEqual([1, 2, 3, 4]);
  expect(said).toEqual([
    `the usage file ${first} cannot be read`,
    `over: the usage file ${first} cannot be read`,
  ]);
  expect(lost).toBe(0);
});

test('a renamed file that cannot be opened is passed over, and named', async () => {
  write(`${path}.2`, 1);
  mkdirSync(`${path}.1`);
  write(path, 2);
  await ledger.start();
  await eventually('the others are there', () => stored.length === 2);
  expect(stored).toEqual([1, 2]);
  expect(spent()).toBe(2);
  expect(said).toEqual([`the usage file ${path}.1 is passed over: it cannot be opened`]);
});

test('until all is summed up the words of tenants stay, and newer budgets are those that count', async () => {
  write(path, ...numbers(0, 20));
  table.writeTenant(acme.row, 'daySpent', inBillionths(7));
  const starting = ledger.start();
  ledger.setBudgets([{ ...acme, day: 10 }]);
  expect(spent()).toBe(7);
  await starting;
  expect(spent()).toBe(20);
  expect(table.readTenant(acme.row, 'refusedUntilMs')).toBeGreaterThan(Date.now());
});

test('it is closed while it starts: its state is whole', async () => {
  write(path, ...numbers(0, 10));
  void ledger.start();
  await ledger.close(1000);
  stored = [];
  write(path, 10);
  ledger = ledgerOf();
  await ledger.start();
  await eventually('the next is there', () => stored.length > 0);
  expect(stored).toEqual([10]);
  expect(spent()).toBe(11);
});

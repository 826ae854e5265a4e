/** Bodies that are read, by tenant: counted once, given back once, whatever a reload does to the rows. */
import { beforeEach, expect, test } from 'vitest';
import type { Holder } from '../../../src/acceptor/key-ring.ts';
import type { Exchange } from '../../../src/acceptor/listener.ts';
import { Request, type RequestFacts } from '../../../src/acceptor/request.ts';
import { Uploads } from '../../../src/acceptor/uploads.ts';
import type { ConfigInput } from '../../../src/config/schema.ts';
import { LimitRows } from '../../../src/gateway/limit-rows.ts';
import { LimitTable } from '../../../src/shm/limits.ts';
import { createMemory } from '../../../src/shm/memory.ts';
import { loaded, models } from '../config/support.ts';

let rows: LimitRows;
let table: LimitTable;
let uploads: Uploads;

beforeEach(() => {
  const memory = createMemory({
    ...{ acceptors: 1, forwarders: 1, slots: 8 },
    ...{ arenaBytes: 1024 * 1024, responseRingBytes: 64 * 1024 },
  });
  rows = new LimitRows(memory, 'open');
  table = new LimitTable(memory.limits);
  uploads = new Uploads(table);
});

/** As the main thread does at a reload. */
function allow(concurrency: Readonly<Record<string, number>>): void {
  const tenants: ConfigInput['tenants'] = Object.entries(concurrency).map(([name, most], i) => ({
    ...{ name, limits: { concurrency: most } },
    keys: [{ id: 'one', sha256: String(i).repeat(64) }],
  }));
  rows.apply(loaded(`tenants: ${JSON.stringify(tenants)}\n${models}`).tenants);
}

const factsOf = (tenant: string, contentLength = 100): RequestFacts =>
  ({ holder: { limitRow: rows.rowOf(tenant) } as Holder, contentLength }) as RequestFacts;

/** Undefined: refused at its head. */
function upload(tenant: string, contentLength?: number): Request | undefined {
  const facts = factsOf(tenant, contentLength);
  if (uploads.isFull(facts)) return undefined;
  const owner = { body: () => {}, writable: () => {}, gone: () => {} };
  const request = new Request({} as Exchange, facts, owner);
  uploads.begin(request);
  return request;
}

test('as many as the limit, and each gives back once', () => {
  allow({ a: 2, b: 0, c: 1 });
  const [first, second] = [upload('a'), upload('a')];
  expect([first, second]).not.toContain(undefined);
  expect(upload('a')).toBe(undefined);
  // No limit, a limit of its own, nobody's: nothing of that is theirs.
  for (let i = 0; i < 5; i++) expect(upload('b')).not.toBe(undefined);
  expect(upload('c')).not.toBe(undefined);
  expect(uploads.isFull({ ...factsOf('a'), holder: undefined })).toBe(false);
  uploads.end(first!);
  uploads.end(first!);
  expect(upload('a')).not.toBe(undefined);
  expect(upload('a')).toBe(undefined);
});

test('a request without a body holds no place, and is refused for none', () => {
  allow({ a: 1 });
  expect(upload('a', 0)).not.toBe(undefined);
  expect(upload('a', -1)).not.toBe(undefined); // chunked
  expect(upload('a', -1)).toBe(undefined);
  expect(upload('a', 0)).not.toBe(undefined);
});

test('a reload counts at once, up and down', () => {
  allow({ a: 1 });
  const begun = [upload('a')];
  allow({ a: 3 });
  begun.push(upload('a'), upload('a'));
  expect(upload('a')).toBe(undefined);
  allow({ a: 2 });
  uploads.end(begun[0]!);
  expect(upload('a')).toBe(undefined);
  uploads.end(begun[1]!);
  expect(upload('a')).not.toBe(undefined);
});

test('a row that another is given begins at nothing, and what ends late takes nothing from it', () => {
  allow({ a: 1 });
  const old = upload('a')!;
  // As the main thread does once every row of the table was used: the row is that of another tenant now.
  const owner = table.word(rows.rowOf('a')) + table.at.owner;
  table.words[owner] = (table.words[owner] as number) + 1;
  expect(upload('a')).not.toBe(undefined);
  uploads.end(old);
  expect(upload('a')).toBe(undefined);
});

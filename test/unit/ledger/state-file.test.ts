/** What a ledger goes on from: all of it, or nothing. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  readState,
  removeUnfinished,
  stateFileOf,
  writeState,
} from '../../../src/ledger/state-file.ts';

let folder: string;
let path: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-state-'));
  path = stateFileOf(join(folder, 'u.ndjson'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const cursor = { head: 'x', offset: 3, lines: 1 };
const whole = {
  version: 2,
  journals: { 'u.ndjson': { segments: [{ head: 'x', lines: 1 }], cursors: { tally: cursor } } },
  spending: { days: { '2026-12-01': { acme: 1 } }, months: { '2026-12': { acme: 2 } } },
};

test('what was written is read, and nothing else is left', async () => {
  expect(await readState(path)).toBe(undefined);
  const sums = whole.spending;
  for (const version of [whole, { ...whole, spending: undefined }, { ...whole, heard: sums }]) {
    await writeState(path, JSON.stringify(version));
    expect(await readState(path)).toEqual(JSON.parse(JSON.stringify(version)));
  }
  expect(readdirSync(folder)).toEqual(['u.ndjson.ledger']);
});

test('what dead threads of this process have begun is removed, of others it is not', async () => {
  await writeState(path, JSON.stringify(whole));
  const kept = ['u.ndjson', 'u.ndjson.ledger', `u.ndjson.ledger.${process.pid + 1}-4`];
  for (const name of [...kept, `u.ndjson.ledger.${process.pid}-4`]) {
    if (name !== 'u.ndjson.ledger') writeFileSync(join(folder, name), '{');
  }
  await removeUnfinished(path);
  expect(readdirSync(folder).toSorted()).toEqual(kept.toSorted());
  expect(await readState(path)).toEqual(whole);
});

test.each([
  ['a part of one', JSON.stringify(whole).slice(0, 60)],
  ['null', 'null'],
  ['another version', JSON.stringify({ ...whole, version: 1 })],
  ['no journals', JSON.stringify({ version: 2 })],
  ['a journal of nothing', JSON.stringify({ version: 2, journals: { u: {} } })],
  [
    'a cursor that is nowhere',
    JSON.stringify({ version: 2, journals: { u: { segments: [], cursors: { tally: {} } } } }),
  ],
  ['no sums', JSON.stringify({ ...whole, spending: {} })],
  ['nothing heard', JSON.stringify({ ...whole, heard: null })],
  ['sums of nobody heard', JSON.stringify({ ...whole, heard: { days: { d: 1 }, months: {} } })],
  ['sums of nobody', JSON.stringify({ ...whole, spending: { days: { d: 1 }, months: {} } })],
])('%s is none', async (_, text) => {
  writeFileSync(path, text);
  await expect(readState(path)).rejects.toThrow();
});

/** One file that two processes write for a while, as in a restart that overlaps: nothing is lost, cut or doubled. */
import { appendFileSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { UsageFile } from '../../src/telemetry/usage-file.ts';
import { linesOf } from '../support/lines-of.ts';
import { eventually } from '../support/until.ts';

let folder: string;
let path: string;
let failures: unknown[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-shared-'));
  path = join(folder, 'u');
  failures = [];
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const maxBytes = 2048;

function open(mayRename: () => boolean): UsageFile {
  return new UsageFile({
    ...{ path, maxBytes, keep: 1000, bufferBytesMax: 1e6, mayRename },
    onDrop: (lines) => failures.push(lines),
    onFailure: (error) => failures.push(error),
    onRenameFailure: (error) => failures.push(error),
  });
}
const linesIn = (name: string): string[] => linesOf(join(folder, name));
const written = (): string[] =>
  readdirSync(folder)
    .flatMap(linesIn)
    .filter((line) => line !== '');

test('both write and the file is renamed again and again: each line is there once', async () => {
  // More than is gathered for one write, so that each line asks for one at once.
  const padding = 'x'.repeat(64 * 1024);
  const files = [open(() => true), open(() => false)];
  const all: string[] = [];
  for (let n = 0; n < 40; n++) {
    for (const [i, file] of files.entries()) {
      all.push(`${i}-${n}-${padding}`);
      file.add(`${all.at(-1)}\n`);
    }
    const count = all.length;
    if (n % 5 === 0) await eventually('they are written', () => written().length >= count);
  }
  await Promise.all(files.map((file) => file.close(20_000)));
  expect(failures).toEqual([]);
  expect(written().sort()).toEqual(all.sort());
  expect(readdirSync(folder).length).toBeGreaterThan(5);
});

test('who may not rename a full file writes on, and renames it once it may', async () => {
  let mayRename = false;
  const file = open(() => mayRename);
  const write = async (line: string): Promise<void> => {
    file.add(`${line}\n`);
    await eventually('it is written', () => linesIn('u').at(-2) === line);
  };
  const long = 'x'.repeat(maxBytes);
  for (const n of [1, 2, 3]) await write(`${n}${long}`);
  expect(readdirSync(folder)).toEqual(['u']);
  mayRename = true;
  await write('4');
  await file.close(5000);
  expect([linesIn('u'), linesIn('u.1').length]).toEqual([['4', ''], 4]);
  expect(failures).toEqual([]);
});

test('what the other wrote counts for the size of the file', async () => {
  const file = open(() => true);
  file.add('1\n');
  await eventually('it is written', () => written().length === 1);
  appendFileSync(path, `${'x'.repeat(maxBytes)}\n`);
  file.add('2\n');
  await file.close(5000);
  expect(statSync(join(folder, 'u')).size).toBe(2);
});

test('a line that the other could not write whole stays alone', async () => {
  writeFileSync(path, '');
  const file = open(() => true);
  file.add('1\n');
  await eventually('it is written', () => written().length === 1);
  appendFileSync(path, '{"id":'); // its device is full
  file.add('2\n');
  await file.close(5000);
  expect(linesIn('u')).toEqual(['1', '{"id":', '2', '']);
});

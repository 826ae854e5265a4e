/** Lines that must not be lost: renamed files, files that are taken away, folders that are not there. */
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { UsageFile } from '../../src/telemetry/usage-file.ts';
import { eventually } from '../support/until.ts';

let folder: string;
let dropped: number;
let failures: string[];
let renameFailures: string[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-usage-'));
  dropped = 0;
  failures = [];
  renameFailures = [];
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true, force: true });
});

const open = (
  name: string,
  more: { maxBytes?: number; keep?: number; bufferBytesMax?: number } = {},
) =>
  new UsageFile({
    ...{ path: join(folder, name), maxBytes: 1e6, keep: 3, bufferBytesMax: 1e6, ...more },
    mayRename: () => true,
    onDrop: (lines) => {
      dropped += lines;
    },
    onFailure: (error) =>
      failures.push(error === undefined ? 'over' : (error as { code: string }).code),
    onRenameFailure: (error) =>
      renameFailures.push(error === undefined ? 'over' : (error as { code: string }).code),
  });
const read = (name: string): string => {
  const path = join(folder, name);
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
};
const linesOf = (name: string): number[] =>
  read(name)
    .split('\n')
    .filter((line) => line !== '')
    .map(Number);

test('lines are there once they were closed, behind those of before', async () => {
  for (const n of [1, 2]) {
    const file = open('u.ndjson');
    file.add(`${n}\n`);
    file.add(`${n}0\n`);
    await file.close(5000);
  }
  expect(read('u.ndjson')).toBe('1\n10\n2\n20\n');
  expect([dropped, failures]).toEqual([0, []]);
});

test('a full file is renamed, so many are kept, and no line is in two', async () => {
  const file = open('u', { maxBytes: 20, keep: 2 });
  for (let n = 100; n < 120; n++) {
    file.add(`${n}\n`);
    await eventually(`${n} is written`, () => linesOf('u').at(-1) === n);
  }
  await file.close(5000);
  expect(readdirSync(folder).sort()).toEqual(['u', 'u.1', 'u.2']);
  const kept = ['u.2', 'u.1', 'u'].flatMap(linesOf);
  expect(kept).toEqual(Array.from({ length: kept.length }, (_, i) => 120 - kept.length + i));
  expect(kept.length).toBeGreaterThan(10);
});

test('a full file that cannot be renamed grows on, which is said once, and takes no other with it', async () => {
  mkdirSync(join(folder, 'u.3'));
  writeFileSync(join(folder, 'u.1'), '1\n');
  writeFileSync(join(folder, 'u.2'), '2\n');
  let laterMs = 0;
  const { now } = performance;
  vi.spyOn(performance, 'now').mockImplementation(() => now.call(performance) + laterMs);
  const file = open('u', { maxBytes: 20 });
  const write = async (n: number): Promise<void> => {
    file.add(`${n}\n`);
    await eventually(`${n} is written`, () => linesOf('u').at(-1) === n);
  };
  for (let n = 100; n < 110; n++) await write(n);
  expect(linesOf('u')).toHaveLength(10);
  laterMs = 40_000;
  await write(110);
  expect([renameFailures, failures]).toEqual([['ERR_FS_EISDIR'], []]);
  expect(['u.1', 'u.2'].flatMap(linesOf)).toEqual([1, 2]);
  rmdirSync(join(folder, 'u.3'));
  await write(111);
  laterMs = 80_000;
  await write(112);
  await file.close(5000);
  expect([renameFailures, failures]).toEqual([['ERR_FS_EISDIR', 'over'], []]);
  expect(['u.3', 'u.2', 'u.1', 'u'].map((name) => linesOf(name).length)).toEqual([1, 1, 12, 1]);
  expect(dropped).toBe(0);
});

test('a folder that is not there yet: lines wait, none is lost, and it is said once', async () => {
  const file = open('later/u');
  file.add('1\n');
  await eventually('it has failed', () => failures.length > 0);
  file.add('2\n');
  mkdirSync(join(folder, 'later'));
  await eventually('it is over', () => failures.length > 1, 25_000);
  await file.close(5000);
  expect(linesOf('later/u')).toEqual([1, 2]);
  expect(failures).toEqual(['ENOENT', 'over']);
  expect(dropped).toBe(0);
});

test('past its bound the oldest are lost, and counted', async () => {
  const file = open('never/u', { bufferBytesMax: 40 });
  file.add('1000\n');
  await eventually('it has failed', () => failures.length > 0);
  for (let n = 1001; n < 1021; n++) file.add(`${n}\n`);
  expect(dropped).toBe(13);
  mkdirSync(join(folder, 'never'));
  await eventually('it is over', () => failures.length > 1, 25_000);
  await file.close(5000);
  const left = linesOf('never/u');
  // The oldest of them may have been on its way to the disk when the others came.
  expect(left).toHaveLength(8);
  expect(left.slice(1)).toEqual([1014, 1015, 1016, 1017, 1018, 1019, 1020]);
});

test('a full device: lines wait, and none is lost once there is room', async () => {
  symlinkSync('/dev/full', join(folder, 'u'));
  const file = open('u');
  file.add('1\n');
  await eventually('it has failed', () => failures.length > 0);
  file.add('2\n');
  unlinkSync(join(folder, 'u'));
  await eventually('it is over', () => failures.length > 1);
  expect(failures).toEqual(['ENOSPC', 'over']);
  await file.close(5000);
  expect(read('u')).toBe('1\n2\n');
  expect(dropped).toBe(0);
});

test('a file that somebody took away is begun anew', async () => {
  const file = open('u');
  file.add('1\n');
  await eventually('1 is written', () => linesOf('u').length === 1);
  unlinkSync(join(folder, 'u'));
  file.add('2\n');
  await file.close(5000);
  expect(linesOf('u')).toEqual([2]);
});

test('a line that somebody left cut in two stays alone', async () => {
  writeFileSync(join(folder, 'u'), '1\n{"id":');
  const file = open('u');
  file.add('2\n');
  await file.close(5000);
  expect(read('u')).toBe('1\n{"id":\n2\n');
});

test('what cannot be written when it closes is counted', async () => {
  const file = open('never/u');
  file.add('1\n');
  file.add('2\n');
  await file.close(2000);
  expect(dropped).toBe(2);
  mkdirSync(join(folder, 'never'));
  const after = open('never/u');
  await after.close(5000);
  expect(read('never/u'), 'nobody writes it later').toBe('');
});

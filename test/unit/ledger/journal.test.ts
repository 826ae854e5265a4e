/** Files as a log: renamed, deleted and cut short under readers that are behind, and over restarts. */
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Journal, type SavedJournal, tally } from '../../../src/ledger/journal.ts';
import { createPrng } from '../../../src/lib/prng.ts';

let folder: string;
let path: string;
let lost: [string, number][];
let passedOver: string[];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-journal-'));
  path = join(folder, 'u.ndjson');
  lost = [];
  passedOver = [];
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const line = (n: number): string => `{"id":"${String(n).padStart(36, '0')}"}\n`;
/** NaN: it is cut in two. */
const numberOf = (text: string): number =>
  text.length === 45 ? Number(text.slice(7, 43)) : Number.NaN;
const write = (...numbers: number[]): void => appendFileSync(path, numbers.map(line).join(''));

function journal(saved?: SavedJournal, names = ['sink']): Journal {
  return new Journal({
    ...{ path, saved, names },
    onLost: (name, lines) => lost.push([name, lines]),
    onPassedOver: (name) => passedOver.push(basename(name)),
  });
}

/** As usage-file.ts does it, with so many kept; the renamed file has been at rest for a while. */
function rotate(keep: number): void {
  rmSync(`${path}.${keep}`, { force: true });
  for (let n = keep - 1; n >= 1; n--) {
    try {
      renameSync(`${path}.${n}`, `${path}.${n + 1}`);
    } catch {}
  }
  renameSync(path, `${path}.1`);
  utimesSync(`${path}.1`, 1, 1);
}

async function readAll(from: Journal, name: string, commits = true): Promise<number[]> {
  const numbers: number[] = [];
  for (;;) {
    const chunk = await from.read(name);
    if (chunk === undefined) return numbers;
    numbers.push(...chunk.lines.map(numberOf));
    if (!commits) return numbers;
    from.commit(name, chunk);
  }
}

test('nobody reads further than the tally, and what is not committed comes again', async () => {
  const own = journal();
  expect(await readAll(own, tally)).toEqual([]);
  write(1, 2);
  expect(await readAll(own, 'sink')).toEqual([]);
  expect(await readAll(own, tally)).toEqual([1, 2]);
  expect(own.waiting('sink')).toBe(2);
  expect(await readAll(own, 'sink', false)).toEqual([1, 2]);
  expect(await readAll(own, 'sink')).toEqual([1, 2]);
  expect(own.waiting('sink')).toBe(0);
});

test('a line without an end is not there yet, an empty one is none', async () => {
  const own = journal();
  write(1);
  appendFileSync(path, line(2).slice(0, 20));
  expect(await readAll(own, tally)).toEqual([1]);
  appendFileSync(path, `${line(2).slice(20)}\n\n`);
  write(3);
  expect(await readAll(own, tally)).toEqual([2, 3]);
  expect(own.waiting('sink')).toBe(3);
});

test('a reader that is behind goes on in a file that was renamed, and so does another process', async () => {
  const own = journal();
  write(1, 2);
  await readAll(own, tally);
  const first = await own.read('sink');
  own.commit('sink', first!);
  write(3);
  rotate(5);
  write(4);
  await readAll(own, tally);
  rotate(5);
  write(5, 6);
  expect(await readAll(own, tally)).toEqual([5, 6]);
  expect(own.waiting('sink')).toBe(4);
  const { saved } = own;
  rotate(5);
  write(7);
  const next = journal(JSON.parse(JSON.stringify(saved)));
  expect(await readAll(next, tally)).toEqual([7]);
  expect(await readAll(next, 'sink')).toEqual([3, 4, 5, 6, 7]);
  expect(lost).toEqual([]);
});

test('what is deleted before a reader had it is counted, and it goes on with the oldest there is', async () => {
  const own = journal();
  write(1, 2, 3);
  await readAll(own, tally);
  await readAll(own, 'sink');
  for (const numbers of [[4, 5], [6], [7, 8], [9]]) {
    write(...numbers);
    await readAll(own, tally);
    rotate(2);
  }
  write(10);
  await readAll(own, tally);
  // In the first file were 1 to 5, of which it has 3; 6 was in the second.
  expect(lost).toEqual([
    ['sink', 2],
    ['sink', 1],
  ]);
  expect(await readAll(own, 'sink')).toEqual([7, 8, 9, 10]);
});

test('a file that somebody took away, or cut short, is begun anew', async () => {
  const own = journal();
  write(1, 2);
  await readAll(own, tally);
  await readAll(own, 'sink');
  unlinkSync(path);
  write(3);
  expect(await readAll(own, tally)).toEqual([3]);
  expect(await readAll(own, 'sink')).toEqual([3]);
  truncateSync(path);
  write(4);
  expect(await readAll(own, tally)).toEqual([]);
  write(5, 6);
  await own.look();
  expect(await readAll(own, tally)).toEqual([4, 5, 6]);
  expect(await readAll(own, 'sink')).toEqual([4, 5, 6]);
  expect(lost.flatMap(([, lines]) => lines).filter((lines) => lines > 0)).toEqual([]);
});

test('a reader that is new begins with the oldest file', async () => {
  write(1);
  rotate(3);
  write(2);
  const own = journal();
  await readAll(own, tally);
  await readAll(own, 'sink');
  const next = journal(own.saved, ['sink', 'other']);
  await readAll(next, tally);
  expect(await readAll(next, 'sink')).toEqual([]);
  expect(await readAll(next, 'other')).toEqual([1, 2]);
});

test('whatever happens in whatever order: every line once, in order, or counted as lost', async () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1e9) >>> 0;
  console.info(`SEED=${seed}`);
  const random = createPrng(seed);
  for (let round = 0; round < 30; round++) {
    for (const name of [path, ...[1, 2, 3].map((n) => `${path}.${n}`)])
      rmSync(name, { force: true });
    lost = [];
    let own = journal();
    let written = 0;
    const got: number[] = [];
    // No file has less than its first line. What is left of a line that was cut in two is one more.
    const loseTheEnd = (): number => {
      const { size } = statSync(path);
      const left = line(0).length + random.below(size - line(0).length + 1);
      truncateSync(path, left);
      const last = readFileSync(path, 'utf8').split('\n').at(-1)!;
      return last === '' || last.length === line(0).length - 1 ? 0 : 1;
    };
    const endTornLine = (): void => {
      if (readFileSync(path, 'utf8').at(-1) !== '\n') appendFileSync(path, '\n');
    };
    const lostOf = (): number => {
      return lost.filter(([name]) => name === 'sink').reduce((sum, [, lines]) => sum + lines, 0);
    };
    for (let step = 0; step < 60; step++) {
      const what = random.below(9);
      if (what < 3) write(...Array.from({ length: 1 + random.below(4) }, () => written++));
      else if (what < 5) await readAll(own, tally);
      else if (what === 5) got.push(...(await readAll(own, 'sink')));
      else if (what === 6) {
        await readAll(own, tally);
        if (written > 0) rotate(3);
        // The next file has its first line at once, as that of a writer has.
        write(written++);
      } else {
        const isPowerFailure = what === 7 && existsSync(path);
        if (isPowerFailure) await readAll(own, tally);
        const { saved } = own;
        if (isPowerFailure) written += loseTheEnd();
        own = journal(JSON.parse(JSON.stringify(saved)));
        await own.look(); // before anybody writes on, as acceptors do
        if (isPowerFailure) endTornLine();
      }
    }
    await readAll(own, tally);
    expect(own.waiting('sink') + got.length + lostOf(), `round ${round}`).toBe(written);
    got.push(...(await readAll(own, 'sink')));
    expect(own.waiting('sink')).toBe(0);
    expect(got.length + lostOf(), `round ${round}`).toBe(written);
    const whole = got.filter((n) => !Number.isNaN(n));
    expect(whole, `round ${round}`).toEqual([...new Set(whole)].sort((a, b) => a - b));
  }
});

test('a state of files that are all gone begins with what comes', async () => {
  writeFileSync(path, line(1));
  const own = journal();
  await readAll(own, tally);
  unlinkSync(path);
  const next = journal(own.saved);
  expect(await readAll(next, tally)).toEqual([]);
  write(2);
  expect(await readAll(next, tally)).toEqual([2]);
  expect(await readAll(next, 'sink')).toEqual([2]);
  expect(lost).toContainEqual(['sink', 1]);
});

test('a file has lost its end: everybody goes on behind what is left, and what nobody had is lost', async () => {
  const own = journal(undefined, ['ahead', 'half', 'behind']);
  write(1, 2, 3, 4, 5);
  await readAll(own, tally);
  await readAll(own, 'ahead');
  const { saved } = own;
  const cursor = saved.cursors.ahead!;
  const half = { ...cursor, offset: line(1).length, lines: 1 };
  const cursors = { ...saved.cursors, half };
  truncateSync(path, 3 * line(1).length + 20);
  const next = journal({ ...saved, cursors }, ['ahead', 'half', 'behind']);
  expect(await readAll(next, tally)).toEqual([]);
  expect(['ahead', 'half', 'behind'].map((name) => next.waiting(name))).toEqual([0, 2, 3]);
  expect(lost).toEqual([
    ['half', 2],
    ['behind', 2],
  ]);
  appendFileSync(path, '\n');
  // As long as it was, and longer: nobody may begin in the middle of a line.
  write(7, 8, 9, 10);
  // What was cut in two is a line of its own.
  const rest = [Number.NaN, 7, 8, 9, 10];
  expect(await readAll(next, tally)).toEqual(rest);
  expect(await readAll(next, 'ahead')).toEqual(rest);
  expect(await readAll(next, 'half')).toEqual([2, 3, ...rest]);
  expect(await readAll(next, 'behind')).toEqual([1, 2, 3, ...rest]);
});

test('of a line only its end is lost: it does not come again', async () => {
  const own = journal(undefined, ['ahead', 'behind']);
  write(1, 2, 3);
  await readAll(own, tally);
  await readAll(own, 'ahead');
  truncateSync(path, 2 * line(1).length - 1);
  const next = journal(own.saved, ['ahead', 'behind']);
  expect(await readAll(next, tally)).toEqual([]);
  appendFileSync(path, '\n');
  write(4, 5);
  expect(await readAll(next, tally)).toEqual([4, 5]);
  expect(await readAll(next, 'ahead')).toEqual([4, 5]);
  expect(await readAll(next, 'behind')).toEqual([1, 2, 4, 5]);
  expect(lost).toEqual([['behind', 1]]);
  expect(['ahead', 'behind'].map((name) => next.waiting(name))).toEqual([0, 0]);
});

test('a folder that is not there, or empty, is no news', async () => {
  const own = journal();
  write(1, 2);
  await readAll(own, tally);
  renameSync(folder, `${folder}.away`);
  for (const isThere of [false, true]) {
    if (isThere) mkdirSync(folder);
    const next = journal(own.saved);
    expect(await readAll(next, tally)).toEqual([]);
    expect(await readAll(next, 'sink')).toEqual([]);
    expect(next.saved).toEqual(own.saved);
  }
  rmdirSync(folder);
  renameSync(`${folder}.away`, folder);
  expect(await readAll(own, tally)).toEqual([]);
  expect(await readAll(own, 'sink')).toEqual([1, 2]);
  expect(lost).toEqual([]);
});

test('the file that is written is taken away while renamed ones stay: none of them is read again', async () => {
  const own = journal();
  for (const n of [1, 2]) {
    write(n);
    rotate(5);
  }
  write(3);
  await readAll(own, tally);
  await readAll(own, 'sink');
  unlinkSync(path);
  await own.look();
  expect(await readAll(own, tally)).toEqual([]);
  write(4);
  expect(await readAll(own, tally)).toEqual([4]);
  expect(await readAll(own, 'sink')).toEqual([4]);
});

test('a renamed file cannot be opened: it is passed over, and so once it can be', async () => {
  const own = journal();
  for (const n of [1, 2, 3]) {
    write(n, n * 10);
    await readAll(own, tally);
    rotate(5);
  }
  write(4);
  await readAll(own, tally);
  renameSync(`${path}.2`, `${path}.away`);
  mkdirSync(`${path}.2`);
  await own.look();
  await own.look();
  expect(passedOver).toEqual(['u.ndjson.2']);
  expect(lost).toEqual([['sink', 2]]);
  expect(own.waiting('sink')).toBe(5);
  rmdirSync(`${path}.2`);
  renameSync(`${path}.away`, `${path}.2`);
  await own.look();
  expect(await readAll(own, tally)).toEqual([]);
  expect(await readAll(own, 'sink')).toEqual([1, 10, 3, 30, 4]);
});

test('a file that was written in the future, as before a clock was set back, is at rest', async () => {
  const own = journal();
  write(1);
  rotate(3);
  const future = Date.now() / 1000 + 3600;
  utimesSync(`${path}.1`, future, future);
  write(2);
  expect(await readAll(own, tally)).toEqual([1, 2]);
});

import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { mutantsOf } from './mutants.ts';

/** All mutants take two minutes, so all of them run: an escape is never a matter of luck. */
const limitMs = 300_000;

interface Verdict {
  readonly total: number;
  readonly caught: number;
  readonly argued: number;
  readonly escaped: readonly string[];
}

test(
  'removing, moving or weakening any atomic operation of src/shm is caught',
  async () => {
    const script = fileURLToPath(new URL('./mutation-run.ts', import.meta.url));
    const options = { timeout: limitMs - 10_000 };
    const { stdout } = await promisify(execFile)(process.execPath, [script], options);
    const verdict = JSON.parse(stdout) as Verdict;
    console.log(
      `mutation run: ${verdict.caught} of ${verdict.total} caught, ${verdict.argued} argued`,
    );
    expect(verdict.escaped).toEqual([]);
    expect(verdict.caught + verdict.argued).toBe(verdict.total);
    expect(verdict.total).toBeGreaterThanOrEqual(100);
  },
  limitMs,
);

test('each kind of mutant is made', () => {
  const source = [
    'function move(words, at) {',
    '  const seen = Atomics.load(words, at);',
    '  words[at + 2] = seen;',
    '  Atomics.store(words, at + 1, seen);',
    '  if (Atomics.compareExchange(words, at, 0, 1) !== 0) return;',
    '  Atomics.notify(words, at);',
    '}',
  ].join('\n');
  const made = mutantsOf(source).map(({ line, what }) => `${line} ${what}`);
  expect(made).toEqual([
    '2 load: plain',
    '4 store: plain',
    '4 store: removed',
    '4 store: without "+ 1"',
    '4 store: after its neighbour',
    '4 store: before its neighbour',
    '5 compareExchange: plain',
    '5 compareExchange: removed, as if it had succeeded',
    '5 compareExchange: split',
    '5 compareExchange: stored without a look',
    '5 compareExchange: removed',
    '5 compareExchange: after its neighbour',
    '6 notify: removed',
  ]);
});

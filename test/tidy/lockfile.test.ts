import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';
import { mendedLockfile } from '../../scripts/lockfile.ts';

const root = resolve(import.meta.dirname, '../..');
const read = (name: string) => JSON.parse(readFileSync(join(root, name), 'utf8'));

test('npm ci can use the lockfile on every machine', () => {
  const lock = read('package-lock.json');
  expect(lock).toEqual(mendedLockfile(lock));
});

test('the lockfile names no registry host', () => {
  expect(readFileSync(join(root, 'package-lock.json'), 'utf8')).not.toContain('"resolved"');
});

test('every dependency is pinned to one version', () => {
  const { dependencies, devDependencies, optionalDependencies } = read('package.json');
  const ranges = Object.entries({ ...dependencies, ...devDependencies, ...optionalDependencies });
  expect(ranges.length).toBeGreaterThan(10);
  const loose = ranges.filter(([, range]) => !/^(npm:[\w.-]+@)?\d+\.\d+\.\d+$/.test(String(range)));
  expect(loose).toEqual([]);
});

test('a platform package that was not at hand gets a record that is never fetched here', () => {
  const lock = {
    packages: {
      'node_modules/tool': {
        version: '1.0.0',
        dev: true,
        optionalDependencies: { '@t/linux-x64-musl': '^1.0.0' },
      },
    },
  };
  const mended = mendedLockfile(lock);
  expect(mended.packages['node_modules/@t/linux-x64-musl']).toEqual({
    version: '1.0.0',
    cpu: ['x64'],
    dev: true,
    libc: ['musl'],
    optional: true,
    os: ['linux'],
  });
  expect(mendedLockfile(mended)).toEqual(mended);
});

test('only optional packages lose the engines that would drop them under an older Node', () => {
  const engines = { node: '>=22' };
  const lock = { packages: { a: { engines, optional: true }, b: { engines } } };
  expect(mendedLockfile(lock)).toEqual({ packages: { a: { optional: true }, b: { engines } } });
});

test('a missing package that names no platform is not guessed at', () => {
  const lock = { packages: { a: { optionalDependencies: { fsevents: '2.3.3' } } } };
  expect(() => mendedLockfile(lock)).toThrow('fsevents is not locked and names no platform');
});

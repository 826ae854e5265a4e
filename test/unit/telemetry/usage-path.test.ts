/** Names of usage files, and which of those in a folder are some. */
import { expect, test } from 'vitest';
import { usageFilesAmong, usagePathOf } from '../../../src/telemetry/usage-path.ts';

test('each of several acceptors has its number before the ending', () => {
  expect(usagePathOf('/a.b/u.ndjson', 0, 1)).toBe('/a.b/u.ndjson');
  expect(usagePathOf('/a.b/u.ndjson', 2, 3)).toBe('/a.b/u.2.ndjson');
  expect(usagePathOf('/a.b/u', 2, 3)).toBe('/a.b/u.2');
});

test('files of any number of acceptors are found by any of their names, and nothing else is', () => {
  const own = ['u.ndjson', 'u.ndjson.1', 'u.ndjson.2', 'u.0.ndjson', 'u.12.ndjson.10'];
  const other = ['u.ndjson.ledger', 'v.ndjson', 'u-ndjson', 'u.x.ndjson', 'u.1', 'u.ndjson.1.gz'];
  expect(usageFilesAmong([...own, ...other], '/var/u.ndjson')).toEqual([
    ...['u.0.ndjson', 'u.12.ndjson', 'u.ndjson'],
  ]);
});

import { expect, test } from 'vitest';
import { editDistance, nearest } from '../../../src/config/nearest.ts';

test.each([
  ['replcias', 'replicas', 1],
  ['port', 'port', 0],
  ['prot', 'port', 1],
  ['', 'abc', 3],
  ['kitten', 'sitting', 3],
  ['ca', 'abc', 3],
])('%s and %s are %d steps apart', (a, b, steps) => {
  expect(editDistance(a, b)).toBe(steps);
  expect(editDistance(b, a)).toBe(steps);
});

test.each([
  ['timeuots', ['timeouts', 'threads'], 'timeouts'],
  ['maxBody', ['max_body', 'max_connections'], 'max_body'],
  ['max-connections', ['max_body', 'max_connections'], 'max_connections'],
  ['retries', ['retry', 'listen', 'queue'], 'retry'],
  ['timeout_seconds', ['timeouts', 'threads'], 'timeouts'],
  ['least_inflight', ['least_in_flight', 'random'], 'least_in_flight'],
])('%s was meant to be one of %j: %s', (word, candidates, meant) => {
  expect(nearest(word, candidates)).toBe(meant);
});

test('a word unlike every key has no hint', () => {
  expect(nearest('anthropic', ['listen', 'admin', 'queue'])).toBeUndefined();
  expect(nearest('ab', ['ca'])).toBeUndefined();
  expect(nearest('total_size', ['tls', 'top'])).toBeUndefined();
});

test('two keys that begin alike are no hint', () => {
  expect(nearest('queueing', ['queue', 'queued'])).toBeUndefined();
});

test('a key of a megabyte costs no more than one of 64 letters', () => {
  expect(nearest('x'.repeat(1_000_000), ['listen'])).toBeUndefined();
});

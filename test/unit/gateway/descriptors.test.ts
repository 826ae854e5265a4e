import { closeSync, openSync } from 'node:fs';
import { expect, test } from 'vitest';
import {
  descriptorLimit,
  descriptorProblem,
  descriptorsOpen,
  replicaConnections,
} from '../../../src/gateway/descriptors.ts';

test('caps that fit the limit exactly are no problem, one more is', () => {
  expect(descriptorProblem(1000, 2, 500, 2628)).toBeUndefined();
  expect(descriptorProblem(1000, 2, 501, 2628)).toMatch(/up to 2629 open files.*limit is 2628/);
});

test('the problem names every part and what to do', () => {
  const problem = descriptorProblem(10_000, 2, 1024, 1024) ?? '';
  expect(problem).toContain('2 x 10000 clients + 1024 to replicas + 128');
  expect(problem).toContain('listen.max_connections');
  expect(problem).toContain('max_in_flight');
});

test('each forwarder has a quarter more connections to each replica than may be in flight', () => {
  expect(replicaConnections([], 4)).toBe(0);
  expect(replicaConnections([8, 3], 2)).toBe((10 + 4) * 2);
});

test('a system without a limit has no problem', () => {
  expect(descriptorProblem(1_000_000, 64, 65_536, Number.POSITIVE_INFINITY)).toBeUndefined();
});

test.runIf(process.platform === 'linux')('limit and count are those of this process', () => {
  expect(descriptorLimit()).toBeGreaterThan(0);
  const before = descriptorsOpen();
  const files = Array.from({ length: 5 }, () => openSync('/dev/null', 'r'));
  expect(descriptorsOpen()).toBe(before + 5);
  for (const file of files) closeSync(file);
  expect(descriptorsOpen()).toBe(before);
});

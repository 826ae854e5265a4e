/** What a replica is asked for after it has refused that. */
import { afterEach, expect, test } from 'vitest';
import { ReplicaPool } from '../../../src/forwarder/pools.ts';
import { Asks } from '../../../src/protocol/stream-options.ts';

const { nothing, usageAtEnd, usageAlways } = Asks;
const tenMinutesUs = 600_000_000;

let pool: ReplicaPool;
const pools: ReplicaPool[] = [];
const open = (): ReplicaPool => {
  const address = { row: 0, epoch: 1, name: 'r1', url: 'http://127.0.0.1:1', maxInFlight: 4 };
  pool = new ReplicaPool({ ...address, apiKey: '', takesBatches: false }, 1000);
  pools.push(pool);
  return pool;
};
afterEach(() => {
  for (const each of pools.splice(0)) each.destroy();
});

/** At each of these times. */
const takes = (...us: number[]): Asks[] => us.map((at) => pool.takes(at));

test('a replica is asked for all until it refuses', () => {
  open();
  expect(takes(0, 1, 1e15)).toEqual([usageAlways, usageAlways, usageAlways]);
});

test('who refuses the usage of every chunk is asked for that at the end, for ten minutes', () => {
  open().refused(usageAlways, 5);
  const endUs = 5 + tenMinutesUs;
  expect(takes(5, endUs - 1, endUs)).toEqual([usageAtEnd, usageAtEnd, usageAlways]);
});

test('who refuses the usage at the end is asked for nothing, for ten minutes', () => {
  open().refused(usageAtEnd, 5);
  const endUs = 5 + tenMinutesUs;
  expect(takes(5, endUs - 1, endUs)).toEqual([nothing, nothing, usageAlways]);
});

test('several refusals of one thing, of streams that ran beside each other, are one', () => {
  open();
  for (const us of [5, 6, 7]) pool.refused(usageAlways, us);
  expect(takes(8)).toEqual([usageAtEnd]);
});

test('the refusal of less holds as long as it does, and that of more goes on behind it', () => {
  open().refused(usageAtEnd, 5);
  pool.refused(usageAlways, 100);
  const endUs = 5 + tenMinutesUs;
  expect(takes(101, endUs - 1, endUs, endUs + 95)).toEqual([
    ...[nothing, nothing, usageAtEnd, usageAlways],
  ]);
});

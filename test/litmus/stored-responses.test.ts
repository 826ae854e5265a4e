/** Free-running threads on one set of stored responses: an entry is seen whole or not at all. */
import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { responseWays } from '../../src/shm/stored-responses.layout.ts';
import {
  createKeeper,
  createStoredResponses,
  StoredResponses,
} from '../../src/shm/stored-responses.ts';
import { idCount, keeperOf, keyOf } from './stored-responses-thread.ts';

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
console.info(`SEED=${seed}`);

test('readers beside writers of the same set see whole entries or none', async () => {
  const region = createStoredResponses(responseWays);
  const table = new StoredResponses(region, responseWays);
  const stop = new Int32Array(new SharedArrayBuffer(8));
  const workerData = { region, entries: responseWays, stop, seed };
  const writers = [0, 1].map(
    (index) =>
      new Worker(new URL('./stored-responses-thread.ts', import.meta.url), {
        workerData: { ...workerData, index },
      }),
  );
  const ended = writers.map((writer) => new Promise((done) => writer.once('exit', done)));
  await Promise.all(writers.map((writer) => new Promise((begun) => writer.once('message', begun))));
  const keeper = createKeeper();
  let found = 0;
  for (const until = performance.now() + 400; performance.now() < until; ) {
    for (let n = 0; n < idCount; n++) {
      if (!table.find(keyOf(n), keeper)) continue;
      found++;
      // Epoch n + idCount * k: every word must tell of the same number, and that be one of this key.
      expect(keeper).toEqual(keeperOf(keeper.epoch));
      expect(keeper.epoch % idCount).toBe(n);
    }
  }
  Atomics.store(stop, 0, 1);
  expect(await Promise.all(ended)).toEqual([0, 0]);
  expect(found).toBeGreaterThan(100);
});

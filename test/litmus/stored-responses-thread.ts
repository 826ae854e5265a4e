/** A thread that keeps and forgets responses of a few ids as fast as it can, until it is told to stop. */
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { createPrng } from '../../src/lib/prng.ts';
import { ownerOf, responseKeyWords, writeResponseKey } from '../../src/protocol/response-key.ts';
import { type Keeper, StoredResponses } from '../../src/shm/stored-responses.ts';

interface Task {
  readonly region: SharedArrayBuffer;
  readonly entries: number;
  readonly stop: Int32Array;
  readonly seed: number;
  readonly index: number;
}

/** More than a set has room for. */
export const idCount = 12;

export function keyOf(n: number): Int32Array {
  const key = new Int32Array(responseKeyWords);
  writeResponseKey(ownerOf(''), 0, `resp_${n}`, key);
  return key;
}

/** One whose words all tell of the same number. */
export const keeperOf = (n: number): Keeper => ({
  ...{ row: n & 255, epoch: n, identity: n ^ 0x5555, model: n & 63 },
  ...{ adapter: n & 7, name: ~n },
});

function work({ region, entries, stop, seed, index }: Task): void {
  const table = new StoredResponses(region, entries);
  const random = createPrng(seed + index);
  const keys = Array.from({ length: idCount }, (_, n) => keyOf(n));
  for (let i = 0; Atomics.load(stop, 0) === 0; i++) {
    const which = random.below(idCount);
    const key = keys[which] as Int32Array;
    if (random.below(8) === 0) table.forget(key);
    else table.keep(key, keeperOf(which + idCount * (i % 1_000_000)));
    if (i === 100) parentPort?.postMessage('begun');
  }
}

const task = workerData as Partial<Task> | null;
if (!isMainThread && task?.stop !== undefined) work(task as Task);

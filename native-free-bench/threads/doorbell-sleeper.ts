/** The thread that doorbell.ts wakes: notes when it woke, `rings` times. */
import { parentPort, workerData } from 'node:worker_threads';
import { BlockingBell, EventLoopBell } from '../../src/shm/doorbell.ts';

/** Words of the region: the bell, the number of the ring, the ring the sleeper waits for. */
export const bell = 0;
export const rungAt = 32;
export const ready = 64;
/** Index of a BigInt64Array: when the sleeper woke. */
export const wokenAt = 48;

export interface BellTask {
  readonly kind: 'port' | 'blocking' | 'eventLoop';
  readonly region: SharedArrayBuffer;
  readonly rings: number;
}

function sleep({ kind, region, rings }: BellTask): void {
  const words = new Int32Array(region);
  const times = new BigInt64Array(region);
  let next = 1;
  /** True once the last ring has come. */
  const look = (): boolean => {
    if (Atomics.load(words, rungAt) !== next) return false;
    Atomics.store(times, wokenAt, process.hrtime.bigint());
    next++;
    Atomics.store(words, ready, next);
    return next > rings;
  };
  Atomics.store(words, ready, next);
  if (kind === 'port') {
    parentPort?.on('message', () => {
      if (look()) parentPort?.close();
    });
  } else if (kind === 'blocking') {
    const own = new BlockingBell(words, bell);
    while (next <= rings) {
      own.arm();
      if (look()) break;
      own.sleep(1000);
      look();
    }
  } else {
    const own = new EventLoopBell(words, bell, () => {
      if (look()) own.stop();
      return false;
    });
    own.start();
  }
}

// doorbell.ts takes the numbers of the words from here and has no task.
if (workerData !== null) sleep(workerData as BellTask);

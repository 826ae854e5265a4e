/**
 * Faults of threads, loaded into every thread of a gateway under test by `node --import`. Those that
 * name a file act while it exists, so that a test decides when.
 *
 *   SLUICE_TEST_LOSE_NOTIFY=10      every 10th Atomics.notify of each thread wakes nobody
 *   SLUICE_TEST_REPORT_FILE=PATH    one line per thread at its first lost wake-up
 *   SLUICE_TEST_STALL_FILE=PATH     the scheduler stays in Atomics.wait
 *   SLUICE_TEST_DEAF_FILE=PATH      acceptors stand still
 *   SLUICE_TEST_FILL_FILE=PATH      acceptors fill what is left of the request ring with tombstones
 *   SLUICE_TEST_RSS_FILE=PATH       so many bytes, as the file says, are what the main thread takes for its memory
 *   SLUICE_TEST_HOG_FILE=PATH       the main thread takes every file descriptor but SLUICE_TEST_SPARE
 */
import { appendFileSync, closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { workerData } from 'node:worker_threads';
import { requestRingSize } from '../../src/shm/memory.ts';
import { RequestKind } from '../../src/shm/request-ring.layout.ts';
import { RequestRingProducer } from '../../src/shm/request-ring.ts';
import type { AcceptorStart } from '../../src/shm/threads.ts';

const env = process.env;
const thread = (workerData as { readonly thread?: string } | null)?.thread ?? 'main';
const pollMs = 5;
const pause = new Int32Array(new SharedArrayBuffer(4));

if (env.SLUICE_TEST_LOSE_NOTIFY !== undefined) loseNotify(Number(env.SLUICE_TEST_LOSE_NOTIFY));
if (thread === 'scheduler') {
  atWakeUp(env.SLUICE_TEST_STALL_FILE, (file, wait) => {
    while (existsSync(file)) wait(pause, 0, 0, pollMs);
  });
}
if (thread === 'acceptor') {
  whileThere(env.SLUICE_TEST_DEAF_FILE, (file) => {
    while (existsSync(file)) Atomics.wait(pause, 0, 0, pollMs);
  });
  whileThere(env.SLUICE_TEST_FILL_FILE, () => fillRequestRing(workerData as AcceptorStart));
}
if (thread === 'main') {
  pretendMemory(env.SLUICE_TEST_RSS_FILE);
  hogDescriptors(env.SLUICE_TEST_HOG_FILE, Number(env.SLUICE_TEST_SPARE ?? 0));
}

function loseNotify(every: number): void {
  const notify = Atomics.notify;
  let calls = 0;
  Atomics.notify = ((...args: Parameters<typeof notify>): number => {
    calls++;
    if (calls === every && env.SLUICE_TEST_REPORT_FILE !== undefined) {
      appendFileSync(env.SLUICE_TEST_REPORT_FILE, `${thread}\n`);
    }
    return calls % every === 0 ? 0 : notify(...args);
  }) as typeof notify;
}

type Wait = (...args: unknown[]) => string;

function atWakeUp(file: string | undefined, act: (file: string, wait: Wait) => void): void {
  if (file === undefined) return;
  const wait = Atomics.wait as Wait;
  Atomics.wait = ((...args: unknown[]): string => {
    const result = wait(...args);
    act(file, wait);
    return result;
  }) as typeof Atomics.wait;
}

function whileThere(file: string | undefined, act: (file: string) => void): void {
  if (file === undefined) return;
  setInterval(() => {
    if (existsSync(file)) act(file);
  }, pollMs).unref();
}

function fillRequestRing({ memory, index }: AcceptorStart): void {
  const producer = new RequestRingProducer(memory.requestRing, requestRingSize(memory.size), index);
  while (producer.push(RequestKind.tombstone, 0, 0));
}

function pretendMemory(file: string | undefined): void {
  if (file === undefined) return;
  const { rss } = process.memoryUsage;
  process.memoryUsage.rss = () => (existsSync(file) ? Number(readFileSync(file, 'utf8')) : rss());
}

function hogDescriptors(file: string | undefined, spare: number): void {
  if (file === undefined) return;
  const taken: number[] = [];
  const take = (): void => {
    try {
      for (;;) taken.push(openSync('/dev/null', 'r'));
    } catch {
      for (const descriptor of taken.splice(Math.max(0, taken.length - spare))) {
        closeSync(descriptor);
      }
    }
  };
  setInterval(() => {
    if (!existsSync(file)) for (const descriptor of taken.splice(0)) closeSync(descriptor);
    else if (taken.length === 0) take();
  }, pollMs).unref();
}

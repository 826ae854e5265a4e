/**
 * Faults of threads, loaded into every thread of a gateway under test by `node --import`.
 *
 *   SLUICE_TEST_LOSE_NOTIFY=10      every 10th Atomics.notify of each thread wakes nobody
 *   SLUICE_TEST_STALL_FILE=PATH     while the file exists the scheduler stays in Atomics.wait
 *   SLUICE_TEST_REPORT_FILE=PATH    one line per thread at its first lost wake-up
 */
import { appendFileSync, existsSync } from 'node:fs';
import { workerData } from 'node:worker_threads';

const { SLUICE_TEST_LOSE_NOTIFY, SLUICE_TEST_STALL_FILE, SLUICE_TEST_REPORT_FILE } = process.env;
const thread = (workerData as { readonly thread?: string } | null)?.thread ?? 'main';

if (SLUICE_TEST_LOSE_NOTIFY !== undefined) loseNotify(Number(SLUICE_TEST_LOSE_NOTIFY));
if (SLUICE_TEST_STALL_FILE !== undefined && thread === 'scheduler') stall(SLUICE_TEST_STALL_FILE);

function loseNotify(every: number): void {
  const notify = Atomics.notify;
  let calls = 0;
  Atomics.notify = ((...args: Parameters<typeof notify>): number => {
    calls++;
    if (calls === every && SLUICE_TEST_REPORT_FILE !== undefined) {
      appendFileSync(SLUICE_TEST_REPORT_FILE, `${thread}\n`);
    }
    return calls % every === 0 ? 0 : notify(...args);
  }) as typeof notify;
}

function stall(file: string): void {
  const wait = Atomics.wait as (...args: unknown[]) => string;
  const pause = new Int32Array(new SharedArrayBuffer(4));
  Atomics.wait = ((...args: unknown[]): string => {
    const result = wait(...args);
    while (existsSync(file)) wait(pause, 0, 0, 5);
    return result;
  }) as typeof Atomics.wait;
}

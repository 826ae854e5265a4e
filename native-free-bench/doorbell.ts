/**
 * Question: how long from a ring to the first instruction of the thread it wakes?
 *
 * Included: the ring, the wake-up by the kernel and, for event loops, the way through the loop. The waker
 * pauses between two rings so that the sleeper is asleep at each. One figure is one sample's median;
 * min and max are the 10th and 99th percentile. Baseline in the same run: a MessagePort.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { ring } from '../src/shm/doorbell.ts';
import { createBench, type Measurement } from './harness.ts';
import { type BellTask, bell, ready, rungAt, wokenAt } from './threads/doorbell-sleeper.ts';

const bench = createBench('doorbell', 'How long does it take to wake a thread?');
const rings = bench.parameter('rings', { smoke: 20, full: 2_000 });
const pauseMs = 0.5; // longer than any wake-up measured here, and short of the fallback period

const base = await measure('MessagePort', 'port');
await measure('BlockingBell: Atomics.wait', 'blocking', base);
await measure('EventLoopBell: Atomics.waitAsync', 'eventLoop', base);
const awake = new Int32Array(new SharedArrayBuffer(4));
bench.measure('ring of a thread that is awake', 1, () => {
  ring(awake, 0);
  return 1;
});
bench.finish();

async function measure(
  label: string,
  kind: BellTask['kind'],
  baseline?: Measurement,
): Promise<Measurement> {
  const region = new SharedArrayBuffer(128 * 8);
  const words = new Int32Array(region);
  const times = new BigInt64Array(region);
  const worker = new Worker(new URL('./threads/doorbell-sleeper.ts', import.meta.url), {
    workerData: { kind, region, rings } satisfies BellTask,
  });
  const ended = once(worker, 'exit');
  const samples: number[] = [];
  const pause = new Int32Array(new SharedArrayBuffer(4));
  for (let i = 1; i <= rings; i++) {
    while (Atomics.load(words, ready) < i) Atomics.wait(pause, 0, 0, 0.05);
    Atomics.wait(pause, 0, 0, pauseMs);
    const start = process.hrtime.bigint();
    Atomics.store(words, rungAt, i);
    if (kind === 'port') worker.postMessage(i);
    else ring(words, bell);
    while (Atomics.load(words, ready) === i && i < rings) Atomics.wait(pause, 0, 0, 0.02);
    if (i === rings) await ended;
    samples.push(Number(Atomics.load(times, wokenAt) - start));
  }
  samples.sort((a, b) => a - b);
  const at = (share: number): number => samples[Math.floor(share * (rings - 1))]!;
  const measurement: Measurement = {
    ...{ label, nsPerOp: at(0.5), nsPerOpMin: at(0.1), nsPerOpMax: at(0.99), ops: rings },
    ...(baseline && { ratio: at(0.5) / baseline.nsPerOp }),
  };
  bench.record(measurement);
  bench.hash(`${kind}:${samples.length}`);
  return measurement;
}

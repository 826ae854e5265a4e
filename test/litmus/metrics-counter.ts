/**
 * Thread of metrics.test.ts: counts into its region until it has made `updates` updates. With a gate it
 * lets the reader go by after each burst, so that on few cores the reader is not starved.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { MetricsWriter } from '../../src/shm/metrics.ts';
import { metrics } from '../../src/telemetry/catalogue.ts';
import type { MetricDims } from '../../src/telemetry/labels.ts';

interface Task {
  readonly region: SharedArrayBuffer;
  readonly dims: MetricDims;
  readonly updates: number;
  readonly step: number;
  /** Word 0 grows with each reading. */
  readonly gate?: Int32Array;
}
const burst = 10_000;
const { region, dims, updates, step, gate } = workerData as Task;
const writer = new MetricsWriter(region, dims);
for (let i = 0; i < updates; i++) {
  if (gate !== undefined && i % burst === 0) Atomics.wait(gate, 0, Atomics.load(gate, 0), 1000);
  writer.add(metrics.lateEvents, 0, step);
  writer.observe(metrics.interTokenLatency, 0, step);
}
parentPort?.postMessage('done');

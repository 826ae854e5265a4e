import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { createMetricsRegion } from '../../src/shm/metrics.layout.ts';
import { MetricsReader } from '../../src/shm/metrics.ts';
import { metrics } from '../../src/telemetry/catalogue.ts';

const dims = { models: 1, replicas: 1, tenants: 2 };
/** Each update changes both halves of the f64, so half an update is no multiple of the step. */
const step = 0x7fffffff;
const updates = 2_000_000; // updates * step stays below 2^53

function start(region: SharedArrayBuffer, gate?: Int32Array): Worker {
  return new Worker(new URL('./metrics-counter.ts', import.meta.url), {
    workerData: { region, dims, updates, step, gate },
  });
}

test('a reader beside two writers sees whole updates, never fewer, and all of them at the end', async () => {
  const gate = new Int32Array(new SharedArrayBuffer(4));
  const regions = [createMetricsRegion(dims), createMetricsRegion(dims)];
  const readers = regions.map((region) => new MetricsReader(dims, [region]));
  const together = new MetricsReader(dims, regions);
  const ended = Promise.all(regions.map((region) => once(start(region, gate), 'exit')));
  let running = true;
  void ended.finally(() => {
    running = false;
  });
  const seen = readers.map(() => ({ counter: 0, count: 0, distinct: 0 }));
  while (running) {
    for (let burst = 0; burst < 200; burst++) {
      for (const [i, reader] of readers.entries()) {
        const totals = reader.snapshot();
        const counter = totals.counter(metrics.lateEvents, 0);
        const count = totals.buckets(metrics.interTokenLatency, 0).reduce((a, b) => a + b, 0);
        const last = seen[i]!;
        if (counter % step !== 0 || counter < last.counter || count < last.count) {
          expect.unreachable(`torn or falling: ${last.counter} -> ${counter}, ${count}`);
        }
        if (counter !== last.counter) last.distinct += 1;
        Object.assign(last, { counter, count });
        Atomics.add(gate, 0, 1);
        Atomics.notify(gate, 0);
      }
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(await ended).toEqual([[0], [0]]);
  for (const { distinct } of seen) expect(distinct).toBeGreaterThan(100); // it ran beside them
  const totals = together.snapshot();
  expect(totals.counter(metrics.lateEvents, 0)).toBe(2 * updates * step);
  const buckets = totals.buckets(metrics.interTokenLatency, 0);
  expect(buckets.at(-1)).toBe(2 * updates);
  expect(totals.sumSeconds(metrics.interTokenLatency, 0)).toBe((2 * updates * step) / 1e6);
});

test('a killed thread leaves a whole number of updates, and its successor goes on from there', async () => {
  const region = createMetricsRegion(dims);
  const reader = new MetricsReader(dims, [region]);
  const total = (): number => reader.snapshot().counter(metrics.lateEvents, 0);
  const killed = start(region);
  while (total() === 0) await new Promise((resolve) => setImmediate(resolve));
  await killed.terminate();
  const left = total();
  expect(left % step).toBe(0);
  expect(left).toBeGreaterThan(0);
  const [code] = await once(start(region), 'exit');
  expect(code).toBe(0);
  expect(total()).toBe(left + updates * step);
});

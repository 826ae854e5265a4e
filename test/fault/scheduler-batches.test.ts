/** Batches in the dispatch rings, and what a scheduler that dies leaves of them. */
import { afterEach, expect, test } from 'vitest';
import { metrics } from '../../src/telemetry/catalogue.ts';
import { type Dispatched, SchedulerRig } from '../support/scheduler-rig.ts';

let rig: SchedulerRig;
afterEach(() => rig.kill());

const batching = { window: 50, max_items: 4, max_bytes: 1024 };
const take = async (count: number): Promise<Dispatched[]> => {
  const taken: Dispatched[] = [];
  while (taken.length < count) taken.push(await rig.dispatched());
  return taken;
};

test('a batch is one run of records in one ring', async () => {
  rig = new SchedulerRig({ forwarders: 2 });
  const member = rig.replica('a', 256, true, batching);
  await rig.start();
  const submitted = [7, 7, 7, 7].map((key) => rig.submit(0, key));
  const batch = await take(4);
  expect(batch.map(({ slot }) => slot)).toEqual(submitted.map(({ slot }) => slot));
  expect(batch.map(({ more }) => more)).toEqual([1, 1, 1, 0]);
  expect(new Set(batch.map(({ forwarder }) => forwarder)).size).toBe(1);
  expect(rig.inFlight(member)).toBe(4);
  rig.submit(0, 7);
  const [late] = await take(1); // its window was over with nobody else there
  expect(late).toMatchObject({ more: 0 });
  // Time in a window is time held, and no latency of the scheduler.
  const snapshot = rig.metrics();
  expect(snapshot.buckets(metrics.schedulingLatency, 0).reduce((a, b) => a + b)).toBe(0);
  expect(snapshot.buckets(metrics.queueTime, 0).reduce((a, b) => a + b)).toBe(5);
  for (const one of [...batch, late as Dispatched]) rig.finish(one);
  await rig.until(() => rig.inFlight(member) === 0, 'all are released');
});

test('who gathers when the scheduler dies is gathered again by its successor', async () => {
  rig = new SchedulerRig();
  const member = rig.replica('a', 256, true, { ...batching, window: 60_000 });
  await rig.start();
  const first = [7, 7, 7].map((key) => rig.submit(0, key));
  const single = rig.submit(); // dispatched at once: the three before it have been read
  expect((await rig.dispatched()).slot).toBe(single.slot);
  await rig.kill();
  await rig.start();
  expect((await rig.dispatched()).slot).toBe(single.slot); // published once more
  expect(rig.takeDispatch()).toBeUndefined();
  const fourth = rig.submit(0, 7);
  const batch = await take(4);
  expect(batch.map(({ slot }) => slot)).toEqual([...first, fourth].map(({ slot }) => slot));
  expect(batch.map(({ more }) => more)).toEqual([1, 1, 1, 0]);
  await rig.kill();
  await rig.start();
  // Not one of them has an answer yet: each is published again, by itself.
  const again = (await take(5)).filter(({ slot }) => slot !== single.slot);
  expect(again.map(({ slot, lease }) => [slot, lease]).sort()).toEqual(
    batch.map(({ slot, lease }) => [slot, lease]).sort(),
  );
  expect(again.every(({ more }) => more === 0)).toBe(true);
  expect(rig.inFlight(member)).toBe(5);
});

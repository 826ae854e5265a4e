import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { expect, test, vi } from 'vitest';
import { createByteRing } from '../../src/shm/byte-ring.ts';
import { createRequestRing } from '../../src/shm/request-ring.ts';
import { SlotState } from '../../src/shm/request-slots.layout.ts';
import { createRequestSlots, RequestSlots } from '../../src/shm/request-slots.ts';
import { createSpscRing } from '../../src/shm/spsc-ring.ts';
import { type Task, testRing } from './ring-task.ts';

/**
 * STRESS_SECONDS=60 is the long run; the seconds are split over the cases below. In a long run each
 * producer of the large request ring sends a million messages at least, however long that takes; the
 * small rings, which are nearly always full or empty, run for their time.
 */
const secondsTotal = Number(process.env.STRESS_SECONDS ?? 3);
const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);
const file = new URL('./ring-thread.ts', import.meta.url);

type Case = readonly [name: string, capacity: number, producers: number, start: number];
const isLong = secondsTotal >= 60;
/** Past the sign change of the positions, which lies within the first messages. */
const messagesMin = 200;
const largeRing = 256;
const near31 = 2 ** 31 - 64;
const near32 = -64;
const requestCases: readonly Case[] = [
  ['2 producers, 4 cells, near 2^31', 4, 2, near31],
  ['3 producers, 2 cells, near 2^32', 2, 3, near32],
  ['2 producers, 256 cells', largeRing, 2, 0],
];
const recordCases: readonly Case[] = [
  ['2 cells, near 2^31', 2, 1, near31],
  ['64 cells, near 2^32', 64, 1, near32],
];
const byteCases: readonly Case[] = [
  ['128 bytes, near 2^31', 128, 1, near31],
  ['4096 bytes, near 2^32', 4096, 1, near32],
];
const casesTotal = requestCases.length + recordCases.length + byteCases.length + 2;
const caseMs = (secondsTotal * 1000) / casesTotal;
const limitMs = caseMs + (isLong ? 600_000 : 30_000);

/** Runs the threads for the time of a case; what each of them tells. */
async function run(
  tasks: readonly Pick<Task, 'role' | 'index'>[],
  common: Partial<Task>,
  execArgv: readonly string[] = [],
) {
  console.log(`SEED=${seed}`);
  const control = new Int32Array(new SharedArrayBuffer(64));
  const workers = tasks.map((task, i) => {
    const workerData = { messagesMin, ...common, ...task, control, seed: seed + i };
    return new Worker(file, { workerData, execArgv: [...process.execArgv, ...execArgv] });
  });
  const ready = workers.map((worker) => once(worker, 'message'));
  const told = workers.map(async (worker, i) => {
    await ready[i];
    const [seen] = await once(worker, 'message');
    return seen as number[];
  });
  await Promise.all(ready); // the time of the case begins when all threads run
  setTimeout(() => Atomics.store(control, 0, 1), caseMs);
  const results = await Promise.all(told);
  return { control, results };
}

function producersAndConsumer(kind: 'request' | 'record' | 'byte', producers: number) {
  const roles = Array.from({ length: producers }, (_, index) => ({
    role: `${kind} producer` as Task['role'],
    index,
  }));
  return [...roles, { role: `${kind} consumer` as Task['role'], index: 0 }];
}

async function sendAndReceive(
  kind: 'request' | 'record' | 'byte',
  region: SharedArrayBuffer,
  [name, capacity, producers]: Case,
  execArgv: readonly string[] = [],
): Promise<void> {
  const isMillion = isLong && kind === 'request' && capacity >= largeRing;
  const sendMin = isMillion ? 1_000_000 : messagesMin;
  const common = { region, capacity, producers, messagesMin: sendMin };
  const { control, results } = await run(producersAndConsumer(kind, producers), common, execArgv);
  const sent = Array.from({ length: producers }, (_, p) => Atomics.load(control, 2 + p));
  console.log(`${kind} ring, ${name}: ${sent.join(' + ')} messages`);
  expect(results.at(-1)).toEqual(sent);
  expect(Math.min(...sent)).toBeGreaterThanOrEqual(sendMin);
}

test.each(requestCases)(
  'A-04: request ring, %s: every message once, in order, whole',
  async (...ring) => {
    const [, capacity, producers, start] = ring;
    await sendAndReceive('request', createRequestRing({ capacity, producers }, start), ring);
  },
  limitMs,
);

test(
  'A-04: the same under --cpu-prof, which leaves a profile of each thread',
  async () => {
    const folder = mkdtempSync(join(tmpdir(), 'sluice-rings-'));
    try {
      const region = createRequestRing({ capacity: largeRing, producers: 2 }, near31);
      const profiled: Case = ['2 producers, profiled', largeRing, 2, near31];
      await sendAndReceive('request', region, profiled, ['--cpu-prof', `--cpu-prof-dir=${folder}`]);
      await vi.waitFor(() => expect(readdirSync(folder)).toHaveLength(3), 10_000);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
  limitMs,
);

test.each(recordCases)(
  'record ring, %s: every record once, in order, whole',
  async (...ring) => {
    await sendAndReceive('record', createSpscRing(testRing, ring[1], ring[3]), ring);
  },
  limitMs,
);

test.each(byteCases)(
  'byte ring, %s: every record once, in order, whole',
  async (...ring) => {
    await sendAndReceive('byte', createByteRing(ring[1], ring[3]), ring);
  },
  limitMs,
);

test(
  'slots that three threads race for are settled once each',
  async () => {
    const capacity = 4;
    const region = createRequestSlots(capacity);
    const users = [0, 1, 2].map((index) => ({ role: 'slot user' as const, index }));
    const { results } = await run(users, { region, capacity, producers: 3 });
    const claims = results[0]![0]!;
    const won = results.reduce((sum, [, count]) => sum + count!, 0);
    const slots = new RequestSlots(region, capacity);
    const open = Array.from({ length: capacity }, (_, slot) => slots.state(slot)).filter(
      (state) => state === SlotState.queued || state === SlotState.dispatched,
    ).length;
    console.log(`slots: ${claims} claims, ${won} settled`);
    expect(won + open).toBe(claims);
  },
  limitMs,
);

/**
 * Entry of a forwarder thread: attaches, beats, answers its doorbell and the rare messages of the main
 * thread. An event-loop thread; it never blocks.
 *
 * The heartbeat is a timer of the same loop that serves, so a loop that is stuck stops beating.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { errorOf } from '../errors/catalogue.ts';
import { assert } from '../lib/assert.ts';
import { nowMs } from '../lib/clock.ts';
import { nameThread } from '../lib/thread-name.ts';
import { ControlLayout, ThreadId } from '../shm/control.layout.ts';
import { EventLoopBell } from '../shm/doorbell.ts';
import { faultHooksModule } from '../shm/fault-hooks-loader.ts';
import { Heartbeat } from '../shm/heartbeat.ts';
import { controlCounts } from '../shm/memory.ts';
import { MetricsWriter } from '../shm/metrics.ts';
import { createThreadLog } from '../shm/thread-log.ts';
import type { ForwarderStart, FromThread, ToThread } from '../shm/threads.ts';
import { defaultMetricDims } from '../telemetry/labels.ts';
import { Forwarder } from './forwarder.ts';

/** A stop is over after this, whether clients have taken their last bytes or not. */
const stopMs = 1000;
const pollMs = 10;
const logCloseMs = 200;
/** The same complaint about a replica is not repeated sooner. */
const complaintMs = 10_000;

const start = workerData as ForwarderStart;
assert(start.thread === 'forwarder');
nameThread(`forwarder-${start.index}`);
assert(parentPort !== null);
const port = parentPort;
const post = (message: FromThread): void => port.postMessage(message);

const faults =
  faultHooksModule && new faultHooksModule.FaultHooks(() => post({ kind: 'terminate' }));

const { memory } = start;
const control = ControlLayout.attach(memory.control, controlCounts(memory.size));
const words = new Int32Array(memory.control);
const { base, stride, at } = control.at.thread;
const threadId = ThreadId.forwarder(start.index, memory.size);
const row = base + threadId * stride;

const metrics = new MetricsWriter(start.metrics, defaultMetricDims);
const logger = createThreadLog(`forwarder-${start.index}`, start.log, metrics);

const complainedMs = new Map<string, number>();
const forwarder = new Forwarder(start, (replica, error) => {
  const last = complainedMs.get(replica);
  if (last !== undefined && nowMs() - last < complaintMs) return;
  complainedMs.set(replica, nowMs());
  const { message, hint, code } = errorOf(error);
  logger.error(`${message} ${hint}`, { replica, err: code });
});
const heartbeat = new Heartbeat(memory, threadId, {
  connections: () => forwarder.requests,
  arenaBytes: () => 0,
});
const bell = new EventLoopBell(words, row + at.bell, () => forwarder.drain());

/** Resolves once no request is left, or `limitMs` have passed. */
async function quiet(limitMs: number): Promise<void> {
  const deadlineMs = nowMs() + limitMs;
  while (forwarder.requests > 0 && nowMs() < deadlineMs) {
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

async function stop(): Promise<void> {
  forwarder.stop();
  await quiet(stopMs);
  bell.stop();
  forwarder.close();
  heartbeat.stop();
  await logger.close(logCloseMs);
  post({ kind: 'stopped' });
  port.close();
}

port.on('message', (message: ToThread) => {
  switch (message.kind) {
    case 'replica': {
      const { row, epoch } = message.replica;
      forwarder.putReplica(message.replica);
      post({ kind: 'applied', row, epoch });
      break;
    }
    case 'forget':
      forwarder.forgetReplica(message.row, message.epoch);
      post({ kind: 'applied', row: message.row, epoch: message.epoch });
      break;
    case 'models':
      forwarder.setModels(message.models);
      post({ kind: 'modelsApplied' });
      break;
    case 'stop':
      void stop();
      break;
    case 'fault':
      faults?.apply(message.fault);
      break;
  }
});

bell.start();
heartbeat.start();
post({ kind: 'ready' });

/**
 * Entry of a forwarder thread: attaches, beats, answers its doorbell and the rare messages of the main
 * thread. An event-loop thread; it never blocks.
 *
 * The heartbeat is a timer of the same loop that serves, so a loop that is stuck stops beating.
 */

import { errorOf } from '../errors/catalogue.ts';
import { nowMs } from '../lib/clock.ts';
import { ThreadId } from '../shm/control.layout.ts';
import { EventLoopBell } from '../shm/doorbell.ts';
import { Heartbeat } from '../shm/heartbeat.ts';
import { bellsOf } from '../shm/memory.ts';
import { MetricsWriter } from '../shm/metrics.ts';
import { createThreadLog } from '../shm/thread-log.ts';
import { ThreadPort } from '../shm/thread-port.ts';
import type { ForwarderStart, ToThread } from '../shm/threads.ts';
import { defaultMetricDims } from '../telemetry/labels.ts';
import { Complaints } from './complaints.ts';
import { Forwarder } from './forwarder.ts';

/** A stop is over after this, whether clients have taken their last bytes or not. */
const stopMs = 1000;
const pollMs = 10;
const logCloseMs = 200;

const port = new ThreadPort<ForwarderStart>('forwarder');
const { start, post } = port;
const { memory } = start;
const threadId = ThreadId.forwarder(start.index, memory.size);
const metrics = new MetricsWriter(start.metrics, defaultMetricDims);
const logger = createThreadLog(port.name, start.log, metrics);

const complaints = new Complaints();
const forwarder = new Forwarder(start, (replica, error) => {
  if (!complaints.isDue(replica, error, nowMs())) return;
  const { message, hint, code } = errorOf(error);
  logger.error(`${message} ${hint}`, { replica, err: code });
});
const heartbeat = new Heartbeat(memory, threadId, {
  connections: () => forwarder.requests,
  arenaBytes: () => 0,
});
const control = new Int32Array(memory.control);
const bell = new EventLoopBell(control, bellsOf(memory.size)(threadId), () => forwarder.drain());

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
  port.stopped();
}

port.listen((message: ToThread) => {
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
  }
});

bell.start();
heartbeat.start();
post({ kind: 'ready' });

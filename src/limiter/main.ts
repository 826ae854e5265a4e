/**
 * Entry of the limiter thread, which is there where limits are shared by way of a store: attaches, beats,
 * answers its doorbell and the rare messages of the main thread. An event-loop thread; it never blocks.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { assert } from '../lib/assert.ts';
import { nowMs } from '../lib/clock.ts';
import { RefusedError, redisErrorText } from '../redis/errors.ts';
import { ThreadId } from '../shm/control.layout.ts';
import { EventLoopBell, ring } from '../shm/doorbell.ts';
import { Heartbeat } from '../shm/heartbeat.ts';
import { bellsOf } from '../shm/memory.ts';
import { MetricsWriter } from '../shm/metrics.ts';
import { createThreadLog } from '../shm/thread-log.ts';
import { ThreadPort } from '../shm/thread-port.ts';
import type { LimiterStart, ToThread } from '../shm/threads.ts';
import { metrics as catalogue } from '../telemetry/catalogue.ts';
import { defaultMetricDims, Result } from '../telemetry/labels.ts';
import { Limiter } from './limiter.ts';
import { RedisStore } from './redis-store.ts';

const logCloseMs = 200;
const startMsMax = 500;
const complaintMs = 10_000;

const port = new ThreadPort<LimiterStart>('limiter');
const { start } = port;
const { memory } = start;
const { sharedLimits } = memory;
assert(sharedLimits !== null, 'there is a store');
const control = new Int32Array(memory.control);
const bellOf = bellsOf(memory.size);
const threadId = ThreadId.limiter(memory.size);
const metrics = new MetricsWriter(start.metrics, defaultMetricDims);
const logger = createThreadLog(port.name, start.log, metrics);

const schedulerBell = bellOf(ThreadId.scheduler);

let complainedMs = Number.NEGATIVE_INFINITY;
const limiter = new Limiter({
  memory: { ...memory, sharedLimits },
  store: new RedisStore(start.redis),
  prefix: start.redis.prefix,
  wakeScheduler: () => ring(control, schedulerBell),
  onState(isDown, error) {
    if (!isDown) logger.info('the store of limits answers');
    else if (error !== undefined) {
      logger.error('the store of limits does not answer; tenants go by their failure_mode', {
        err: redisErrorText(error),
      });
    }
  },
  onCall(error, us) {
    metrics.add(catalogue.limitStoreCalls, error === undefined ? Result.ok : Result.failed, 1);
    metrics.observe(catalogue.limitStoreCall, 0, us);
    if (!(error instanceof RefusedError) || nowMs() - complainedMs < complaintMs) return;
    complainedMs = nowMs();
    logger.error('the store of limits refuses a call', { err: redisErrorText(error) });
  },
});
limiter.setNames(start.names);
const heartbeat = new Heartbeat(memory, threadId, { connections: () => 0, arenaBytes: () => 0 });
const bell = new EventLoopBell(control, bellOf(threadId), () => limiter.drain());

port.listen((message: ToThread) => {
  switch (message.kind) {
    case 'limitNames':
      limiter.setNames(message.names);
      break;
    case 'stop':
      void stop();
      break;
  }
});

async function stop(): Promise<void> {
  bell.stop();
  limiter.stop();
  heartbeat.stop();
  await logger.close(logCloseMs);
  port.stopped();
}

bell.start();
heartbeat.start();
// The gateway starts whether or not the store answers.
await Promise.race([limiter.start(), sleep(startMsMax)]);
port.post({ kind: 'ready' });

/**
 * Entry of the scheduler thread. It has no event loop while it serves: messages of the main thread
 * are polled. Ends in order when told to stop. It starts from the slot table: when it dies, a successor
 * continues (rebuild.ts).
 */

import {
  type MessagePort,
  parentPort,
  receiveMessageOnPort,
  workerData,
} from 'node:worker_threads';
import { assert } from '../lib/assert.ts';
import { nameThread } from '../lib/thread-name.ts';
import { setThreadPriority } from '../lib/thread-priority.ts';
import { faultHooksModule } from '../shm/fault-hooks-loader.ts';
import type { FromThread, SchedulerStart, ToThread } from '../shm/threads.ts';
import { Scheduler } from './scheduler.ts';

const port = parentPort;
assert(port !== null, 'the scheduler is a worker thread');
const post = (message: FromThread): void => port.postMessage(message);

const faults =
  faultHooksModule && new faultHooksModule.FaultHooks(() => post({ kind: 'terminate' }));
nameThread('scheduler');
/** On a busy machine the scheduler then waits less for a core, and every request waits for the scheduler. */
const nice = -5;
const priorityRaised = setThreadPriority(nice);
const scheduler = new Scheduler(workerData as SchedulerStart);

// Not while the module is evaluated: V8 may abort the process when a thread is terminated in there.
setImmediate(() => {
  post({ kind: 'ready', priorityRaised });
  scheduler.run(shouldStop);
  post({ kind: 'stopped' });
});

function shouldStop(): boolean {
  const message = receiveMessageOnPort(port as MessagePort)?.message as ToThread | undefined;
  if (message?.kind === 'fault') faults?.apply(message.fault);
  if (message?.kind === 'models') {
    scheduler.setModels(message.models);
    post({ kind: 'modelsApplied' });
  }
  return message?.kind === 'stop';
}

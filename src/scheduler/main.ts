/**
 * Entry of the scheduler thread. It has no event loop while it serves: messages of the main thread
 * are polled. Ends in order when told to stop. It starts from the slot table, so a successor could continue;
 * today its death ends the process (ADR 6).
 */

import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { assert } from '../lib/assert.ts';
import { nameThread } from '../lib/thread-name.ts';
import type { FromThread, SchedulerStart, ToThread } from '../shm/threads.ts';
import { raiseThreadPriority } from './priority.ts';
import { Scheduler } from './scheduler.ts';

const port = parentPort;
assert(port !== null, 'the scheduler is a worker thread');
const post = (message: FromThread): void => port.postMessage(message);

nameThread('scheduler');
const priorityRaised = raiseThreadPriority();
const scheduler = new Scheduler(workerData as SchedulerStart);
post({ kind: 'ready', priorityRaised });
scheduler.run(() => (receiveMessageOnPort(port)?.message as ToThread | undefined)?.kind === 'stop');
post({ kind: 'stopped' });

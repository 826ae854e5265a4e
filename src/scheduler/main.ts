/**
 * Entry of the scheduler thread. It has no event loop while it serves: messages of the main thread
 * are polled. Ends in order when told to stop. It starts from the slot table: when it dies, a successor
 * continues (rebuild.ts).
 */

import { setThreadPriority } from '../lib/thread-priority.ts';
import { ThreadPort } from '../shm/thread-port.ts';
import type { SchedulerStart } from '../shm/threads.ts';
import { Scheduler } from './scheduler.ts';

const port = new ThreadPort<SchedulerStart>('scheduler');
/** On a busy machine the scheduler then waits less for a core, and every request waits for the scheduler. */
const nice = -5;
const priorityRaised = setThreadPriority(nice);
const scheduler = new Scheduler(port.start);

// Not while the module is evaluated: V8 may abort the process when a thread is terminated in there.
setImmediate(() => {
  port.post({ kind: 'ready', priorityRaised });
  scheduler.run(shouldStop);
  port.stopped();
});

function shouldStop(): boolean {
  const message = port.receive();
  if (message?.kind === 'models') {
    scheduler.setModels(message.models);
    port.post({ kind: 'modelsApplied' });
  }
  return message?.kind === 'stop';
}

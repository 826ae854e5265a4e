/**
 * Raises the priority of the calling thread where the system allows it: on a busy machine the
 * scheduler then waits less for a core, and every request waits for the scheduler.
 */
import { readlinkSync } from 'node:fs';
import { setPriority } from 'node:os';

const nice = -5;

/** False where there is no /proc or the process may not lower its nice value. */
export function raiseThreadPriority(): boolean {
  try {
    const [, , thread] = readlinkSync('/proc/thread-self').split('/'); // PID/task/TID
    setPriority(Number(thread), nice);
    return true;
  } catch {
    return false;
  }
}

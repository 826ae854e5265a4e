/** Gives the calling thread, and no other of the process, a nice value where the system allows it. */
import { readlinkSync } from 'node:fs';
import { setPriority } from 'node:os';

/** False where there is no /proc, or where the process may not lower its nice value. */
export function setThreadPriority(nice: number): boolean {
  try {
    const [, , thread] = readlinkSync('/proc/thread-self').split('/'); // PID/task/TID
    setPriority(Number(thread), nice);
    return true;
  } catch {
    return false;
  }
}

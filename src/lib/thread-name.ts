/** Names the calling thread for `top -H`, `perf` and /proc, where the system has a place for it. */
import { writeFileSync } from 'node:fs';

/** Longer names are cut by the kernel. */
const nameLengthMax = 15;

export function nameThread(name: string): void {
  try {
    writeFileSync('/proc/thread-self/comm', name.slice(0, nameLengthMax));
  } catch {
    // No /proc, or one that is not ours to write: the thread keeps the name of the program.
  }
}

/** CPU time and memory of a process and its threads, from /proc. Linux only. */
import { readdirSync, readFileSync } from 'node:fs';

/** USER_HZ, which Linux fixes at 100 for /proc. */
const ticksPerSecond = 100;

export interface ThreadCpu {
  readonly name: string;
  readonly seconds: number;
}

/** User and system time of all threads, also of those that have ended; 10 ms resolution. */
export function cpuSeconds(pid: number): number {
  return cpuOf(readFileSync(`/proc/${pid}/stat`, 'utf8'));
}

function threadCpu(pid: number): ThreadCpu[] {
  const threads: ThreadCpu[] = [];
  for (const tid of readdirSync(`/proc/${pid}/task`)) {
    try {
      const name = readFileSync(`/proc/${pid}/task/${tid}/comm`, 'utf8').trim();
      const stat = readFileSync(`/proc/${pid}/task/${tid}/stat`, 'utf8');
      threads.push({ name: `${name}/${tid}`, seconds: cpuOf(stat) });
    } catch (error) {
      // A thread may end between the listing and the reading.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  return threads;
}

/** Time on a processor of the living threads of a process, by name, those of one name together; nanoseconds. */
export function threadNs(pid: number): Map<string, number> {
  const threads = new Map<string, number>();
  for (const tid of readdirSync(`/proc/${pid}/task`)) {
    try {
      const name = readFileSync(`/proc/${pid}/task/${tid}/comm`, 'utf8').trim();
      const ns = Number(readFileSync(`/proc/${pid}/task/${tid}/schedstat`, 'utf8').split(' ')[0]);
      threads.set(name, (threads.get(name) ?? 0) + ns);
    } catch (error) {
      // A thread may end between the listing and the reading.
      if (!['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
    }
  }
  return threads;
}

function cpuOf(stat: string): number {
  // The command may contain blanks and parentheses; the fields after its last one do not.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

export interface Memory {
  readonly rssMb: number;
  readonly rssMaxMb: number;
}

export function memory(pid: number): Memory {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const mb = (key: string) =>
    Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) / 1024;
  return { rssMb: mb('VmRSS'), rssMaxMb: mb('VmHWM') };
}

/** CPU of one process between two moments, whole and by thread. */
export class CpuMeter {
  readonly #pid: number;
  readonly #seconds: number;
  readonly #threads: Map<string, number>;
  readonly #startMs = performance.now();

  constructor(pid: number) {
    this.#pid = pid;
    this.#seconds = cpuSeconds(pid);
    this.#threads = new Map(threadCpu(pid).map(({ name, seconds }) => [name, seconds]));
  }

  read(): { seconds: number; share: number; threads: ThreadCpu[] } {
    const seconds = cpuSeconds(this.#pid) - this.#seconds;
    const wall = (performance.now() - this.#startMs) / 1000;
    const threads = threadCpu(this.#pid)
      .map(({ name, seconds }) => ({ name, seconds: seconds - (this.#threads.get(name) ?? 0) }))
      .filter((thread) => thread.seconds > 0)
      .sort((a, b) => b.seconds - a.seconds);
    return { seconds, share: wall > 0 ? seconds / wall : 0, threads };
  }
}

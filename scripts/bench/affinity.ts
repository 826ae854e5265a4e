/** Which cores processes and threads may run on, set with taskset (util-linux). Linux only. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

/** Cores this process may run on; undefined with a reason when they cannot be chosen. */
export function ownCores(): number[] | string {
  let said: string;
  try {
    said = taskset('-cp', String(process.pid));
  } catch {
    return 'taskset is not installed';
  }
  const list = said.slice(said.lastIndexOf(':') + 1).trim();
  return list.split(',').flatMap((part) => {
    const [first = 0, last = first] = part.split('-').map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

/** All threads of the process, and those it starts later. */
export function pinProcess(pid: number, cores: readonly number[]): void {
  taskset('-acp', cores.join(','), String(pid));
}

export function pinThread(tid: number, core: number): void {
  taskset('-cp', String(core), String(tid));
}

/** Id of the thread of that name; the gateway names its threads (src/lib/thread-name.ts). */
export function threadOf(pid: number, name: string): number {
  const folder = `/proc/${pid}/task`;
  const found = readdirSync(folder).find(
    (tid) => readFileSync(`${folder}/${tid}/comm`, 'utf8').trim() === name,
  );
  if (found === undefined) throw new Error(`process ${pid} has no thread ${name}`);
  return Number(found);
}

function taskset(...args: readonly string[]): string {
  return execFileSync('taskset', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

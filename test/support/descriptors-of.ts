/** The descriptors of a process by what they are, read from /proc. Linux only. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

export interface DescriptorsOf {
  /** Files, pipes, event and poll descriptors: everything that is no socket. */
  readonly others: number;
  /** TCP sockets whose peer has closed and this process has not. */
  readonly forgotten: number;
}

/** State of a TCP socket in /proc/net/tcp: the peer has closed its side. */
const CLOSE_WAIT = '08';

export function descriptorsOf(pid: number): DescriptorsOf {
  const sockets = new Set<string>();
  let others = 0;
  for (const descriptor of readdirSync(`/proc/${pid}/fd`)) {
    const target = targetOf(`/proc/${pid}/fd/${descriptor}`);
    if (target === '') continue;
    const [, inode] = /^socket:\[(\d+)\]$/.exec(target) ?? [];
    if (inode === undefined) others++;
    else sockets.add(inode);
  }
  return { others, forgotten: forgottenAmong(pid, sockets) };
}

/** '' for one that has been closed since it was listed. */
function targetOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}

function forgottenAmong(pid: number, inodes: ReadonlySet<string>): number {
  let forgotten = 0;
  for (const table of ['tcp', 'tcp6']) {
    for (const line of readFileSync(`/proc/${pid}/net/${table}`, 'utf8').split('\n').slice(1)) {
      const columns = line.trim().split(/\s+/);
      if (columns[3] === CLOSE_WAIT && inodes.has(columns[9] ?? '')) forgotten++;
    }
  }
  return forgotten;
}

/** Reads a `.cpuprofile` of `node --cpu-prof`: which thread it is and where its time went. Pure. */

interface ProfileNode {
  readonly id: number;
  readonly callFrame: {
    readonly functionName: string;
    readonly url: string;
    /** From 0. */
    readonly lineNumber: number;
  };
}

export interface CpuProfile {
  readonly nodes: readonly ProfileNode[];
  readonly samples: readonly number[];
  /** Microseconds before each sample. */
  readonly timeDeltas: readonly number[];
}

export interface SelfTime {
  readonly where: string;
  readonly us: number;
  /** Of the time the thread was not idle. */
  readonly share: number;
}

export interface ThreadProfile {
  readonly thread: string;
  readonly busyUs: number;
  readonly totalUs: number;
  readonly top: readonly SelfTime[];
}

/** The folders of src/ and dist/ that are threads; a profile is of the one whose code it saw most. */
const threadFolders = ['acceptor', 'scheduler', 'forwarder', 'gateway'] as const;

/** Waiting for work: in epoll, or asleep on a doorbell, which the profiler counts as running. */
function isIdle(where: string): boolean {
  return where === '(idle)' || /^sleep {2}(src|dist)\/shm\/doorbell\./.test(where);
}

export function readThread(profile: CpuProfile, topMax: number): ThreadProfile {
  const self = selfTimes(profile);
  const totalUs = sum(self.values());
  const busy = [...self].filter(([where]) => !isIdle(where));
  const busyUs = sum(busy.map(([, us]) => us));
  const top = busy
    .sort(([, a], [, b]) => b - a)
    .slice(0, topMax)
    .map(([where, us]) => ({ where, us, share: busyUs > 0 ? us / busyUs : 0 }));
  return { thread: threadOf(self), busyUs, totalUs, top };
}

function selfTimes(profile: CpuProfile): Map<string, number> {
  const names = new Map(profile.nodes.map((node) => [node.id, nameOf(node)]));
  const self = new Map<string, number>();
  profile.samples.forEach((id, index) => {
    const name = names.get(id) ?? '(unknown)';
    self.set(name, (self.get(name) ?? 0) + (profile.timeDeltas[index] ?? 0));
  });
  return self;
}

function nameOf({ callFrame }: ProfileNode): string {
  const { functionName, url, lineNumber } = callFrame;
  const name = functionName === '' ? '(anonymous)' : functionName;
  if (url === '') return name;
  const file = /(?:\/(?:src|dist|node_modules)\/|^node:)(.+)$/.exec(url)?.[0] ?? url;
  return `${name}  ${file.replace(/^\//, '')}:${lineNumber + 1}`;
}

function threadOf(self: ReadonlyMap<string, number>): string {
  let found = 'main';
  let most = 0;
  for (const folder of threadFolders) {
    const own = [...self].filter(
      ([where]) => where.includes(`  src/${folder}/`) || where.includes(`  dist/${folder}/`),
    );
    const us = sum(own.map(([, time]) => time));
    if (us > most) {
      most = us;
      found = folder;
    }
  }
  return found;
}

function sum(values: Iterable<number>): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}

/**
 * Simulated replicas for tests: in this process, or as a process of their own that can be stopped,
 * continued and killed. Every helper has a close() that leaves nothing behind.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { mainFile } from '../../scripts/bench/program.ts';
import type { FaultRule } from '../../src/replica/fault-rules.ts';
import { type Replica, type ReplicaOptions, startReplica } from '../../src/replica/replica.ts';
import type { AttemptRecord, StatsSnapshot } from '../../src/replica/stats.ts';

/** A replica on this event loop that records what it receives. */
export function replicaInProcess(options: ReplicaOptions = {}): Promise<Replica> {
  return startReplica({ recordRequests: true, ...options });
}

export interface ReplicaProcess {
  readonly pid: number;
  readonly port: number;
  readonly url: string;
  readonly controlUrl: string;
  stats(): Promise<StatsSnapshot>;
  /** Statistics with the count of every x-request-id. */
  counts(): Promise<Record<string, number>>;
  /** Attempts, oldest first; the last 1,000 without a limit. */
  ledger(idOrNonce?: string, limit?: number): Promise<AttemptRecord[]>;
  setFaults(rules: readonly FaultRule[]): Promise<void>;
  /** Opens or closes the replica's port. */
  listen(open: boolean): Promise<void>;
  /** Resolves once `count` requests are held at the gate. */
  arrivals(count: number): Promise<void>;
  release(count?: number): Promise<void>;
  /** SIGSTOP: connections stay open and nothing answers. */
  stop(): void;
  /** SIGCONT. */
  cont(): void;
  /** SIGKILL; resolves once the process is gone. */
  kill(): Promise<void>;
  /** SIGTERM: drains; resolves to the exit code. */
  terminate(): Promise<number | null>;
  /** Ends the process if it lives. */
  close(): Promise<void>;
}

export interface ReplicaProcessOptions {
  readonly port?: number;
  readonly profile?: string;
  readonly model?: string;
  readonly name?: string;
  readonly seed?: number;
  readonly maxNumSeqs?: number;
  readonly keepAliveTimeout?: string;
  readonly apiKey?: string;
  readonly strictModel?: boolean;
  readonly maxLoras?: number;
  readonly loraLoadTime?: string;
  readonly hold?: boolean;
  readonly faults?: readonly string[];
}

/** A replica in a process of its own; resolves when it listens. */
export async function replicaProcess(options: ReplicaProcessOptions = {}): Promise<ReplicaProcess> {
  const child = spawn(process.execPath, [mainFile, 'replica', '--json', ...flagsOf(options)], {
    // Over the channel it notices that its test is gone: one that a failed hook left would hold the
    // output of the whole run open.
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  });
  const exited = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  const ready = await Promise.race([readyLine(child), exited]);
  if (Array.isArray(ready)) throw new Error(`the replica ended with exit code ${ready[0]}`);
  return handle(child, exited, ready);
}

/** Runs `use` with that many replica processes, which are gone afterwards, whatever happens. */
export async function withReplicas<T>(
  count: number,
  options: ReplicaProcessOptions,
  use: (replicas: ReplicaProcess[]) => Promise<T>,
): Promise<T> {
  const replicas: ReplicaProcess[] = [];
  try {
    for (let i = 0; i < count; i++) replicas.push(await replicaProcess(options));
    return await use(replicas);
  } finally {
    for (const replica of replicas) await replica.close();
  }
}

interface ReadyLine {
  readonly port: number;
  readonly control_port: number;
  readonly url: string;
}

async function readyLine(child: ChildProcess): Promise<ReadyLine> {
  if (child.stdout === null) throw new Error('the replica has no stdout');
  const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
  return JSON.parse(line) as ReadyLine;
}

function handle(
  child: ChildProcess,
  exited: Promise<[number | null, NodeJS.Signals | null]>,
  ready: ReadyLine,
): ReplicaProcess {
  const controlUrl = `http://127.0.0.1:${ready.control_port}`;
  const get = async (path: string): Promise<unknown> => {
    const response = await fetch(controlUrl + path);
    return response.json();
  };
  const control = async (body: object): Promise<void> => {
    const request = { method: 'POST', body: JSON.stringify(body) };
    const response = await fetch(`${controlUrl}/control`, request);
    if (!response.ok) throw new Error(await response.text());
  };
  const kill = async (signal: NodeJS.Signals): Promise<number | null> => {
    child.kill(signal);
    const [code] = await exited;
    return code;
  };
  return {
    pid: child.pid ?? 0,
    port: ready.port,
    url: ready.url,
    controlUrl,
    stats: () => get('/stats') as Promise<StatsSnapshot>,
    counts: async () => {
      const stats = (await get('/stats?ids=1')) as { counts: Record<string, number> };
      return stats.counts;
    },
    ledger: async (id, limit = 1000) => {
      const which = id === undefined ? '' : `&id=${encodeURIComponent(id)}`;
      const answer = (await get(`/ledger?limit=${limit}${which}`)) as { attempts: AttemptRecord[] };
      return answer.attempts;
    },
    setFaults: (rules) => control({ faults: rules }),
    listen: (open) => control({ listen: open }),
    arrivals: async (count) => void (await get(`/gate?arrivals=${count}`)),
    release: (count) => control({ release: count ?? true }),
    stop: () => void child.kill('SIGSTOP'),
    cont: () => void child.kill('SIGCONT'),
    kill: async () => void (await kill('SIGKILL')),
    terminate: () => kill('SIGTERM'),
    close: async () => {
      if (child.exitCode === null && child.signalCode === null) await kill('SIGKILL');
    },
  };
}

function flagsOf(options: ReplicaProcessOptions): string[] {
  const flags: string[] = [];
  const add = (flag: string, value: string | number | undefined): void => {
    if (value !== undefined) flags.push(flag, String(value));
  };
  add('--port', options.port);
  add('--profile', options.profile);
  add('--model', options.model);
  add('--name', options.name);
  add('--seed', options.seed);
  add('--max-num-seqs', options.maxNumSeqs);
  add('--keep-alive-timeout', options.keepAliveTimeout);
  add('--api-key', options.apiKey);
  add('--max-loras', options.maxLoras);
  add('--lora-load-time', options.loraLoadTime);
  if (options.strictModel === true) flags.push('--strict-model');
  if (options.hold === true) flags.push('--hold');
  for (const fault of options.faults ?? []) flags.push('--fault', fault);
  return [...flags, '--record'];
}

/**
 * What a live scenario runs on: real replica processes with the engine model, and a gateway in a process
 * of its own before them, with the config of the scenario. All on loopback; ended by their own pids.
 * Each leads a session, so that a system that shares its cores by session counts them one by one.
 */
import { rmSync, writeFileSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { BenchContext } from '../bench/bench-context.ts';
import { type Child, fetchText, freePorts } from '../bench/children.ts';
import { mainFile } from '../bench/program.ts';
import { model, type ReplicaFleet, startReplicas } from '../bench/replicas.ts';

export const replicas = 4;
/** Places of each replica, and what the gateway gives it at a time: nobody waits in a replica. */
export const places = 8;
/** Half as fast as the model, so that all of them together leave half of two cores free. */
export const profile = 'engine:8b-h100,speed=0.5';

const stallFaults = fileURLToPath(new URL('../../test/support/gateway-faults.ts', import.meta.url));

/** The part of the config that differs between scenarios. */
export interface QueueConfig {
  readonly max?: number;
  readonly hold_tokens?: number;
}

export interface Stage {
  readonly port: number;
  readonly gateway: Child;
  /** While the file is there the scheduler stands still. */
  stall(): void;
  unstall(): void;
  /** Status of the readiness probe on the admin port. */
  readyStatus(): Promise<number>;
  queueDepth(): Promise<number>;
  /** How long the simplest answer of the client port takes: what the machine adds to every other. */
  healthMs(): Promise<number>;
}

export function startFleet(bench: BenchContext): Promise<ReplicaFleet> {
  return startReplicas(bench, replicas, profile, { maxNumSeqs: places, group: true });
}

export async function startStage(
  bench: BenchContext,
  fleet: ReplicaFleet,
  queue: QueueConfig,
): Promise<Stage> {
  const [port, adminPort] = (await freePorts(2)) as [number, number];
  const file = join(bench.folder, `live-${port}.yaml`);
  const stallFile = join(bench.folder, `stall-${port}`);
  writeFileSync(file, JSON.stringify(configOf(fleet, port, adminPort, queue), null, 2));
  const gateway = await bench.children.start(
    'gateway',
    process.execPath,
    ['--import', stallFaults, mainFile, 'serve', '--config', file, '--no-supervisor'],
    {
      ...{ readyUrl: `http://127.0.0.1:${adminPort}/readyz`, group: true },
      env: { SLUICE_TEST_STALL_FILE: stallFile },
    },
  );
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const adminUrl = `http://127.0.0.1:${adminPort}`;
  return {
    port,
    gateway,
    stall: () => writeFileSync(stallFile, ''),
    unstall: () => rmSync(stallFile),
    readyStatus: async () => (await fetch(`${adminUrl}/readyz`)).status,
    queueDepth: async () => {
      const cluster = JSON.parse(await fetchText(`${adminUrl}/v1/cluster`)) as {
        readonly queue_depth: number;
      };
      return cluster.queue_depth;
    },
    healthMs: () => healthMs(port, agent),
  };
}

function healthMs(port: number, agent: Agent): Promise<number> {
  const sentMs = performance.now();
  return new Promise((resolve, reject) => {
    const request = get({ port, path: '/healthz', agent }, (response) => {
      response.resume().once('end', () => resolve(performance.now() - sentMs));
    });
    request.once('error', reject);
  });
}

function configOf(
  fleet: ReplicaFleet,
  port: number,
  adminPort: number,
  queue: QueueConfig,
): object {
  return {
    listen: { host: '127.0.0.1', port, max_connections: 4096 },
    admin: { host: '127.0.0.1', port: adminPort },
    log: { level: 'warn' },
    queue,
    models: [
      {
        name: model,
        replicas: fleet.ports.map((p, i) => ({
          url: `http://127.0.0.1:${p}`,
          name: `r${i + 1}`,
          max_in_flight: places,
        })),
      },
    ],
  };
}

/** The simulated replicas of a scenario, one process each, and what they counted. */
import type { BenchContext } from './bench-context.ts';
import { type Child, fetchText, freePorts } from './children.ts';
import { mainFile } from './program.ts';

/** The part of a replica's /stats that the benchmark reads. */
interface ReplicaStats {
  readonly started: number;
  readonly served: number;
  readonly failed: number;
  readonly aborted: number;
  readonly cut: number;
  readonly in_flight: number;
  readonly ids: number;
  readonly ids_dropped: number;
  readonly ids_repeated: number;
}

export interface ReplicaFleet {
  readonly ports: readonly number[];
  readonly children: readonly Child[];
  /** Added up over the replicas. */
  stats(): Promise<ReplicaStats>;
}

export const model = 'llama-3-8b';

interface FleetOptions {
  readonly maxNumSeqs?: number;
  /** Each leads a process group and a session. */
  readonly group?: boolean;
}

export async function startReplicas(
  bench: BenchContext,
  count: number,
  profile: string,
  { maxNumSeqs = 4096, group = false }: FleetOptions = {},
): Promise<ReplicaFleet> {
  const ports = await freePorts(count);
  const children = await Promise.all(
    ports.map((port, index) => {
      const flags = { port, profile, model, seed: bench.seed + index, 'max-num-seqs': maxNumSeqs };
      const args = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, String(value)]);
      return bench.children.start(
        `replica ${index + 1}`,
        process.execPath,
        [mainFile, 'replica', '--host', '127.0.0.1', ...args],
        { readyUrl: `http://127.0.0.1:${port}/v1/models`, group },
      );
    }),
  );
  return {
    ports,
    children,
    async stats() {
      const pages = await Promise.all(
        ports.map((port) => fetchText(`http://127.0.0.1:${port}/stats`)),
      );
      return sum(pages.map((page): ReplicaStats => JSON.parse(page)));
    },
  };
}

function sum(all: readonly ReplicaStats[]): ReplicaStats {
  const add = (key: keyof ReplicaStats) => all.reduce((total, stats) => total + stats[key], 0);
  return {
    started: add('started'),
    served: add('served'),
    failed: add('failed'),
    aborted: add('aborted'),
    cut: add('cut'),
    in_flight: add('in_flight'),
    ids: add('ids'),
    ids_dropped: add('ids_dropped'),
    ids_repeated: add('ids_repeated'),
  };
}

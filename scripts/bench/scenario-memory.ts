/** Resident memory of a fresh gateway under its first load: what a container limit must allow. */
import type { Scenario } from './bench-context.ts';
import type { Figure } from './figures.ts';
import { measure } from './measure.ts';
import { memory } from './procfs.ts';
import { startReplicas } from './replicas.ts';
import { startTargets } from './targets.ts';

export const firstLoadMemory: Scenario = {
  name: 'memory',
  question: 'How much memory does a fresh gateway take under its first load?',
  async run(bench) {
    const fleet = await startReplicas(bench, bench.parameter({ smoke: 1, full: 2 }), 'instant');
    const { targets, skipped } = await startTargets(bench, fleet, ['gateway']);
    const [gateway] = targets;
    const pid = gateway?.children[0]?.pid;
    if (gateway === undefined || pid === undefined) return { figures: [], skipped, data: {} };
    const idle = memory(pid);
    const { report } = await measure(bench, gateway, {
      connections: 64,
      warmupMs: 0,
      durationMs: bench.parameter({ smoke: 1000, full: 8000 }),
    });
    const loaded = memory(pid);
    const figures: Figure[] = [
      {
        name: 'RSS under the first load',
        value: loaded.rssMaxMb,
        unit: 'MB',
        better: 'lower',
        floor: 250,
        aim: 150,
        detail: `highest; ${report.completed} requests at ${report.request_throughput.toFixed(0)}/s`,
      },
      { name: 'RSS before it', value: idle.rssMb, unit: 'MB', better: 'lower' },
    ];
    return { figures, skipped, data: { idle, loaded, completed: report.completed } };
  },
};

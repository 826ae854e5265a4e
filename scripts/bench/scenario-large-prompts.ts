/**
 * Prompts of 220 KB, closed loop: the real load of this field. The generator writes the same large
 * buffers for every target, so what differs is how often a target touches the bytes.
 */
import type { Scenario } from './bench-context.ts';
import { inTurns, rateFigures, rateRatio } from './compare-targets.ts';
import { measure } from './measure.ts';
import { startReplicas } from './replicas.ts';
import { startTargets, targetNames } from './targets.ts';

const promptBytes = 220 * 1024;

export const largePrompts: Scenario = {
  name: 'large-prompts',
  question: 'How many prompts of 220 KB pass, against nginx?',
  async run(bench) {
    const fleet = await startReplicas(bench, bench.parameter({ smoke: 1, full: 2 }), 'instant');
    const { targets, skipped } = await startTargets(bench, fleet, targetNames);
    const rounds = bench.parameter({ smoke: 1, full: 5 });
    const shape = { promptBytes, connections: 16, warmupMs: 300 };
    const turnMs = bench.parameter({ smoke: 1000, full: 3000 });
    const all = await inTurns(bench, targets, rounds, async (target) => {
      const { report, cpuUsPerRequest } = await measure(bench, target, {
        ...shape,
        durationMs: turnMs,
      });
      const { request_throughput: requestsPerSecond, failed } = report;
      return { requestsPerSecond, cpuUsPerRequest, failed, report };
    });
    const ratios = [
      rateRatio(all, '', 'nginx', { floor: 0.35, aim: 0.8 }),
      rateRatio(all, '', 'haproxy', {}),
      rateRatio(all, '', 'uws', {}),
    ];
    return {
      figures: [...ratios.filter((figure) => figure !== undefined), ...rateFigures(all, '')],
      skipped,
      data: all,
    };
  },
};

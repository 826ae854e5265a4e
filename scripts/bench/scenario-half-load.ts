/**
 * Scheduling latency at half load, the scheduler thread on a core of its own: from the request ring to the
 * dispatch ring at 50 % of the rate at which everything saturates. Other threads of the gateway, the
 * replicas and the generator share the other cores, while the rate is found and while it is halved.
 */
import { ownCores, pinProcess, pinThread, threadOf } from './affinity.ts';
import type { BenchContext, Scenario } from './bench-context.ts';
import type { Figure } from './figures.ts';
import { measure } from './measure.ts';
import { bucketsBetween } from './prometheus.ts';
import { startReplicas } from './replicas.ts';
import { boundsAsText, schedulingFigures, schedulingLatency } from './scheduling-latency.ts';
import { startGateway, type Target } from './targets.ts';

const connections = 64;
/** Microseconds (ALGORITHMS 6, figure 1). */
const limits = { P50: { floor: 50 }, P99: { floor: 300 }, 'P99.9': { floor: 1000 } } as const;

export const halfLoad: Scenario = {
  name: 'half-load',
  question: 'How long does a request wait for its decision at half of what the machine carries?',
  async run(bench) {
    const cores = ownCores();
    const skip = (reason: string) => ({ figures: [], skipped: [reason], data: {} });
    if (typeof cores === 'string') return skip(cores);
    const own = cores.at(-1);
    if (own === undefined || cores.length < 2)
      return skip('one core: none for the scheduler alone');
    const others = cores.slice(0, -1);
    const fleet = await startReplicas(bench, bench.parameter({ smoke: 1, full: 2 }), 'instant');
    const gateway = await startGateway(bench, fleet, 'marginal_cost');
    const pids = [...gateway.children, ...fleet.children].map(({ pid }) => pid);
    const gatewayPid = gateway.children[0]?.pid ?? 0;
    try {
      for (const pid of [process.pid, ...pids]) pinProcess(pid, others);
      pinThread(threadOf(gatewayPid, 'scheduler'), own);
      const data = { others, own };
      const { figures, data: measured } = await atHalfLoad(bench, gateway);
      return { figures, skipped: [], data: { ...data, ...measured } };
    } finally {
      pinProcess(process.pid, cores);
    }
  },
};

async function atHalfLoad(bench: BenchContext, gateway: Target) {
  const turnMs = bench.parameter({ smoke: 1000, full: 8000 });
  const closed = { connections, warmupMs: turnMs / 2, durationMs: turnMs };
  const { report: full } = await measure(bench, gateway, closed);
  const requestRate = full.request_throughput / 2;
  const open = { requestRate, connections: 4 * connections, warmupMs: 0 };
  await measure(bench, gateway, { ...open, durationMs: turnMs / 4 });
  const before = await schedulingLatency(gateway);
  const durationMs = bench.parameter({ smoke: 2000, full: 30_000 });
  const { report, cpuUsPerRequest } = await measure(bench, gateway, { ...open, durationMs });
  const buckets = bucketsBetween(before, await schedulingLatency(gateway));
  const { failed, request_throughput: achieved } = report;
  const figures: Figure[] = [
    ...schedulingFigures(buckets, limits),
    { name: 'errors', value: failed, unit: '', better: 'lower', floor: 0 },
    { name: 'achieved rate', value: achieved, unit: 'requests/s', better: 'higher' },
    {
      name: 'saturation rate',
      value: full.request_throughput,
      unit: 'requests/s',
      better: 'higher',
      detail: `closed loop, ${connections} connections, on the same cores`,
    },
  ];
  return { figures, data: { buckets: boundsAsText(buckets), cpuUsPerRequest, full, report } };
}

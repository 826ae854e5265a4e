/**
 * 8,000 requests per second, open loop, against four replicas that take 8 to 24 ms.
 * The scheduling latency is the gateway's own histogram over the run, so its quantiles are known to a
 * bucket; exactly-once is what the replicas counted against what was sent. The warm-up is a run of
 * its own, so that neither histogram nor counts contain it.
 */
import type { BenchContext, Scenario } from './bench-context.ts';
import type { Figure } from './figures.ts';
import { type Measured, measure } from './measure.ts';
import { CpuMeter, memory } from './procfs.ts';
import { bucketsBetween } from './prometheus.ts';
import { type ReplicaFleet, startReplicas } from './replicas.ts';
import { boundsAsText, schedulingFigures, schedulingLatency } from './scheduling-latency.ts';
import { startTargets, type Target } from './targets.ts';

export const openLoop: Scenario = {
  name: 'open-loop',
  question: 'Does one gateway carry 8,000 requests per second without an error or a wait?',
  async run(bench) {
    const fleet = await startReplicas(bench, 4, 'uniform:8ms-24ms');
    const { targets, skipped } = await startTargets(bench, fleet, ['gateway']);
    const [gateway] = targets;
    if (gateway === undefined) return { figures: [], skipped, data: {} };
    return { skipped, ...(await runOpenLoop(bench, fleet, gateway)) };
  },
};

async function runOpenLoop(bench: BenchContext, fleet: ReplicaFleet, gateway: Target) {
  const requestRate = bench.parameter({ smoke: 500, full: 8000 });
  const shape = {
    requestRate,
    connections: bench.parameter({ smoke: 256, full: 384 }),
    warmupMs: 0,
  };
  await measure(bench, gateway, {
    ...shape,
    durationMs: bench.parameter({ smoke: 500, full: 5000 }),
  });
  const processes = [...gateway.children, ...fleet.children];
  const meters = processes.map(({ name, pid }) => ({ name, meter: new CpuMeter(pid) }));
  const statsBefore = await fleet.stats();
  const before = await schedulingLatency(gateway);
  const measured = await measure(bench, gateway, {
    ...shape,
    durationMs: bench.parameter({ smoke: 3000, full: 60_000 }),
  });
  const buckets = bucketsBetween(before, await schedulingLatency(gateway));
  const cpu = meters.map(({ name, meter }) => ({ name, ...meter.read() }));
  const stats = await fleet.stats();
  const served = stats.served - statsBefore.served;
  const started = stats.started - statsBefore.started;
  const pid = gateway.children[0]?.pid as number;
  return {
    figures: [
      ...loadFigures(measured, requestRate),
      ...schedulingFigures(buckets, {
        P99: { floor: 10_000, aim: 300 },
        'P99.9': { floor: 10_000, aim: 1000 },
      }),
      onceFigure(measured, { served, started, repeated: stats.ids_repeated }),
      {
        name: 'RSS of the gateway',
        value: memory(pid).rssMaxMb,
        unit: 'MB',
        better: 'lower',
        floor: 250,
        aim: 150,
        detail: 'highest of the run',
      } satisfies Figure,
      {
        name: 'CPU of the gateway',
        value: measured.cpuUsPerRequest,
        unit: 'us per request',
        better: 'lower',
        detail: `${((cpu[0]?.share ?? 0) * 100).toFixed(0)}% of a core`,
      } satisfies Figure,
    ],
    data: { report: measured.report, buckets: boundsAsText(buckets), cpu, replicas: stats },
  };
}

function loadFigures({ report }: Measured, requestRate: number): Figure[] {
  const { errors, generator, unsent } = report.sluice;
  const offered = report.completed + report.failed;
  const named = Object.entries(errors).map(([name, count]) => `${name} ${count}`);
  return [
    {
      name: 'errors',
      value: report.failed,
      unit: '',
      better: 'lower',
      floor: 0,
      aim: 0,
      detail: [`of ${offered}`, ...named, `unsent ${unsent}`].join(', '),
    },
    {
      name: 'achieved rate',
      value: report.request_throughput,
      unit: 'requests/s',
      better: 'higher',
      // The count of a Poisson run varies with its square root; four of those are no shortfall.
      floor: requestRate * (1 - 4 / Math.sqrt(offered)),
      detail: `offered ${requestRate}`,
    },
    {
      name: 'latency p99 from the intended send time',
      value: report.p99_e2el_ms,
      unit: 'ms',
      better: 'lower',
      detail: `p50 ${report.p50_e2el_ms.toFixed(1)} ms; replicas take 8 to 24 ms`,
    },
    {
      name: 'CPU of the generator',
      value: generator.cpuUsPerRequest,
      unit: 'us per request',
      better: 'lower',
      detail: generator.saturated ? 'SATURATED' : `lag p99 ${generator.lagP99Ms.toFixed(1)} ms`,
    },
  ];
}

interface Counted {
  readonly served: number;
  readonly started: number;
  readonly repeated: number;
}

/** A request sent twice, or a retry, shows as more starts than requests. */
function onceFigure({ report }: Measured, { served, started, repeated }: Counted): Figure {
  const { sent } = report.sluice;
  return {
    name: 'requests not served exactly once',
    value: Math.abs(sent - served) + Math.abs(sent - started) + repeated,
    unit: '',
    better: 'lower',
    floor: 0,
    aim: 0,
    detail: `sent ${sent}, replicas started ${started}, served ${served}, ids seen twice ${repeated}`,
  };
}

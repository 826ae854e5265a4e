/**
 * marginal_cost against power_of_two at 8,000 requests per second, one request in twenty with a prompt of
 * 24 blocks. Two gateways over the same replicas are driven in short turns, because a shared machine is
 * slow for seconds at a time; a figure is the median over the rounds of the ratio within a round.
 */
import type { BenchContext, Scenario } from './bench-context.ts';
import { type Figure, median } from './figures.ts';
import { measure } from './measure.ts';
import { bucketsBetween, quantile } from './prometheus.ts';
import { startReplicas } from './replicas.ts';
import { schedulingLatency } from './scheduling-latency.ts';
import { startGateway, type Target } from './targets.ts';

const policies = ['marginal_cost', 'power_of_two'] as const;
const blockBytes = 2048;
const longPromptBytes = 24 * blockBytes;
const longShare = 0.05;

interface Turn {
  readonly requestsPerSecond: number;
  readonly failed: number;
  readonly schedulingP99Us: number;
  readonly cpuUsPerRequest: number;
}

export const policyLoad: Scenario = {
  name: 'policies',
  question: 'Does marginal_cost cost anything against power_of_two at 8,000 requests per second?',
  async run(bench) {
    const fleet = await startReplicas(bench, 4, 'uniform:8ms-24ms');
    const gateways = await Promise.all(
      policies.map((policy) => startGateway(bench, fleet, policy)),
    );
    const rounds = bench.parameter({ smoke: 1, full: 8 });
    const turnMs = bench.parameter({ smoke: 1000, full: 4000 });
    for (const gateway of gateways) await turnOf(bench, gateway, turnMs);
    const turns: Turn[][] = gateways.map(() => []);
    for (let round = 0; round < rounds; round++) {
      // Whoever goes first in one round goes last in the next.
      const order = round % 2 === 0 ? [0, 1] : [1, 0];
      for (const i of order) {
        turns[i]?.push(await turnOf(bench, gateways[i] as Target, turnMs));
      }
    }
    const figures = figuresOf(turns[0] as Turn[], turns[1] as Turn[]);
    return { figures, skipped: [], data: { turns, policies } };
  },
};

async function turnOf(bench: BenchContext, gateway: Target, durationMs: number): Promise<Turn> {
  const rate = bench.parameter({ smoke: 500, full: 8000 });
  const shape = { warmupMs: 0, durationMs };
  const before = await schedulingLatency(gateway);
  const short = { ...shape, requestRate: rate * (1 - longShare), connections: 320 };
  const long = { ...shape, requestRate: rate * longShare, connections: 64 };
  const loads = await Promise.all([
    measure(bench, gateway, short),
    measure(bench, gateway, { ...long, promptBytes: longPromptBytes }),
  ]);
  const latency = bucketsBetween(before, await schedulingLatency(gateway));
  const sum = (of: (load: (typeof loads)[number]) => number) => of(loads[0]) + of(loads[1]);
  return {
    requestsPerSecond: sum(({ report }) => report.request_throughput),
    failed: sum(({ report }) => report.failed),
    schedulingP99Us: quantile(latency, 0.99).value * 1e6,
    // Both loads saw all of the gateway's time.
    cpuUsPerRequest: (loads[0].cpuSeconds * 1e6) / sum(({ report }) => report.sluice.sent),
  };
}

function figuresOf(ours: readonly Turn[], theirs: readonly Turn[]): Figure[] {
  const ratio = (
    name: string,
    of: (turn: Turn) => number,
    limits: Pick<Figure, 'better' | 'floor' | 'aim'>,
  ): Figure => {
    const ratios = ours.map((turn, round) => of(turn) / of(theirs[round] as Turn));
    const middles = [ours, theirs].map((turns) => median(turns.map(of)).toFixed(0));
    const [least, most] = [Math.min(...ratios), Math.max(...ratios)];
    const spread = `${least.toFixed(2)} to ${most.toFixed(2)} in ${ratios.length} rounds`;
    const detail = `${middles[0]} over ${middles[1]}; ${spread}`;
    return {
      name: `${policies.join(' / ')}, ${name}`,
      value: median(ratios),
      unit: 'x',
      detail,
      ...limits,
    };
  };
  const failed = [...ours, ...theirs].reduce((sum, turn) => sum + turn.failed, 0);
  return [
    ratio('achieved rate', (turn) => turn.requestsPerSecond, { better: 'higher', floor: 0.98 }),
    ratio('CPU per request', (turn) => turn.cpuUsPerRequest, { better: 'lower', floor: 1.1 }),
    ratio('scheduling latency P99', (turn) => turn.schedulingP99Us, { better: 'lower' }),
    { name: 'errors', value: failed, unit: '', better: 'lower', floor: 0 },
  ];
}

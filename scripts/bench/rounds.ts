/**
 * Two gateways over the same replicas, driven in short turns, because a shared machine is slow for
 * seconds at a time; a figure is the median over the rounds of the ratio within a round.
 */
import type { BenchContext } from './bench-context.ts';
import { type Figure, median } from './figures.ts';
import { type LoadShape, measure } from './measure.ts';
import { bucketsBetween, quantile } from './prometheus.ts';
import { schedulingLatency } from './scheduling-latency.ts';
import type { Target } from './targets.ts';

/** What a gateway did in one turn, over all of its loads. */
export interface Turn {
  readonly requestsPerSecond: number;
  readonly failed: number;
  readonly schedulingP99Us: number;
  readonly cpuUsPerRequest: number;
}

/** Of the loads that make up a turn: together they are the rate. */
export type TurnLoad = Omit<LoadShape, 'warmupMs' | 'durationMs' | 'requestRate'> & {
  readonly share: number;
};

export interface Rounds {
  readonly ours: readonly Turn[];
  readonly theirs: readonly Turn[];
}

export async function drive(
  bench: BenchContext,
  [ours, theirs]: readonly [Target, Target],
  loads: readonly TurnLoad[],
): Promise<Rounds> {
  const rate = bench.parameter({ smoke: 500, full: 8000 });
  const rounds = bench.parameter({ smoke: 1, full: 8 });
  const turnMs = bench.parameter({ smoke: 1000, full: 4000 });
  const turn = (gateway: Target): Promise<Turn> => turnOf(bench, gateway, loads, rate, turnMs);
  const turns = { ours: [] as Turn[], theirs: [] as Turn[] };
  await turn(ours);
  await turn(theirs);
  for (let round = 0; round < rounds; round++) {
    // Whoever goes first in one round goes last in the next.
    if (round % 2 === 0) turns.ours.push(await turn(ours));
    turns.theirs.push(await turn(theirs));
    if (round % 2 === 1) turns.ours.push(await turn(ours));
  }
  return turns;
}

async function turnOf(
  bench: BenchContext,
  gateway: Target,
  loads: readonly TurnLoad[],
  rate: number,
  durationMs: number,
): Promise<Turn> {
  const before = await schedulingLatency(gateway);
  const measured = await Promise.all(
    loads.map(({ share, ...shape }) =>
      measure(bench, gateway, { ...shape, requestRate: rate * share, warmupMs: 0, durationMs }),
    ),
  );
  const latency = bucketsBetween(before, await schedulingLatency(gateway));
  const sum = (of: (load: (typeof measured)[number]) => number): number =>
    measured.reduce((total, load) => total + of(load), 0);
  // Each load saw all of the gateway's time.
  const cpuSeconds = Math.max(...measured.map((load) => load.cpuSeconds));
  return {
    requestsPerSecond: sum(({ report }) => report.request_throughput),
    failed: sum(({ report }) => report.failed),
    schedulingP99Us: quantile(latency, 0.99).value * 1e6,
    cpuUsPerRequest: (cpuSeconds * 1e6) / sum(({ report }) => report.sluice.sent),
  };
}

/** `cpuFloor`: what the ratio of processor time per request may be. */
export function ratioFigures(names: string, { ours, theirs }: Rounds, cpuFloor = 1.1): Figure[] {
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
    return { name: `${names}, ${name}`, value: median(ratios), unit: 'x', detail, ...limits };
  };
  const failed = [...ours, ...theirs].reduce((sum, turn) => sum + turn.failed, 0);
  return [
    ratio('achieved rate', (turn) => turn.requestsPerSecond, { better: 'higher', floor: 0.98 }),
    ratio('CPU per request', (turn) => turn.cpuUsPerRequest, { better: 'lower', floor: cpuFloor }),
    ratio('scheduling latency P99', (turn) => turn.schedulingP99Us, { better: 'lower' }),
    { name: 'errors', value: failed, unit: '', better: 'lower', floor: 0 },
  ];
}

/**
 * Closed-loop runs of several targets, taken in short turns, because a shared machine is slow for
 * seconds at a time and such a spell must fall on all of them. A ratio is the median over the rounds
 * of the ratios within a round. Before the first round each target runs once uncounted: code that
 * is still being compiled says nothing about a gateway that has served for a minute.
 */
import type { BenchContext } from './bench-context.ts';
import { type Figure, median } from './figures.ts';
import type { Target } from './targets.ts';

export interface Round {
  readonly requestsPerSecond: number;
  readonly cpuUsPerRequest: number;
  readonly failed: number;
  readonly report: unknown;
}

export interface TargetRounds {
  readonly target: string;
  readonly rounds: Round[];
}

export async function inTurns(
  bench: BenchContext,
  targets: readonly Target[],
  rounds: number,
  once: (target: Target, isWarmup: boolean) => Promise<Round>,
): Promise<TargetRounds[]> {
  const all = targets.map((target) => ({ target: target.name, rounds: [] as Round[] }));
  for (const target of targets) await once(target, true);
  for (let round = 0; round < rounds; round++) {
    for (const [index, target] of targets.entries()) {
      const result = await once(target, false);
      all[index]?.rounds.push(result);
      bench.progress(
        `${target.name}  round ${round + 1}/${rounds}  ` +
          `${result.requestsPerSecond.toFixed(0)} requests/s  ${result.failed} failed`,
      );
    }
  }
  return all;
}

/** Rate, CPU and errors of each target. `label` tells two generators apart. */
export function rateFigures(all: readonly TargetRounds[], label: string): Figure[] {
  return all.flatMap(({ target, rounds }) => {
    const rates = rounds.map((round) => round.requestsPerSecond);
    const figures: Figure[] = [
      {
        name: `${target}${label}`,
        value: median(rates),
        unit: 'requests/s',
        better: 'higher',
        detail:
          `median of ${rates.length}, ${Math.min(...rates).toFixed(0)} to ` +
          `${Math.max(...rates).toFixed(0)}${failedText(rounds)}`,
      },
    ];
    const cpu = median(rounds.map((round) => round.cpuUsPerRequest));
    if (cpu > 0) {
      const name = `${target} CPU${label}`;
      figures.push({ name, value: cpu, unit: 'us per request', better: 'lower' });
    }
    return figures;
  });
}

/** Rate of the gateway over another target's; undefined when one of them did not run. */
export function rateRatio(
  all: readonly TargetRounds[],
  label: string,
  over: string,
  limits: { readonly floor?: number; readonly aim?: number },
): Figure | undefined {
  const rates = (name: string) => {
    const found = all.find(({ target }) => target === name);
    return found?.rounds.map((round) => round.requestsPerSecond);
  };
  const gateway = rates('gateway');
  const other = rates(over);
  if (gateway === undefined || other === undefined) return undefined;
  const ratios = gateway.map((rate, round) => rate / (other[round] as number));
  const [least, most] = [Math.min(...ratios), Math.max(...ratios)];
  return {
    name: `gateway / ${over}${label}`,
    value: median(ratios),
    unit: 'x',
    better: 'higher',
    ...limits,
    detail: `median of ${ratios.length} rounds, ${least.toFixed(2)} to ${most.toFixed(2)}`,
  };
}

function failedText(rounds: readonly Round[]): string {
  const failed = rounds.reduce((sum, round) => sum + round.failed, 0);
  return failed > 0 ? `, ${failed} FAILED` : '';
}

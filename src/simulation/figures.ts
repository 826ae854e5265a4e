/** The figures of a run that tables and JSON show, by name, and what they come to over seeds. Pure. */
import type { Outcomes } from './experiment.ts';
import { slos } from './measures.ts';
import { type Stat, statOf, statText } from './summary.ts';

export interface Figure {
  readonly key: string;
  readonly title: string;
  readonly digits: number;
  value(outcomes: Outcomes): number | undefined;
}

const [quoted, strict, loose] = slos.map(({ ttftMs, itlMs }) => `${ttftMs / 1000} s / ${itlMs} ms`);

export const figures: readonly Figure[] = [
  figure('goodput', `goodput % (${quoted})`, 1, ({ measures }) => measures.goodput[0]),
  figure('goodput_strict', `% (${strict})`, 1, ({ measures }) => measures.goodput[1]),
  figure('goodput_loose', `% (${loose})`, 1, ({ measures }) => measures.goodput[2]),
  figure('ttft_mean_ms', 'TTFT mean, ms', 0, ({ measures }) => measures.ttftMs.mean),
  figure('ttft_p50_ms', 'TTFT p50', 0, ({ measures }) => measures.ttftMs.p50),
  figure('ttft_p90_ms', 'TTFT p90', 0, ({ measures }) => measures.ttftMs.p90),
  figure('ttft_p99_ms', 'TTFT p99', 0, ({ measures }) => measures.ttftMs.p99),
  figure('tpot_p50_ms', 'TPOT p50, ms', 1, ({ measures }) => measures.tpotMs.p50),
  figure('tpot_p99_ms', 'TPOT p99', 1, ({ measures }) => measures.tpotMs.p99),
  figure('itl_worst_tenth_ms', 'worst 10 % ITL, ms', 0, ({ measures }) => measures.itlWorstTenthMs),
  figure('hit_rate', 'hit rate', 3, ({ measures }) => measures.hitRate),
  figure('hit_share', 'of endless cache', 2, ({ measures }) => measures.hitShareOfUnlimited),
  figure('busy_ratio', 'busy max/mean', 2, ({ measures }) => measures.busyRatio.mean),
  figure('busy_ratio_p99', 'busy p99', 2, ({ measures }) => measures.busyRatio.p99),
  figure('pending_ratio', 'pending max/mean', 2, ({ measures }) => measures.pendingRatio.mean),
  figure('pending_ratio_p99', 'pending p99', 2, ({ measures }) => measures.pendingRatio.p99),
  figure('preemptions', 'preempted', 0, ({ measures }) => measures.preemptions),
  figure('refused', 'refused', 0, ({ measures }) => measures.refused),
  figure('broken', 'broken', 0, ({ measures }) => measures.broken),
  figure('jain', 'Jain', 3, ({ fairness }) => fairness?.short.jain),
  figure('jain_windows', 'windows', 0, ({ fairness }) => fairness?.short.windows),
  figure('jain_long', 'Jain, 60 s', 3, ({ fairness }) => fairness?.long.jain),
  figure('jain_long_windows', 'windows of 60 s', 0, ({ fairness }) => fairness?.long.windows),
  figure('jain_shares', 'Jain of fair shares', 3, ({ fairness }) => fairness?.shares),
  figure('service_gap', 'service gap, ktokens', 0, ({ fairness }) => kilo(fairness?.serviceGap)),
  figure('service_bound', 'VTC bound', 0, ({ fairness }) => kilo(fairness?.serviceBound)),
  figure('light_p50_ms', 'light TTFT p50, ms', 0, ({ fairness }) => fairness?.lightTtftMs.p50),
  figure('light_p99_ms', 'light TTFT p99', 0, ({ fairness }) => fairness?.lightTtftMs.p99),
  figure('light_wait_ms', 'light queue p99, ms', 0, ({ fairness }) => fairness?.lightWaitMs.p99),
  figure('heavy_p50_ms', 'heavy TTFT p50', 0, ({ fairness }) => fairness?.heavyTtftMs.p50),
  figure('share', 'share of the changed row', 2, ({ change }) => change?.share),
  figure('share_first', 'in the first 10 s', 2, ({ change }) => change?.shareAtFirst),
  figure('recovery_s', 'recovered after, s', 0, ({ change }) => change?.recoveryS),
];

/** What a person looks at first; the rest is in the JSON. */
export const shownKeys: readonly string[] = [
  ...['goodput', 'goodput_strict', 'goodput_loose', 'ttft_mean_ms', 'ttft_p50_ms', 'ttft_p99_ms'],
  ...['tpot_p99_ms', 'itl_worst_tenth_ms', 'hit_rate', 'hit_share', 'busy_ratio', 'pending_ratio'],
  ...['jain', 'service_gap', 'light_p50_ms', 'light_p99_ms', 'share', 'share_first', 'recovery_s'],
];

/** Of fairness alone. */
export const fairnessKeys: readonly string[] = [
  ...['jain', 'jain_windows', 'jain_long', 'jain_long_windows', 'jain_shares', 'service_gap'],
  ...['service_bound', 'light_wait_ms', 'light_p50_ms', 'light_p99_ms'],
];

/** One policy under one set of conditions. */
export interface Row {
  readonly name: string;
  readonly stats: ReadonlyMap<string, Stat>;
}

export function rowOf(name: string, runs: readonly Outcomes[]): Row {
  const stats = new Map<string, Stat>();
  for (const { key, value } of figures) {
    const values = runs.map(value).filter((number) => number !== undefined);
    if (values.length > 0) stats.set(key, statOf(values));
  }
  return { name, stats };
}

/** Header and cells; figures that no row has are left out. */
export function tableOf(rows: readonly Row[], keys: readonly string[]): string[][] {
  const shown = figures.filter(
    ({ key }) => keys.includes(key) && rows.some((r) => r.stats.has(key)),
  );
  const cells = rows.map(({ name, stats }) => [
    name,
    ...shown.map(({ key, digits }) => {
      const stat = stats.get(key);
      return stat === undefined ? '' : statText(stat, digits);
    }),
  ]);
  return [['policy', ...shown.map(({ title }) => title)], ...cells];
}

function figure(
  key: string,
  title: string,
  digits: number,
  value: (outcomes: Outcomes) => number | undefined,
): Figure {
  return { key, title, digits, value };
}

function kilo(value: number | undefined): number | undefined {
  return value === undefined ? undefined : value / 1000;
}

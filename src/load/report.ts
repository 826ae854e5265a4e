/**
 * A load run as JSON and as text. The JSON has exactly the keys of `vllm bench serve`, so existing
 * notebooks and dashboards read it, plus one key `sluice` with everything else.
 *
 * One difference of meaning, stated in the JSON too: ttft and e2el count from the intended send
 * time. The figures `vllm` calls ttft and e2el are `sluice.ttft_from_send_ms` and `.e2el_from_send_ms`.
 */

import type { LoadPlan, LoadProgress, LoadResult } from './generator.ts';
import type { LatencySummary } from './latency.ts';
import { outcomeNames } from './outcome.ts';

const statistics = ['mean', 'median', 'std', 'p50', 'p90', 'p95', 'p99'] as const;

type Statistic = (typeof statistics)[number];
type LatencyName =
  | 'ttft'
  | 'tpot'
  | 'itl'
  | 'e2el'
  | 'client_queue_time'
  | 'e2el_including_client_queue';

export type VllmReport = {
  [K in `${Statistic}_${LatencyName}_ms`]: number;
} & {
  duration: number;
  completed: number;
  failed: number;
  total_input_tokens: number;
  total_output_tokens: number;
  request_throughput: number;
  request_goodput: number | null;
  output_throughput: number;
  total_token_throughput: number;
  max_output_tokens_per_s: number;
  max_concurrent_requests: number;
};

export interface SluiceReport {
  readonly latency_counts_from: 'intended send time';
  readonly request_rate: number | 'inf';
  readonly burstiness: number | 'inf';
  readonly connections: number;
  readonly concurrency_max: number;
  readonly seed: number;
  readonly request_id_prefix: string;
  readonly sent: number;
  readonly unsent: number;
  readonly warmup: { readonly completed: number; readonly failed: number };
  readonly errors: Readonly<Record<string, number>>;
  readonly connect_errnos: Readonly<Record<string, number>>;
  readonly statuses: Readonly<Record<string, number>>;
  readonly events: number;
  readonly bytes_read: number;
  readonly ttft_ms: LatencySummary;
  readonly itl_ms: LatencySummary;
  readonly e2el_ms: LatencySummary;
  readonly ttft_from_send_ms: LatencySummary;
  readonly e2el_from_send_ms: LatencySummary;
  readonly generator: LoadResult['self'];
}

export type LoadReport = VllmReport & { readonly sluice: SluiceReport };

export function loadReport(plan: LoadPlan, result: LoadResult): LoadReport {
  const { metrics } = result;
  const seconds = result.durationMs / 1000;
  const perSecond = (count: number) => (seconds > 0 ? count / seconds : 0);
  const e2el = metrics.e2el.summary();
  const limits = Object.values(plan.goodput).length;
  return {
    duration: seconds,
    completed: metrics.completed,
    failed: metrics.failed,
    total_input_tokens: metrics.inputTokens,
    total_output_tokens: metrics.outputTokens,
    request_throughput: perSecond(metrics.completed),
    request_goodput: limits > 0 ? perSecond(metrics.good) : null,
    output_throughput: perSecond(metrics.outputTokens),
    total_token_throughput: perSecond(metrics.inputTokens + metrics.outputTokens),
    max_output_tokens_per_s: metrics.tokensPerSecondMax,
    max_concurrent_requests: metrics.inFlightMax,
    ...keys('ttft', metrics.ttft.summary()),
    ...keys('tpot', metrics.tpot.summary()),
    ...keys('itl', metrics.itl.summary()),
    ...keys('e2el', e2el),
    ...keys('client_queue_time', metrics.clientQueue.summary()),
    ...keys('e2el_including_client_queue', e2el),
    sluice: sluiceReport(plan, result),
  };
}

function keys<N extends LatencyName>(
  name: N,
  summary: LatencySummary,
): Record<`${Statistic}_${N}_ms`, number> {
  const pairs = statistics.map((statistic) => [`${statistic}_${name}_ms`, summary[statistic]]);
  return Object.fromEntries(pairs) as Record<`${Statistic}_${N}_ms`, number>;
}

function sluiceReport(plan: LoadPlan, result: LoadResult): SluiceReport {
  const { metrics } = result;
  const errors: Record<string, number> = {};
  outcomeNames.forEach((name, outcome) => {
    const count = metrics.outcomes[outcome] as number;
    if (name !== 'ok' && count > 0) errors[name] = count;
  });
  return {
    latency_counts_from: 'intended send time',
    request_rate: orInf(plan.requestRate),
    burstiness: orInf(plan.burstiness),
    connections: plan.connections,
    concurrency_max: Math.min(plan.concurrencyMax, plan.connections),
    seed: plan.seed,
    request_id_prefix: plan.idPrefix,
    sent: metrics.sent,
    unsent: metrics.unsent,
    warmup: metrics.warmup,
    errors,
    connect_errnos: Object.fromEntries(metrics.errnos),
    statuses: Object.fromEntries(metrics.statuses),
    events: metrics.events,
    bytes_read: result.bytesRead,
    ttft_ms: metrics.ttft.summary(),
    itl_ms: metrics.itl.summary(),
    e2el_ms: metrics.e2el.summary(),
    ttft_from_send_ms: metrics.ttftFromSend.summary(),
    e2el_from_send_ms: metrics.e2elFromSend.summary(),
    generator: result.self,
  };
}

/** JSON has no Infinity. */
function orInf(value: number): number | 'inf' {
  return Number.isFinite(value) ? value : 'inf';
}

export function progressLine(progress: LoadProgress): string {
  const { metrics } = progress;
  const done = metrics.completed + metrics.warmup.completed;
  const failed = metrics.failed + metrics.warmup.failed;
  const { p50, p99 } = metrics.e2el.summary();
  return (
    `${(progress.elapsedMs / 1000).toFixed(0)} s  ${done} done  ${failed} failed  ` +
    `${progress.inFlight} in flight  e2e p50 ${ms(p50)} p99 ${ms(p99)}  ` +
    `generator lag p99 ${ms(progress.lagP99Ms)}`
  );
}

export function reportText(report: LoadReport): string {
  const own = report.sluice;
  const lines = [
    `requests      ${report.completed} completed, ${report.failed} failed${errorText(own)}`,
    `duration      ${report.duration.toFixed(2)} s`,
    `throughput    ${report.request_throughput.toFixed(1)} requests/s, ` +
      `${report.output_throughput.toFixed(1)} output tokens/s`,
  ];
  if (report.request_goodput !== null) {
    lines.push(`goodput       ${report.request_goodput.toFixed(1)} requests/s within the limits`);
  }
  lines.push(`in flight     ${report.max_concurrent_requests} at most`);
  if (report.completed > 0) lines.push('', ...latencyTable(report));
  const { generator } = own;
  lines.push(
    '',
    `generator     ${(generator.cpuShare * 100).toFixed(0)}% of a core, ` +
      `${generator.cpuUsPerRequest.toFixed(1)} us CPU per request, ` +
      `lag p99 ${ms(generator.lagP99Ms)}, max ${ms(generator.lagMaxMs)}`,
  );
  // Where nothing completed there are no figures to doubt.
  if (generator.saturated && report.completed > 0) lines.push(saturatedWarning);
  return `${lines.join('\n')}\n`;
}

function latencyTable(report: LoadReport): string[] {
  const rows = [`${'ms'.padEnd(14)}${statistics.map((name) => name.padStart(10)).join('')}`];
  for (const name of ['ttft', 'tpot', 'itl', 'e2el', 'client_queue_time'] as const) {
    // Answers that are no streams have no first token and no gaps.
    if (report[`mean_${name}_ms`] === 0) continue;
    const cells = statistics.map((s) => report[`${s}_${name}_ms`].toFixed(2).padStart(10));
    rows.push(
      `${(name === 'client_queue_time' ? 'client queue' : name).padEnd(14)}${cells.join('')}`,
    );
  }
  return rows;
}

const saturatedWarning =
  'WARNING: the generator was saturated; these figures describe it, not the target.';

function errorText({ errors, connect_errnos }: SluiceReport): string {
  const reasons = Object.keys(connect_errnos).join(', ');
  const named = Object.entries(errors).map(([name, count]) =>
    name === 'connect' && reasons !== '' ? `connect ${count}: ${reasons}` : `${name} ${count}`,
  );
  return named.length > 0 ? ` (${named.join(', ')})` : '';
}

function ms(value: number): string {
  return `${value.toFixed(value < 10 ? 2 : 1)} ms`;
}

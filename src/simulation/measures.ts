/**
 * Measures: the figures of merit of one run, from its records (ALGORITHMS.md 6). Pure.
 *
 * Requests that were refused or broken count as missed in every goodput and are in no latency.
 * Latency counts from when the request was sent, so time in a gateway's queue is part of it.
 */
import { assert } from '../lib/assert.ts';
import { quantileOf } from '../lib/quantile.ts';
import type { RunResult } from './driver.ts';
import { Outcome } from './records.ts';
import { unlimitedHitRate, type Workload } from './workload.ts';

/** A service level: time to first token, and mean time between the tokens behind it. */
export interface Slo {
  readonly ttftMs: number;
  readonly itlMs: number;
}

/** Results near a limit swing a lot, so there are three pairs; the first is the one that is quoted. */
export const slos: readonly Slo[] = [
  { ttftMs: 1000, itlMs: 50 },
  { ttftMs: 500, itlMs: 30 },
  { ttftMs: 2000, itlMs: 100 },
];

export interface Latency {
  readonly mean: number;
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
}

export interface Measures {
  readonly requests: number;
  readonly finished: number;
  readonly refused: number;
  readonly broken: number;
  /** Percent of the measured requests within each service level. */
  readonly goodput: readonly number[];
  readonly ttftMs: Latency;
  /** Mean time between tokens of one request. */
  readonly tpotMs: Latency;
  /** Mean of the longest tenth of all pauses between tokens. */
  readonly itlWorstTenthMs: number;
  /** Prompt tokens found in a cache, per prompt token; and per one that an endless cache would find. */
  readonly hitRate: number;
  readonly hitShareOfUnlimited: number;
  /** Largest over mean, of replicas: time-mean and p99. */
  readonly busyRatio: { readonly mean: number; readonly p99: number };
  readonly pendingRatio: { readonly mean: number; readonly p99: number };
  readonly preemptions: number;
  readonly spanS: number;
}

export function measure(workload: Workload, result: RunResult, ttftScale = 1): Measures {
  const { records, observer, measuredFrom } = result;
  const { outcome, sentUs, firstUs, finishUs } = records;
  const counts = countOutcomes(result);
  const ttft = new Float64Array(counts.finished);
  const tpot = new Float64Array(counts.finished);
  const met = slos.map(() => 0);
  let at = 0;
  for (let i = measuredFrom; i < workload.count; i++) {
    if (outcome[i] !== Outcome.finished) continue;
    const first = firstUs[i] as number;
    const ttftMs = (first - (sentUs[i] as number)) / 1000;
    const pauses = (workload.outputTokens[i] as number) - 1;
    const itlMs = pauses === 0 ? 0 : ((finishUs[i] as number) - first) / pauses / 1000;
    slos.forEach((slo, pair) => {
      const isMet = ttftMs <= slo.ttftMs * ttftScale && itlMs <= slo.itlMs;
      if (isMet) met[pair] = (met[pair] as number) + 1;
    });
    ttft[at] = ttftMs;
    tpot[at++] = itlMs;
  }
  const hitRate = hitRateOf(workload, result);
  const unlimited = unlimitedHitRate(workload, measuredFrom);
  return {
    ...counts,
    goodput: met.map((count) => (100 * count) / counts.requests),
    ttftMs: latencyOf(ttft),
    tpotMs: latencyOf(tpot),
    itlWorstTenthMs: observer.itl.tailMean(0.1) / 1000,
    hitRate,
    hitShareOfUnlimited: unlimited === 0 ? 0 : hitRate / unlimited,
    busyRatio: { mean: observer.busyRatio.mean, p99: observer.busyRatio.p99 },
    pendingRatio: { mean: observer.pendingRatio.mean, p99: observer.pendingRatio.p99 },
    preemptions: result.preemptions,
    spanS: result.endUs / 1e6,
  };
}

function countOutcomes({ records, measuredFrom }: RunResult) {
  const counts = { requests: 0, finished: 0, refused: 0, broken: 0 };
  for (let i = measuredFrom; i < records.outcome.length; i++) {
    counts.requests++;
    if (records.outcome[i] === Outcome.finished) counts.finished++;
    else if (records.outcome[i] === Outcome.refused) counts.refused++;
    else if (records.outcome[i] === Outcome.broken) counts.broken++;
  }
  const ended = counts.finished + counts.refused + counts.broken;
  assert(ended === counts.requests, 'what was sent has ended');
  return counts;
}

function hitRateOf(workload: Workload, { records, measuredFrom }: RunResult): number {
  let hits = 0;
  let tokens = 0;
  for (let i = measuredFrom; i < workload.count; i++) {
    if (records.outcome[i] !== Outcome.finished) continue;
    hits += records.hitTokens[i] as number;
    tokens += workload.promptTokens[i] as number;
  }
  return tokens === 0 ? 0 : hits / tokens;
}

/** Sorts its argument. */
export function latencyOf(values: Float64Array): Latency {
  values.sort();
  return {
    mean: values.length === 0 ? 0 : values.reduce((sum, value) => sum + value, 0) / values.length,
    p50: quantileOf(values, 0.5),
    p90: quantileOf(values, 0.9),
    p99: quantileOf(values, 0.99),
  };
}

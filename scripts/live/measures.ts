/** What a live run shows: latencies, goodput by the second, fairness as the simulator defines it. Pure. */
import { quantile } from '../../src/lib/quantile.ts';
import { type Fairness, measureFairness } from '../../src/simulation/fairness.ts';
import { slos } from '../../src/simulation/measures.ts';
import { Outcome } from '../../src/simulation/records.ts';
import type { LiveRun } from './load.ts';
import { heavy, type LiveRecord, outputTokensMax, tenantCount } from './requests.ts';
import { places, replicas } from './stage.ts';

/** Limits of an answer that counts as good: the pair that docs/scheduling.md quotes. */
const limits = slos[0] ?? { ttftMs: 0, itlMs: 0 };
export const limitsText = `${limits.ttftMs / 1000} s to the first token, ${limits.itlMs} ms between two`;

export const wholeMs = ({ intendedUs, endUs }: LiveRecord): number => (endUs - intendedUs) / 1000;
const ttftMs = ({ intendedUs, firstUs }: LiveRecord): number => (firstUs - intendedUs) / 1000;
export const isLight = ({ tenant }: LiveRecord): boolean => tenant !== heavy;

export interface Tails {
  readonly sent: number;
  readonly served: number;
  readonly refused: number;
  /** Neither served nor turned away: nothing may be. */
  readonly lost: number;
  readonly queueP99: number;
  readonly ttftP99: number;
  readonly wholeP50: number;
  readonly wholeP99: number;
  readonly refusalP50: number;
  readonly refusalP99: number;
}

export function tailsOf(records: readonly LiveRecord[]): Tails {
  const served = records.filter(({ isServed }) => isServed);
  const refused = records.filter(({ isRefused }) => isRefused);
  const refusals = refused.map(wholeMs);
  const whole = served.map(wholeMs);
  return {
    sent: records.length,
    served: served.length,
    refused: refused.length,
    lost: records.length - served.length - refused.length,
    queueP99: quantile(
      served.map(({ queueMs }) => queueMs),
      0.99,
    ),
    ttftP99: quantile(served.map(ttftMs), 0.99),
    wholeP50: quantile(whole, 0.5),
    wholeP99: quantile(whole, 0.99),
    refusalP50: quantile(refusals, 0.5),
    refusalP99: quantile(refusals, 0.99),
  };
}

function isGood(record: LiveRecord): boolean {
  if (!record.isServed || ttftMs(record) > limits.ttftMs) return false;
  const pauses = Math.max(1, record.size.outputTokens - 1);
  return (record.endUs - record.firstUs) / 1000 / pauses <= limits.itlMs;
}

/** Good answers that ended in [fromS, toS) of the run, per second. */
export function goodput(run: LiveRun, fromS: number, toS: number): number {
  return endedPerSecond(run, fromS, toS, isGood);
}

/** Whole answers, however late. */
export function throughput(run: LiveRun, fromS: number, toS: number): number {
  return endedPerSecond(run, fromS, toS, ({ isServed }) => isServed);
}

function endedPerSecond(
  { records, startUs }: LiveRun,
  fromS: number,
  toS: number,
  counts: (record: LiveRecord) => boolean,
): number {
  const counted = records.filter((record) => {
    const endS = (record.endUs - startUs) / 1e6;
    return endS >= fromS && endS < toS && counts(record);
  });
  return counted.length / (toS - fromS);
}

export interface Second {
  readonly offered: number;
  readonly good: number;
  readonly refused: number;
  /** Of whole answers to requests that were due in it; 0 without any. */
  readonly p99: number;
}

/** Each second of the run: what was due, what ended well, and how long the answers took. */
export function secondsOf({ records, startUs }: LiveRun, seconds: number): Second[] {
  const due: LiveRecord[][] = Array.from({ length: seconds }, () => []);
  const ended: LiveRecord[][] = Array.from({ length: seconds }, () => []);
  for (const record of records) {
    due[Math.floor((record.intendedUs - startUs) / 1e6)]?.push(record);
    ended[Math.floor((record.endUs - startUs) / 1e6)]?.push(record);
  }
  return due.map((inIt, second) => ({
    offered: inIt.length,
    good: (ended[second] ?? []).filter(isGood).length,
    refused: inIt.filter(({ isRefused }) => isRefused).length,
    p99: quantile(inIt.filter(({ isServed }) => isServed).map(wholeMs), 0.99),
  }));
}

/** Columns as a simulated run has them, judged by the same code. */
export function liveFairness({ records, startUs }: LiveRun): Fairness {
  const column = (of: (record: LiveRecord) => number) => Float64Array.from(records.map(of));
  const whole = (of: (record: LiveRecord) => number) => Int32Array.from(records.map(of));
  const sentUs = column(({ intendedUs }) => intendedUs - startUs);
  const finishUs = column(({ endUs }) => endUs - startUs);
  const load = {
    ...{ count: records.length, tenantCount, arrivalUs: sentUs },
    tenant: whole(({ tenant }) => tenant),
    promptTokens: whole(({ size }) => size.promptTokens),
    outputTokens: whole(({ size }) => size.outputTokens),
  };
  const outcome = Uint8Array.from(records, ({ isServed }) =>
    isServed ? Outcome.finished : Outcome.refused,
  );
  const times = {
    ...{ outcome, sentUs, finishUs },
    dispatchUs: column(({ intendedUs, queueMs }) => intendedUs - startUs + queueMs * 1000),
    firstUs: column(({ firstUs }) => (firstUs === 0 ? 0 : firstUs - startUs)),
  };
  const endUs = finishUs.reduce((last, us) => Math.max(last, us), 0);
  const tokensAtOnce = replicas * places * outputTokensMax;
  return measureFairness(load, { records: times, measuredFrom: 0, endUs }, heavy, tokensAtOnce);
}

/**
 * Fairness between tenants (ALGORITHMS.md 6, figure 7). Pure.
 *
 *   service    1 per prompt token, when it is computed; 2 per output token, as it is produced    (VTC)
 *   backlogged in a window: some request of the tenant waits for its first token at every sample in it
 *   jain       (sum s)^2 / (n sum s^2) of the service in a window of the n backlogged tenants; 1 is even
 *   gap        largest difference of the service of two tenants over any windows in which both are
 *              backlogged without a break
 */
import type { RunResult } from './driver.ts';
import { latencyOf } from './measures.ts';
import { Outcome } from './records.ts';
import type { Workload } from './workload.ts';

const windowUs = 10_000_000;
const samplesPerWindow = 10;
const promptWeight = 1;
const outputWeight = 2;

export interface Fairness {
  /** Mean over the windows with at least two backlogged tenants; 1 without any. */
  readonly jain: number;
  readonly windows: number;
  readonly serviceGap: number;
  /** VTC's bound: 2 max(w_p longest prompt, w_q M), M the tokens of outputs that run at once. */
  readonly serviceBound: number;
  readonly lightTtftMs: { readonly p50: number; readonly p99: number };
  readonly heavyTtftMs: { readonly p50: number; readonly p99: number };
}

/** `heavy`: the tenant that floods. `tokensAtOnce`: what all caches together hold. */
export function measureFairness(
  workload: Workload,
  result: RunResult,
  heavy: number,
  tokensAtOnce: number,
): Fairness {
  const windows = Math.ceil(result.endUs / windowUs);
  const service = serviceByWindow(workload, result, windows);
  const backlogged = backlogByWindow(workload, result, windows);
  const jains: number[] = [];
  for (let window = 0; window < windows; window++) {
    const shares = service.filter((_, tenant) => isSet(backlogged, tenant, window));
    if (shares.length > 1) jains.push(jainOf(shares.map((row) => row[window] as number)));
  }
  const longest = workload.promptTokens.reduce((most, tokens) => Math.max(most, tokens), 0);
  return {
    jain: jains.length === 0 ? 1 : jains.reduce((sum, jain) => sum + jain, 0) / jains.length,
    windows: jains.length,
    serviceGap: largestGap(service, backlogged, windows),
    serviceBound: 2 * Math.max(promptWeight * longest, outputWeight * tokensAtOnce),
    lightTtftMs: ttftOf(workload, result, (tenant) => tenant !== heavy),
    heavyTtftMs: ttftOf(workload, result, (tenant) => tenant === heavy),
  };
}

export function jainOf(values: readonly number[]): number {
  const sum = values.reduce((total, value) => total + value, 0);
  const squares = values.reduce((total, value) => total + value * value, 0);
  return squares === 0 ? 1 : (sum * sum) / (values.length * squares);
}

function serviceByWindow(workload: Workload, { records }: RunResult, windows: number) {
  const service = Array.from({ length: workload.tenantCount }, () => new Float64Array(windows));
  for (let i = 0; i < workload.count; i++) {
    if (records.outcome[i] !== Outcome.finished) continue;
    const row = service[workload.tenant[i] as number] as Float64Array;
    const firstUs = records.firstUs[i] as number;
    const finishUs = records.finishUs[i] as number;
    add(row, firstUs, promptWeight * (workload.promptTokens[i] as number));
    const output = outputWeight * (workload.outputTokens[i] as number);
    const spanUs = finishUs - firstUs;
    if (spanUs === 0) add(row, firstUs, output);
    else spread(row, firstUs, finishUs, output / spanUs);
  }
  return service;
}

function add(row: Float64Array, us: number, amount: number): void {
  const window = Math.min(Math.floor(us / windowUs), row.length - 1);
  row[window] = (row[window] as number) + amount;
}

function spread(row: Float64Array, fromUs: number, toUs: number, perUs: number): void {
  for (let us = fromUs; us < toUs; ) {
    const endUs = Math.min(toUs, (Math.floor(us / windowUs) + 1) * windowUs);
    add(row, us, (endUs - us) * perUs);
    us = endUs;
  }
}

/** Per tenant and window 1 where the tenant has something waiting all along. */
function backlogByWindow(workload: Workload, { records }: RunResult, windows: number) {
  const samples = windows * samplesPerWindow;
  const sampleUs = windowUs / samplesPerWindow;
  const waiting = Array.from({ length: workload.tenantCount }, () => new Int32Array(samples + 1));
  for (let i = 0; i < workload.count; i++) {
    const row = waiting[workload.tenant[i] as number] as Int32Array;
    const endUs = (records.firstUs[i] || records.finishUs[i]) as number;
    const from = Math.ceil((records.sentUs[i] as number) / sampleUs);
    const to = Math.ceil(endUs / sampleUs);
    for (let sample = from; sample < Math.min(to, samples); sample++) {
      row[sample] = (row[sample] as number) + 1;
    }
  }
  return waiting.map((row) =>
    Uint8Array.from({ length: windows }, (_, window) => {
      const start = window * samplesPerWindow;
      return row.subarray(start, start + samplesPerWindow).every((count) => count > 0) ? 1 : 0;
    }),
  );
}

function largestGap(
  service: readonly Float64Array[],
  backlogged: readonly Uint8Array[],
  windows: number,
): number {
  let largest = 0;
  for (let a = 0; a < service.length; a++) {
    for (let b = a + 1; b < service.length; b++) {
      let sum = 0;
      let low = 0;
      let high = 0;
      for (let window = 0; window < windows; window++) {
        if (!isSet(backlogged, a, window) || !isSet(backlogged, b, window)) {
          sum = low = high = 0;
          continue;
        }
        sum += (service[a]?.[window] as number) - (service[b]?.[window] as number);
        low = Math.min(low, sum);
        high = Math.max(high, sum);
        largest = Math.max(largest, high - low);
      }
    }
  }
  return largest;
}

function ttftOf(workload: Workload, result: RunResult, isOurs: (tenant: number) => boolean) {
  const { records, measuredFrom } = result;
  const values: number[] = [];
  for (let i = measuredFrom; i < workload.count; i++) {
    if (records.outcome[i] !== Outcome.finished) continue;
    if (!isOurs(workload.tenant[i] as number)) continue;
    values.push(((records.firstUs[i] as number) - (records.sentUs[i] as number)) / 1000);
  }
  const { p50, p99 } = latencyOf(Float64Array.from(values));
  return { p50, p99 };
}

function isSet(rows: readonly Uint8Array[], tenant: number, window: number): boolean {
  return rows[tenant]?.[window] === 1;
}

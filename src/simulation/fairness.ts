/**
 * Fairness between tenants (ALGORITHMS.md 6, figure 7), of a simulated or a live run. Pure.
 *
 *   service    1 per prompt token, when it is computed; 2 per output token, as it is produced    (VTC)
 *   backlogged in a window: some request of the tenant waits for its first token at every second of it
 *   jain       (sum s)^2 / (n sum s^2) of the service in a window of the n backlogged tenants; 1 is even
 *   shares     jain of service / max-min fair share over the time in which requests arrive, all tenants
 *   gap        largest difference of the service of two tenants over any windows in which both are
 *              backlogged without a break
 */
import { fairShares } from './fair-shares.ts';
import { latencyOf } from './measures.ts';
import { Outcome, type Records } from './records.ts';
import type { Workload } from './workload.ts';

/** Windows of 60 s have six times the requests, so single long ones count for less. */
const windowsUs = [10_000_000, 60_000_000] as const;
const sampleUs = 1_000_000;
const promptWeight = 1;
const outputWeight = 2;

export type FairLoad = Pick<
  Workload,
  'count' | 'tenantCount' | 'arrivalUs' | 'tenant' | 'promptTokens' | 'outputTokens'
>;

export interface FairRun {
  readonly records: Pick<Records, 'outcome' | 'sentUs' | 'dispatchUs' | 'firstUs' | 'finishUs'>;
  readonly measuredFrom: number;
  readonly endUs: number;
}

interface WindowJain {
  /** Mean over the windows with at least two backlogged tenants; 1 without any. */
  readonly jain: number;
  readonly windows: number;
}

interface Tail {
  readonly p50: number;
  readonly p99: number;
}

export interface Fairness {
  /** In windows of 10 s and of 60 s. */
  readonly short: WindowJain;
  readonly long: WindowJain;
  readonly shares: number;
  readonly serviceGap: number;
  /** VTC's bound: 2 max(w_p longest prompt, w_q M), M the tokens of outputs that run at once. */
  readonly serviceBound: number;
  readonly lightTtftMs: Tail;
  readonly heavyTtftMs: Tail;
  /** In the queue of the gateway. */
  readonly lightWaitMs: Tail;
}

/** `heavy`: the tenant that floods. `tokensAtOnce`: the output that can be running at a time. */
export function measureFairness(
  load: FairLoad,
  run: FairRun,
  heavy: number,
  tokensAtOnce: number,
): Fairness {
  const { sentUs, dispatchUs, firstUs } = run.records;
  const [short, long] = windowsUs.map((windowUs) => jainIn(load, run, windowUs));
  const longest = load.promptTokens.reduce((most, tokens) => Math.max(most, tokens), 0);
  const isHeavy = (tenant: number): boolean => tenant === heavy;
  const isLight = (tenant: number): boolean => tenant !== heavy;
  return {
    short: short as WindowJain,
    long: long as WindowJain,
    shares: jainOfShares(load, run),
    serviceGap: largestGap(load, run),
    serviceBound: 2 * Math.max(promptWeight * longest, outputWeight * tokensAtOnce),
    lightTtftMs: tailOf(load, run, isLight, sentUs, firstUs),
    heavyTtftMs: tailOf(load, run, isHeavy, sentUs, firstUs),
    lightWaitMs: tailOf(load, run, isLight, sentUs, dispatchUs),
  };
}

export function jainOf(values: readonly number[]): number {
  const sum = values.reduce((total, value) => total + value, 0);
  const squares = values.reduce((total, value) => total + value * value, 0);
  return squares === 0 ? 1 : (sum * sum) / (values.length * squares);
}

function jainIn(load: FairLoad, run: FairRun, windowUs: number): WindowJain {
  const windows = Math.ceil(run.endUs / windowUs);
  const service = serviceByWindow(load, run, windowUs);
  const backlogged = backlogByWindow(load, run, windowUs);
  const jains: number[] = [];
  for (let window = 0; window < windows; window++) {
    const shares = service.filter((_, tenant) => isSet(backlogged, tenant, window));
    if (shares.length > 1) jains.push(jainOf(shares.map((row) => row[window] as number)));
  }
  const sum = jains.reduce((total, jain) => total + jain, 0);
  return { jain: jains.length === 0 ? 1 : sum / jains.length, windows: jains.length };
}

/** What each was given, per what a max-min fair division of the same total would have given it. */
function jainOfShares(load: FairLoad, run: FairRun): number {
  const lastUs = load.arrivalUs.reduce((last, us) => Math.max(last, us), 0);
  const whole = Math.floor(lastUs / sampleUs);
  const service = serviceByWindow(load, run, sampleUs).map((row) => sumOf(row.subarray(0, whole)));
  const wanted = new Float64Array(load.tenantCount);
  for (let i = 0; i < load.count; i++) {
    const tenant = load.tenant[i] as number;
    wanted[tenant] = (wanted[tenant] as number) + weightOf(load, i);
  }
  const fair = fairShares([...wanted], sumOf(service));
  return jainOf(
    service.flatMap((given, i) => (wanted[i] === 0 ? [] : given / (fair[i] as number))),
  );
}

function weightOf(load: FairLoad, i: number): number {
  const prompt = promptWeight * (load.promptTokens[i] as number);
  return prompt + outputWeight * (load.outputTokens[i] as number);
}

function sumOf(values: Iterable<number>): number {
  let sum = 0;
  for (const value of values) sum += value;
  return sum;
}

function serviceByWindow(load: FairLoad, { records, endUs }: FairRun, windowUs: number) {
  const windows = Math.ceil(endUs / windowUs);
  const service = Array.from({ length: load.tenantCount }, () => new Float64Array(windows));
  for (let i = 0; i < load.count; i++) {
    if (records.outcome[i] !== Outcome.finished) continue;
    const row = service[load.tenant[i] as number] as Float64Array;
    const firstUs = records.firstUs[i] as number;
    const finishUs = records.finishUs[i] as number;
    add(row, windowUs, firstUs, promptWeight * (load.promptTokens[i] as number));
    const output = outputWeight * (load.outputTokens[i] as number);
    const spanUs = finishUs - firstUs;
    if (spanUs === 0) add(row, windowUs, firstUs, output);
    else spread(row, windowUs, firstUs, finishUs, output / spanUs);
  }
  return service;
}

function add(row: Float64Array, windowUs: number, us: number, amount: number): void {
  const window = Math.min(Math.floor(us / windowUs), row.length - 1);
  row[window] = (row[window] as number) + amount;
}

function spread(
  row: Float64Array,
  windowUs: number,
  fromUs: number,
  toUs: number,
  perUs: number,
): void {
  for (let us = fromUs; us < toUs; ) {
    const endUs = Math.min(toUs, (Math.floor(us / windowUs) + 1) * windowUs);
    add(row, windowUs, us, (endUs - us) * perUs);
    us = endUs;
  }
}

/** Per tenant and window 1 where the tenant has something waiting all along. */
function backlogByWindow(load: FairLoad, { records, endUs }: FairRun, windowUs: number) {
  const windows = Math.ceil(endUs / windowUs);
  const samplesPerWindow = windowUs / sampleUs;
  const samples = windows * samplesPerWindow;
  const waiting = Array.from({ length: load.tenantCount }, () => new Int32Array(samples + 1));
  for (let i = 0; i < load.count; i++) {
    const row = waiting[load.tenant[i] as number] as Int32Array;
    const overUs = (records.firstUs[i] || records.finishUs[i]) as number;
    const from = Math.ceil((records.sentUs[i] as number) / sampleUs);
    const to = Math.ceil(overUs / sampleUs);
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

function largestGap(load: FairLoad, run: FairRun): number {
  const [windowUs] = windowsUs;
  const windows = Math.ceil(run.endUs / windowUs);
  const service = serviceByWindow(load, run, windowUs);
  const backlogged = backlogByWindow(load, run, windowUs);
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

function tailOf(
  load: FairLoad,
  { records, measuredFrom }: FairRun,
  isOurs: (tenant: number) => boolean,
  fromUs: Float64Array,
  toUs: Float64Array,
): Tail {
  const values: number[] = [];
  for (let i = measuredFrom; i < load.count; i++) {
    if (records.outcome[i] !== Outcome.finished) continue;
    if (!isOurs(load.tenant[i] as number)) continue;
    values.push(((toUs[i] as number) - (fromUs[i] as number)) / 1000);
  }
  const { p50, p99 } = latencyOf(Float64Array.from(values));
  return { p50, p99 };
}

function isSet(rows: readonly Uint8Array[], tenant: number, window: number): boolean {
  return rows[tenant]?.[window] === 1;
}

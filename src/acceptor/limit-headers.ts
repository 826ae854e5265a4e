/**
 * `x-ratelimit-*`: what the tenant of a request has left, as the clients of the OpenAI API read it. Acceptor
 * threads; what it shows is of this moment, and other requests go on taking.
 *
 * Of the limits of the tenant and of those for the model, and of the buckets of prompt and output tokens, the
 * emptier one is shown: it is the one that refuses first.
 */
import { nowUs } from '../lib/clock.ts';
import { fullInUs, remaining } from '../lib/gcra.ts';
import { isRateLimit } from '../protocol/http-rules.ts';
import type { LimitTable } from '../shm/limits.ts';
import type { AcceptorState } from './acceptor-state.ts';
import type { Request } from './request.ts';

const usPerSecond = 1e6;

/** What is shown of a bucket. */
interface Left {
  perMinute: number;
  units: number;
  /** Of a full bucket. */
  share: number;
  resetMs: number;
}

type Fields = readonly [
  rate: keyof LimitTable['at'],
  burst: keyof LimitTable['at'],
  tat: keyof LimitTable['at'],
];
const ofRequests: readonly Fields[] = [['requestRate', 'requestBurst', 'requestTat']];
const ofTokens: readonly Fields[] = [
  ['inputRate', 'inputBurst', 'inputTat'],
  ['outputRate', 'outputBurst', 'outputTat'],
];

export function pushLimits({ limits }: AcceptorState, request: Request, headers: string[]): void {
  const { holder } = request.facts;
  if (holder === undefined) return;
  const rows = [holder.limitRow, holder.modelRows.get(request.model) ?? -1].filter(
    (row) => row >= 0,
  );
  if (rows.length === 0) return;
  // Those of a replica are of the gateway's own key.
  for (let i = headers.length - 2; i >= 0; i -= 2) {
    if (isRateLimit(headers[i] as string)) headers.splice(i, 2);
  }
  const us = nowUs();
  for (const [name, buckets] of [
    ['requests', ofRequests],
    ['tokens', ofTokens],
  ] as const) {
    const left = leastLeft(limits, rows, buckets, us);
    if (left === undefined) continue;
    headers.push(`x-ratelimit-limit-${name}`, String(Math.floor(left.perMinute)));
    headers.push(`x-ratelimit-remaining-${name}`, String(Math.floor(left.units)));
    headers.push(`x-ratelimit-reset-${name}`, timeText(left.resetMs));
  }
}

function leastLeft(
  table: LimitTable,
  rows: readonly number[],
  buckets: readonly Fields[],
  us: number,
): Left | undefined {
  const { doubles, at } = table;
  let least: Left | undefined;
  for (const row of rows) {
    const word = table.word(row);
    const read = (field: keyof LimitTable['at']): number =>
      doubles[(word + at[field]) >> 1] as number;
    for (const [rate, burst, tat] of buckets) {
      const perSecond = read(rate);
      if (perSecond === 0) continue;
      const full = read(burst);
      const units = remaining(read(tat), us, perSecond / usPerSecond, full);
      const share = units / full;
      const resetMs = fullInUs(read(tat), us) / 1000;
      // Two that are empty: the one that is longer in debt.
      const isLess =
        least === undefined ||
        share < least.share ||
        (share === least.share && resetMs > least.resetMs);
      if (isLess) least = { perMinute: perSecond * 60, units, share, resetMs };
    }
  }
  return least;
}

/** As the OpenAI API writes it: `12ms`, `1.5s`, `6m0s`. */
function timeText(ms: number): string {
  if (ms < 1000) return `${Math.ceil(ms)}ms`;
  const seconds = Math.ceil(ms / 100) / 10;
  if (seconds < 60) return `${seconds}s`;
  const whole = Math.ceil(seconds);
  return `${Math.floor(whole / 60)}m${whole % 60}s`;
}

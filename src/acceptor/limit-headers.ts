/**
 * `x-ratelimit-*`: what the tenant of a request has left, as the clients of the OpenAI API read it. Acceptor
 * threads; what it shows is of this moment, and other requests go on taking.
 *
 * Of the limits of the tenant and of those for the model, and of the buckets of prompt and output tokens, the
 * emptier one is shown: it is the one that refuses first.
 */
import { nowUs } from '../lib/clock.ts';
import { isRateLimit } from '../protocol/http-rules.ts';
import type { BucketKind, Level, LimitLevels } from '../shm/limit-levels.ts';
import type { AcceptorState } from './acceptor-state.ts';
import type { Request } from './request.ts';

const buckets = [
  ['requests', [0]],
  ['tokens', [1, 2]],
] as const satisfies readonly (readonly [string, readonly BucketKind[]])[];

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
  for (const [name, kinds] of buckets) {
    const left = leastLeft(limits, rows, kinds, us);
    if (left === undefined) continue;
    headers.push(`x-ratelimit-limit-${name}`, String(Math.floor(left.perMinute)));
    headers.push(`x-ratelimit-remaining-${name}`, String(Math.floor(left.units)));
    headers.push(`x-ratelimit-reset-${name}`, timeText(left.resetMs));
  }
}

function leastLeft(
  limits: LimitLevels,
  rows: readonly number[],
  kinds: readonly BucketKind[],
  us: number,
): Level | undefined {
  let least: Level | undefined;
  for (const row of rows) {
    for (const kind of kinds) {
      const level = limits.read(row, kind, us);
      if (level !== undefined && (least === undefined || isLess(level, least))) least = level;
    }
  }
  return least;
}

/** Of two that are empty: the one that is longer in debt. */
function isLess(a: Level, b: Level): boolean {
  const [shareA, shareB] = [a.units / a.burst, b.units / b.burst];
  return shareA < shareB || (shareA === shareB && a.resetMs > b.resetMs);
}

/** As the OpenAI API writes it: `12ms`, `1.5s`, `6m0s`. */
function timeText(ms: number): string {
  if (ms < 1000) return `${Math.ceil(ms)}ms`;
  const seconds = Math.ceil(ms / 100) / 10;
  if (seconds < 60) return `${seconds}s`;
  const whole = Math.ceil(seconds);
  return `${Math.floor(whole / 60)}m${whole % 60}s`;
}

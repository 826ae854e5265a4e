/**
 * What the config says to the scheduling brain: its limits, its rules for each model, and what it is to
 * know of a replica. Pure; the gateway and `sluice simulate --replay` read the same.
 */
import type { Config, ModelConfig } from './schema.ts';

/** Milliseconds where nothing else is said, and tokens. */
export interface SchedulingLimits {
  readonly queueMax: number;
  /** Infinity: requests never wait for prefill that is under way. */
  readonly holdTokens: number;
  readonly queueTimeout: number;
  readonly totalTimeout: number;
  readonly retry: {
    readonly maxAttempts: number;
    readonly budget: number;
    readonly budgetMin: number;
  };
  readonly hedge: { readonly automatic: boolean; readonly budget: number };
  readonly breaker: {
    readonly mode: Config['breaker']['mode'];
    readonly window: number;
    readonly failureRate: number;
    readonly consecutive: number;
    readonly openUs: number;
    readonly maxEjected: number;
    readonly panicBelow: number;
  };
  readonly slowStartUs: number;
}

export function schedulingLimits(config: Config): SchedulingLimits {
  const { queue, timeouts, retry, hedge, breaker, slow_start } = config;
  return {
    queueMax: queue.max,
    holdTokens: queue.hold_tokens === 0 ? Number.POSITIVE_INFINITY : queue.hold_tokens,
    queueTimeout: timeouts.queue,
    totalTimeout: timeouts.total,
    retry: {
      maxAttempts: retry.max_attempts,
      budget: retry.budget,
      budgetMin: retry.budget_min,
    },
    hedge,
    breaker: {
      mode: breaker.mode,
      window: breaker.window,
      failureRate: breaker.failure_rate,
      consecutive: breaker.consecutive,
      openUs: breaker.open * 1000,
      maxEjected: breaker.max_ejected,
      panicBelow: breaker.panic_below,
    },
    slowStartUs: slow_start * 1000,
  };
}

export function modelRules({ policy, session_affinity: sessionAffinity }: ModelConfig) {
  return { policy, sessionAffinity };
}

interface RateSource {
  readonly requests_per_minute: number;
  readonly tokens_per_minute: number;
  /** Milliseconds. */
  readonly burst: number;
}

const minuteUs = 60e6;

/** The rate limits of a replica, where it has some. */
export function rateTerms(limits: RateSource | undefined) {
  if (limits === undefined) return undefined;
  const { requests_per_minute, tokens_per_minute, burst } = limits;
  if (requests_per_minute === 0 && tokens_per_minute === 0) return undefined;
  return {
    requestsPerUs: requests_per_minute / minuteUs,
    tokensPerUs: tokens_per_minute / minuteUs,
    burstUs: burst * 1000,
  };
}

/** FNV-1a, 32 bits, of a URL. Not of the name: names may differ between gateways, addresses do not. */
export function identityOf(url: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < url.length; i++) hash = Math.imul(hash ^ url.charCodeAt(i), 0x01000193);
  return hash | 0;
}

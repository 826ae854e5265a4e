/**
 * What the config says to the scheduling brain: its limits, its rules for each model, and what it is to
 * know of a replica. Pure; the gateway and `sluice simulate --replay` read the same.
 */
import type { Config, ModelConfig } from './schema.ts';

/** Milliseconds and tokens. */
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
}

export function schedulingLimits({ queue, timeouts, retry }: Config): SchedulingLimits {
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
  };
}

export function modelRules({ policy, session_affinity: sessionAffinity }: ModelConfig) {
  return { policy, sessionAffinity };
}

/** FNV-1a, 32 bits, of a URL. Not of the name: names may differ between gateways, addresses do not. */
export function identityOf(url: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < url.length; i++) hash = Math.imul(hash ^ url.charCodeAt(i), 0x01000193);
  return hash | 0;
}

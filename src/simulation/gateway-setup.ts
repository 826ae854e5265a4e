/**
 * How a gateway of a simulation is set up: what its brain is told of the model, of limits and of
 * replicas. Pure.
 */
import type { BrainConfig } from '../dispatch/decisions.ts';
import type { ReplicaFacts } from '../dispatch/replica-state.ts';
import type { RequestView } from './request-view.ts';
import type { ReplicaCosts } from './rule-proxy.ts';

export interface GatewaySetup
  extends Pick<
    BrainConfig,
    'models' | 'queueMax' | 'queueTimeoutMs' | 'retry' | 'breaker' | 'slowStartUs'
  > {
  readonly view: RequestView;
  /** Of the replica in a row, but for what changes while a simulation runs. */
  facts(row: number): Omit<ReplicaFacts, 'epoch' | 'healthy'>;
}

export interface EqualReplicas {
  readonly policy: string;
  readonly costs: ReplicaCosts;
  /** 0: the brain does not know. */
  readonly kvTokens: number;
  /** Requests that a replica may run. */
  readonly maxInFlight: number;
  readonly holdTokens: number;
}

/** Requests wait as long as they have to. */
export const noLimitUs = Number.MAX_SAFE_INTEGER;
const queueMax = 65_536;
/** Replicas of a simulation do not fail requests one by one. */
const breaker: BrainConfig['breaker'] = {
  ...{ mode: 'off', window: 10, failureRate: 0.5, consecutive: 5, openUs: 5e6 },
  ...{ maxEjected: 0.5, panicBelow: 0.5 },
};
const slowStartUs = 10e6;
const retry = { maxAttempts: 3, budget: 0.2, budgetMin: 3 } as const;

/** Equal replicas, and a queue without limits. */
export function equalReplicas(view: RequestView, of: EqualReplicas): GatewaySetup {
  const { policy, costs, kvTokens, maxInFlight, holdTokens } = of;
  const facts = { model: 0, active: true, weight: 1, ...costs, kvTokens, maxInFlight };
  return {
    view,
    models: [{ policy, sessionAffinity: false, holdTokens }],
    ...{ queueMax, queueTimeoutMs: noLimitUs / 1000, retry, breaker, slowStartUs },
    facts: (row) => ({ ...facts, identity: row + 1 }),
  };
}

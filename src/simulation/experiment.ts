/**
 * Experiment: one scenario, one policy, one rate, one seed, and what came of it. Pure.
 *
 * A policy of src/dispatch/ runs inside the real brain, the one that serves; a peer's rule, and any
 * rule whose view is aged, runs by itself.
 */
import { policyNames } from '../dispatch/policies/registry.ts';
import { engineModel } from '../replica/engine/engine-model.ts';
import { BrainRouter } from './brain-router.ts';
import { type RunPlan, simulate } from './driver.ts';
import { type Fairness, measureFairness } from './fairness.ts';
import { type FleetChange, measureChange } from './fleet-change.ts';
import { equalReplicas } from './gateway-setup.ts';
import { type Measures, measure } from './measures.ts';
import { TraceView } from './request-view.ts';
import { RuleRouter } from './rule-router.ts';
import { ruleOf } from './rules.ts';
import type { Scenario } from './scenarios.ts';
import type { Workload } from './workload.ts';

export interface Conditions {
  readonly policy: string;
  /** Proxies that share the traffic and no state. */
  readonly split: number;
  /** How old a proxy's view may be. */
  readonly ageUs: number;
  /** The brain holds requests while every replica has more than this to prefill; undefined: never. */
  readonly holdTokens?: number;
  /** The brain knows how much a replica's cache holds, and does not overfill it; else it is not told. */
  readonly limitKv?: boolean;
  /** Runs the rule by itself where it could run in the brain: for comparing rule with rule. */
  readonly ruleAlone?: boolean;
}

export interface Outcomes {
  readonly measures: Measures;
  readonly fairness: Fairness | undefined;
  readonly change: FleetChange | undefined;
}

/** The first tenth warms caches and queues up. */
const warmUpShare = 0.1;
export function runExperiment(
  scenario: Scenario,
  workload: Workload,
  conditions: Conditions,
  seed: number,
): Outcomes {
  const { replicas, events, thinkUs, ttftScale, heavyTenant } = scenario;
  const model = engineModel(scenario.model);
  const plan: RunPlan = {
    ...{ workload, model, replicas, events, warmUpShare, seed },
    ...(thinkUs === undefined ? {} : { thinkUs }),
    createRouter: routerFactory(scenario, workload, conditions),
  };
  const result = simulate(plan);
  const tokensAtOnce = replicas * model.kvPages * model.pageTokens;
  return {
    measures: measure(workload, result, ttftScale),
    fairness:
      heavyTenant === undefined
        ? undefined
        : measureFairness(workload, result, heavyTenant, tokensAtOnce),
    change: events.length === 0 ? undefined : measureChange(workload, result, events, replicas),
  };
}

function routerFactory(
  scenario: Scenario,
  workload: Workload,
  conditions: Conditions,
): RunPlan['createRouter'] {
  const { policy, split, ageUs, holdTokens = Number.POSITIVE_INFINITY } = conditions;
  const model = engineModel(scenario.model);
  const capacity = model.kvPages * model.pageTokens;
  const costs = { prefillUs: model.tokenMs * 1000, residentUs: model.residentTokenMs * 1000 };
  if (runsInBrain(conditions)) {
    const kvTokens = conditions.limitKv === true ? capacity : 0;
    const maxInFlight = model.maxNumSeqs;
    const of = { policy, costs, kvTokens, maxInFlight, holdTokens };
    const setup = scenario.gateway?.(policy) ?? equalReplicas(new TraceView(workload), of);
    return (context) => new BrainRouter({ workload, setup, split }, context);
  }
  const rule = ruleOf(policy, capacity);
  if (rule === undefined) throw new Error(`unknown policy ${policy}`);
  return (context) => new RuleRouter({ rule, workload, costs, split, ageUs }, context);
}

function runsInBrain({ policy, ageUs, ruleAlone }: Conditions): boolean {
  return policyNames.includes(policy) && ageUs === 0 && ruleAlone !== true;
}

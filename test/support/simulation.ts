/** One small run of the simulation, with everything a law is stated about. */
import { engineModel } from '../../src/replica/engine/engine-model.ts';
import { BrainRouter } from '../../src/simulation/brain-router.ts';
import { type RunPlan, type RunResult, simulate } from '../../src/simulation/driver.ts';
import { equalReplicas } from '../../src/simulation/gateway-setup.ts';
import { TraceView } from '../../src/simulation/request-view.ts';
import { RuleRouter } from '../../src/simulation/rule-router.ts';
import { ruleOf } from '../../src/simulation/rules.ts';
import type { Workload } from '../../src/simulation/workload.ts';

export interface SmallRun {
  readonly policy: string;
  readonly inBrain?: boolean;
  readonly split?: number;
  readonly ageUs?: number;
  readonly holdTokens?: number;
  readonly limitKv?: boolean;
  readonly replicas?: number;
  readonly thinkUs?: number;
  readonly events?: RunPlan['events'];
  readonly seed?: number;
}

const model = engineModel('8b-h100');
const kvTokens = model.kvPages * model.pageTokens;
const costs = { prefillUs: model.tokenMs * 1000, residentUs: model.residentTokenMs * 1000 };

export function smallRun(workload: Workload, run: SmallRun): RunResult {
  const { policy, split = 1, ageUs = 0, thinkUs, events = [], replicas = 4, seed = 1 } = run;
  const rule = ruleOf(policy, kvTokens);
  if (rule === undefined) throw new Error(`no rule ${policy}`);
  const setup = equalReplicas(new TraceView(workload), {
    ...{ policy, costs, maxInFlight: model.maxNumSeqs },
    ...{ kvTokens: run.limitKv ? kvTokens : 0, holdTokens: run.holdTokens ?? Infinity },
  });
  return simulate({
    ...{ workload, model, replicas, events, warmUpShare: 0, seed },
    ...(thinkUs === undefined ? {} : { thinkUs }),
    createRouter: (context) =>
      run.inBrain
        ? new BrainRouter({ workload, setup, split }, context)
        : new RuleRouter({ rule, workload, costs, split, ageUs }, context),
  });
}

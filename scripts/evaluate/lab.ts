/** Runs what the evaluation asks for, once each, and says how far it is. */

import type { NamedConditions } from '../../src/simulation/ablation.ts';
import { capacityOf } from '../../src/simulation/capacity.ts';
import { runExperiment } from '../../src/simulation/experiment.ts';
import { type Row, rowOf } from '../../src/simulation/figures.ts';
import { type Scenario, scenarioOf } from '../../src/simulation/scenarios.ts';
import { statOf } from '../../src/simulation/summary.ts';
import { readTrace } from '../../src/simulation/traces/files.ts';
import { firstRequests, type Workload } from '../../src/simulation/workload.ts';
import { Workloads } from '../../src/simulation/workloads.ts';

export interface LabPlan {
  readonly seeds: number;
  /** Halvings of a search for a rate, and seeds of each run of it. */
  readonly searchSteps: number;
  readonly searchSeeds: number;
  /** Only the first so many requests of each workload. */
  readonly requests: number;
}

export class Lab {
  readonly plan: LabPlan;
  runs = 0;
  readonly #workloads = new Workloads(readTrace);
  readonly #rows = new Map<string, Row>();
  readonly #onRun: (runs: number) => void;

  constructor(plan: LabPlan, onRun: (runs: number) => void) {
    this.plan = plan;
    this.#onRun = onRun;
  }

  /** The figures over all seeds. */
  row(id: string, rate: number, conditions: NamedConditions): Row {
    const key = `${id} ${rate} ${conditions.name}`;
    const known = this.#rows.get(key);
    if (known !== undefined) return known;
    const runs = Array.from({ length: this.plan.seeds }, (_, i) =>
      this.#run(id, rate, conditions, i + 1),
    );
    const row = rowOf(conditions.name, runs);
    this.#rows.set(key, row);
    return row;
  }

  policy(id: string, rate: number, policy: string): Row {
    return this.row(id, rate, plainly(policy));
  }

  /** Highest rate between `low` and `high` with so much goodput, in percent. */
  rateWith(id: string, policy: string, goodput: number, low: number, high: number): number {
    const { searchSeeds, searchSteps } = this.plan;
    const goodputAt = (rate: number): number => {
      const values = Array.from({ length: searchSeeds }, (_, i) => {
        const { measures } = this.#run(id, rate, plainly(policy), i + 1);
        return measures.goodput[0] ?? 0;
      });
      return statOf(values).median;
    };
    return capacityOf(goodputAt, goodput, low, high, searchSteps);
  }

  #run(id: string, rate: number, conditions: NamedConditions, seed: number) {
    const scenario = scenarioNamed(id);
    const outcomes = runExperiment(
      scenario,
      this.#workload(scenario, rate, seed),
      conditions,
      seed,
    );
    this.#onRun(++this.runs);
    return outcomes;
  }

  #workload(scenario: Scenario, rate: number, seed: number): Workload {
    return firstRequests(this.#workloads.of(scenario, rate, seed), this.plan.requests);
  }
}

export function plainly(policy: string): NamedConditions {
  return { name: policy, policy, split: 1, ageUs: 0 };
}

export function scenarioNamed(id: string): Scenario {
  const scenario = scenarioOf(id);
  if (scenario === undefined) throw new Error(`no scenario ${id}`);
  return scenario;
}

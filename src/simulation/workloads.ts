/** Workloads of scenarios at a rate, made once for each seed: reading a trace costs more than a run. */
import type { ReadTrace, Scenario } from './scenarios.ts';
import { atMeanRate, type Workload } from './workload.ts';

export class Workloads {
  readonly #traces = new Map<string, Workload>();
  readonly #made = new Map<string, Workload>();
  readonly #readTrace: ReadTrace;

  constructor(readTrace: ReadTrace) {
    this.#readTrace = (name, seed) =>
      remembered(this.#traces, `${name} ${seed}`, () => readTrace(name, seed));
  }

  of(scenario: Scenario, rate: number, seed: number): Workload {
    const own = remembered(this.#made, `${scenario.id} ${seed}`, () =>
      scenario.workload(this.#readTrace, seed),
    );
    return atMeanRate(own, rate);
  }
}

function remembered<T>(known: Map<string, T>, key: string, make: () => T): T {
  const found = known.get(key);
  if (found !== undefined) return found;
  const made = make();
  known.set(key, made);
  return made;
}

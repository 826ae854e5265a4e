/**
 * The config by which the gateway runs: that of its start, with what reloads have changed since. Main thread.
 *
 * What a reload may change of a model is everything but what threads have built on at their start
 * (`fixedOfModel`). Its replicas stay those of the start here: adapters are numbered by them, and the ones
 * that run are in membership.ts.
 */
import type { Config, ModelConfig } from '../config/schema.ts';

export class RunningConfig {
  readonly start: Config;
  #now: Config;

  constructor(start: Config) {
    this.start = start;
    this.#now = start;
  }

  /** A thread that is started is told of it. */
  get now(): Config {
    return this.#now;
  }

  /** Takes the models and splits of a config whose other keys are those of the start (reload.ts). */
  take({ models, splits }: Config): Config {
    const rows = models.map((model, index) => {
      const { replicas } = this.start.models[index] as ModelConfig;
      return { ...model, replicas };
    });
    this.#now = { ...this.start, models: rows, splits };
    return this.#now;
  }
}

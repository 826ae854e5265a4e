/** `sluice simulate --replay`: a scenario from a file of requests and, if there is one, a config file. */
import { readFileSync } from 'node:fs';
import { type EngineModelName, engineModel } from '../replica/engine/engine-model.ts';
import { createReplay } from '../simulation/replay/replay.ts';
import {
  type LoggedRequest,
  modelOf,
  ReplayError,
  readRequestLog,
} from '../simulation/replay/request-log.ts';
import type { Scenario } from '../simulation/scenarios.ts';
import { meanRate } from '../simulation/workload.ts';

export interface ReplayFlags {
  readonly file: string;
  readonly config: string | undefined;
  readonly engine: EngineModelName;
  readonly replicas: number | undefined;
  readonly rate: number | undefined;
}

const replicasDefault = 8;

/** The scenario, or why there is none. */
export async function replayScenario(flags: ReplayFlags): Promise<Scenario | string> {
  const { file, engine } = flags;
  try {
    const log = readRequestLog(readFileSync(file, 'utf8'));
    const config = await configFor(flags, log);
    if (typeof config === 'string') return config;
    const { workload, model, gateway } = createReplay(log, config, engineModel(engine));
    const recorded = meanRate(workload);
    if (recorded === 0) return `${file}: needs requests at two times at least`;
    const rate = flags.rate ?? recorded;
    return {
      ...{ id: 'replay', title: `replay of ${file}`, model: engine, policy: model.policy },
      ...{ replicas: model.replicas.length, rates: [rate], rate, ttftScale: 1, events: [] },
      seed: config.scheduler.seed || 1,
      gateway,
      workload: () => workload,
    };
  } catch (error) {
    const isFileProblem = error instanceof ReplayError || (error as { code?: unknown }).code;
    if (!isFileProblem) throw error;
    return `${file}: ${(error as Error).message}`;
  }
}

async function configFor(flags: ReplayFlags, log: readonly LoggedRequest[]) {
  const { formatProblem } = await import('../config/problems.ts');
  const loaded = await loadFor(flags, log);
  return loaded.ok ? loaded.config : loaded.problems.map(formatProblem).join('\n');
}

async function loadFor(
  { config, engine, replicas = replicasDefault }: ReplayFlags,
  log: readonly LoggedRequest[],
) {
  if (config !== undefined) {
    const { loadConfigFile } = await import('../config/file.ts');
    return loadConfigFile(config, process.env);
  }
  const { configFromObject } = await import('../config/load.ts');
  const { tokenMs, residentTokenMs } = engineModel(engine);
  const costs = { prefill_us: tokenMs * 1000, resident_us: residentTokenMs * 1000 };
  const rows = Array.from({ length: replicas }, (_, i) => {
    return { url: `http://replica-${i + 1}:8000`, ...costs };
  });
  return configFromObject({ models: [{ name: modelOf(log), replicas: rows }] });
}

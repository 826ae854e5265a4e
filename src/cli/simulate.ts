/** `sluice simulate`: policies over modelled replicas, on a virtual clock; table, JSON and charts. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { ExitCode } from '../lib/exit-code.ts';
import type { NamedConditions } from '../simulation/ablation.ts';
import type { Row } from '../simulation/figures.ts';
import type { Scenario } from '../simulation/scenarios.ts';
import { wholeNumber } from './options.ts';

interface SimulateFlags {
  readonly scenario?: string;
  readonly trace?: string;
  readonly replay?: string;
  readonly config?: string;
  readonly policy?: string;
  readonly replicas?: number;
  readonly rate?: number;
  readonly seeds: number;
  readonly model?: string;
  readonly split: number;
  readonly age: number;
  readonly hold: number;
  readonly requests?: number;
  readonly json?: true;
  readonly svg?: string;
}

const defaultPolicies =
  'marginal_cost,lmetric,cache_aware,least_in_flight,power_of_two,round_robin';
/** Longer than this, people want to see that it goes on. */
const silentMs = 2000;
const progressEveryMs = 1000;

export function simulateCommand(): Command {
  return new Command('simulate')
    .description('simulate scheduling policies over modelled replicas, from a seed')
    .option('--scenario <id>', 's1 to s10, or one of its variants', 's1')
    .addOption(
      new Option('--trace <name>', 'replay a trace instead of a scenario').conflicts('scenario'),
    )
    .addOption(
      new Option('--replay <file>', 'requests with their bodies, a JSON object a line').conflicts([
        'scenario',
        'trace',
      ]),
    )
    .option('--config <file>', 'with --replay: the gateway and its replicas')
    .option(
      '--policy <list>',
      `names with commas between, or all; those of --config, else ${defaultPolicies}`,
    )
    .option('--replicas <count>', 'how many replicas, 1 to 256', wholeNumber(1, 256))
    .option('--rate <rps>', 'requests per second', positive)
    .option(
      '--seeds <count>',
      'runs of each policy; the table shows median and range',
      wholeNumber(1, 100),
      1,
    )
    .option('--model <name>', '8b-h100 or 70b-h100x4')
    .option('--split <count>', 'proxies that share the traffic and no state', wholeNumber(1, 64), 1)
    .option('--age <ms>', 'how old what a policy sees may be', wholeNumber(0, 3_600_000), 0)
    .option(
      '--hold <tokens>',
      'hold requests while every replica has more to prefill; 0 never',
      wholeNumber(0, 1e9),
      0,
    )
    .option('--requests <count>', 'only the first requests', wholeNumber(1, 10_000_000))
    .option('--json', 'print JSON with every figure')
    .option('--svg <folder>', 'write charts there')
    .action(run);
}

async function run(flags: SimulateFlags): Promise<void> {
  const scenario = await chooseScenario(flags);
  if (typeof scenario === 'string') return refuse(scenario);
  const conditions = await chooseConditions(flags, scenario);
  if (typeof conditions === 'string') return refuse(conditions);
  let rows: Row[];
  try {
    rows = await simulateAll(flags, scenario, conditions);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    process.stderr.write(`sluice simulate: no trace at ${(error as NodeJS.ErrnoException).path}\n`);
    process.exitCode = ExitCode.failed;
    return;
  }
  await print(flags, scenario, rows);
  if (flags.svg !== undefined) await draw(flags.svg, scenario, rows);
}

/** The scenario, or what is wrong with the flags. */
async function chooseScenario(flags: SimulateFlags): Promise<Scenario | string> {
  const { comparisons, scenarioOf, scenarios, traceScenario } = await import(
    '../simulation/scenarios.ts'
  );
  const { traceNames } = await import('../simulation/traces/names.ts');
  const { ENGINE_MODELS } = await import('../replica/engine/engine-model.ts');
  const { trace, model } = flags;
  if (model !== undefined && !ENGINE_MODELS.has(model)) {
    return `unknown model ${model}; known: ${[...ENGINE_MODELS.keys()].join(' ')}`;
  }
  if (flags.replay !== undefined) {
    if (flags.hold > 0) return 'queue.hold_tokens of --config says what is held in a replay';
    if (flags.config !== undefined && flags.replicas !== undefined) {
      return 'the replicas of a replay are those of --config';
    }
    const { replayScenario } = await import('./simulate-replay.ts');
    const engine = (model ?? '8b-h100') as Scenario['model'];
    const { replay: file, config, replicas, rate } = flags;
    return replayScenario({ file, config, engine, replicas, rate });
  }
  if (flags.config !== undefined) return '--config goes with --replay';
  // S10 is S1 under other conditions.
  const id = flags.scenario === 's10' ? 's1' : (flags.scenario ?? 's1');
  const found = trace === undefined ? scenarioOf(id) : traceScenario(trace);
  if (found === undefined) {
    if (trace !== undefined) return `unknown trace ${trace}; known: ${traceNames.join(' ')}`;
    const known = [...scenarios, ...comparisons].map((scenario) => scenario.id);
    return `unknown scenario ${id}; known: ${known.join(' ')} s10`;
  }
  const { replicas = found.replicas, rate = found.rate } = flags;
  if (found.events.some(({ row }) => row > replicas)) {
    return `scenario ${found.id} needs more replicas`;
  }
  const chosen = model === undefined ? found.model : (model as Scenario['model']);
  return { ...found, replicas, rate, model: chosen };
}

async function chooseConditions(
  flags: SimulateFlags,
  scenario: Scenario,
): Promise<NamedConditions[] | string> {
  const { ruleNames } = await import('../simulation/rules.ts');
  const configured = flags.config === undefined ? undefined : scenario.policy;
  const policy = flags.policy ?? configured ?? defaultPolicies;
  const names = policy === 'all' ? ruleNames : policy.split(',');
  const unknown = names.find((name) => !ruleNames.includes(name));
  if (unknown !== undefined) return `unknown policy ${unknown}; known: ${ruleNames.join(' ')}`;
  if (flags.scenario === 's10') {
    const { ablationOf } = await import('../simulation/ablation.ts');
    return names.flatMap(ablationOf);
  }
  const hold = flags.hold === 0 ? {} : { holdTokens: flags.hold };
  const shared = { split: flags.split, ageUs: flags.age * 1000, ...hold };
  return names.map((policy) => ({ name: policy, policy, ...shared }));
}

async function simulateAll(
  flags: SimulateFlags,
  scenario: Scenario,
  conditions: readonly NamedConditions[],
): Promise<Row[]> {
  const { runExperiment } = await import('../simulation/experiment.ts');
  const { rowOf } = await import('../simulation/figures.ts');
  const { readTrace } = await import('../simulation/traces/files.ts');
  const { firstRequests } = await import('../simulation/workload.ts');
  const { Workloads } = await import('../simulation/workloads.ts');
  const workloads = new Workloads(readTrace);
  const progress = progressLine(conditions.length * flags.seeds);
  return conditions.map((condition) => {
    const runs = Array.from({ length: flags.seeds }, (_, i) => {
      const seed = (scenario.seed ?? 1) + i;
      const whole = workloads.of(scenario, scenario.rate, seed);
      const workload = firstRequests(whole, flags.requests ?? whole.count);
      const outcomes = runExperiment(scenario, workload, condition, seed);
      progress();
      return outcomes;
    });
    return rowOf(condition.name, runs);
  });
}

async function print(
  { json, seeds }: SimulateFlags,
  { id, title, model, replicas, rate, seed = 1 }: Scenario,
  rows: readonly Row[],
): Promise<void> {
  if (json) {
    const policies = rows.map(({ name, stats }) => ({ name, figures: Object.fromEntries(stats) }));
    const report = { scenario: id, title, model, replicas, rate, seeds, policies };
    process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
    return;
  }
  const { shownKeys, tableOf } = await import('../simulation/figures.ts');
  const { textTable } = await import('../lib/text-table.ts');
  const runs = seeds === 1 ? `seed ${seed}` : `median [range] of ${seeds} seeds`;
  const perSecond = Number(rate.toPrecision(4));
  process.stdout.write(
    `${title}, ${model}, ${replicas} replicas, ${perSecond} requests/s, ${runs}\n`,
  );
  process.stdout.write(textTable(tableOf(rows, shownKeys)));
}

async function draw(folder: string, { id, title }: Scenario, rows: readonly Row[]): Promise<void> {
  const { figureBars } = await import('../simulation/charts/figure-bars.ts');
  try {
    mkdirSync(folder, { recursive: true });
    for (const key of ['goodput', 'ttft_mean_ms', 'hit_rate']) {
      writeFileSync(join(folder, `${id}-${key}.svg`), figureBars(title, key, rows));
    }
  } catch (error) {
    process.stderr.write(`sluice simulate: ${(error as Error).message}\n`);
    process.exitCode = ExitCode.failed;
  }
}

/** Says how far it is, on stderr, once it has taken long. */
function progressLine(total: number): () => void {
  let done = 0;
  let nextMs = performance.now() + silentMs;
  return () => {
    done++;
    if (performance.now() < nextMs || done === total) return;
    nextMs = performance.now() + progressEveryMs;
    process.stderr.write(`simulated ${done} of ${total} runs\n`);
  };
}

function refuse(message: string): void {
  process.stderr.write(`sluice simulate: ${message}\n`);
  process.exitCode = ExitCode.usage;
}

function positive(text: string): number {
  const value = Number(text);
  if (!(value > 0) || !Number.isFinite(value)) {
    throw new InvalidArgumentError('must be a number above 0');
  }
  return value;
}

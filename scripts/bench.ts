/**
 * `npm run bench`: the benchmark table of docs/, as text, JSON and Markdown.
 *
 * `npm run bench -- --help` names the options. Linux only: CPU and memory come from /proc. Exit 1 when
 * a scenario broke; a missed floor is a result and is printed as one. A smoke run also fails when
 * anything was lost or broken, for its load is one that any machine carries.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { BenchContext, type Scenario, withBench } from './bench/bench-context.ts';
import type { BenchReport, ScenarioResult } from './bench/figures.ts';
import { commit, machine } from './bench/machine.ts';
import { buildProgram } from './bench/program.ts';
import { compareReports, markdownReport, textReport } from './bench/report.ts';
import { closedLoop } from './bench/scenario-closed-loop.ts';
import { decision } from './bench/scenario-decision.ts';
import { halfLoad } from './bench/scenario-half-load.ts';
import { largePrompts } from './bench/scenario-large-prompts.ts';
import { firstLoadMemory } from './bench/scenario-memory.ts';
import { openLoop } from './bench/scenario-open-loop.ts';
import { policyLoad } from './bench/scenario-policies.ts';
import { protection } from './bench/scenario-protection.ts';
import { streams } from './bench/scenario-streams.ts';
import { tracing } from './bench/scenario-tracing.ts';
import { type TargetName, targetNames } from './bench/targets.ts';

const scenarios: readonly Scenario[] = [
  openLoop,
  halfLoad,
  policyLoad,
  protection,
  tracing,
  closedLoop,
  streams,
  largePrompts,
  firstLoadMemory,
  decision,
];

interface Flags {
  readonly smoke: boolean;
  readonly only: readonly string[];
  readonly targets: readonly TargetName[];
  readonly compare?: string;
  readonly out: string;
  readonly seed: number;
}

const names = scenarios.map(({ name }) => name);
const flags = new Command('npm run bench --')
  .description('Measures the gateway beside other proxies; text here, JSON and Markdown in files.')
  .option('--smoke', 'a minute of everything, for CI', false)
  .addOption(new Option('--only <scenario...>', 'these scenarios').choices(names).default(names))
  .option('--targets <list>', `of ${targetNames.join(',')}`, targetList, [...targetNames])
  .option('--compare <file>', 'an older bench.json, to show what changed as ratios')
  .option('--out <folder>', 'where bench.json and bench.md go', 'artifacts')
  .option('--seed <n>', 'arrivals and prompts', Number, Number(process.env.SEED ?? 1))
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))
  .parse()
  .opts<Flags>();

process.exitCode = await main();

async function main(): Promise<number> {
  // Read first: a wrong file name must not cost ten minutes of measuring.
  const before: BenchReport | undefined = flags.compare
    ? JSON.parse(readFileSync(flags.compare, 'utf8'))
    : undefined;
  buildProgram();
  const results: ScenarioResult[] = [];
  for (const scenario of scenarios) {
    if (flags.only.includes(scenario.name)) results.push(await run(scenario));
  }
  const report: BenchReport = { ...facts(), scenarios: results };
  mkdirSync(flags.out, { recursive: true });
  writeFileSync(join(flags.out, 'bench.json'), `${JSON.stringify(report, null, 2)}\n`);
  writeFileSync(join(flags.out, 'bench.md'), markdownReport(report));
  process.stdout.write(`${textReport(report)}\n`);
  if (before !== undefined) process.stdout.write(compareReports(before, report));
  const losses = flags.smoke ? lossesOf(results) : [];
  for (const loss of losses) process.stderr.write(`must be 0: ${loss}\n`);
  return losses.length > 0 || results.some(({ error }) => error !== undefined) ? 1 : 0;
}

/** Figures that count what was lost, broken or served twice. */
function lossesOf(results: readonly ScenarioResult[]): string[] {
  return results.flatMap(({ name, figures }) =>
    figures
      .filter(({ floor, better, value }) => floor === 0 && better === 'lower' && value > 0)
      .map((figure) => `${name}, ${figure.name}: ${figure.value} ${figure.detail ?? ''}`),
  );
}

/** Each scenario has its own processes, ended before the next one measures. */
async function run(scenario: Scenario): Promise<ScenarioResult> {
  const say = (line: string) => process.stderr.write(`${scenario.name}  ${line}\n`);
  const bench = new BenchContext(flags.smoke, flags.seed, new Set(flags.targets), say);
  const { name, question } = scenario;
  try {
    return { name, question, ...(await withBench(bench, () => scenario.run(bench))) };
  } catch (error) {
    const text = (error as Error).message;
    return { name, question, figures: [], skipped: [], data: {}, error: text };
  }
}

function targetList(text: string): TargetName[] {
  const list = text.split(',');
  const unknown = list.filter((name) => !targetNames.includes(name as TargetName));
  if (unknown.length > 0) throw new InvalidArgumentError(`Not known: ${unknown.join(', ')}.`);
  return list as TargetName[];
}

function facts(): Omit<BenchReport, 'scenarios'> {
  return {
    machine: machine(),
    node: process.version,
    commit: commit(),
    seed: flags.seed,
    mode: flags.smoke ? 'smoke' : 'full',
    startedAt: new Date().toISOString(),
  };
}

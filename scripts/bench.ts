/**
 * `npm run bench`: the benchmark table of docs/, as text, JSON and Markdown.
 *
 *   npm run bench -- [--smoke] [--only NAME]... [--targets direct,haproxy,nginx,uws,gateway]
 *                    [--compare OLD.json] [--out DIR] [--seed N]
 *
 * Linux only: CPU and memory come from /proc. Exit 1 when a scenario broke; a missed floor is a
 * result and is printed as one.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { BenchContext, type Scenario } from './bench/bench-context.ts';
import type { BenchReport, ScenarioResult } from './bench/figures.ts';
import { buildProgram } from './bench/program.ts';
import { compareReports, markdownReport, textReport } from './bench/report.ts';
import { closedLoop } from './bench/scenario-closed-loop.ts';
import { decision } from './bench/scenario-decision.ts';
import { largePrompts } from './bench/scenario-large-prompts.ts';
import { firstLoadMemory } from './bench/scenario-memory.ts';
import { openLoop } from './bench/scenario-open-loop.ts';
import { streams } from './bench/scenario-streams.ts';
import { type TargetName, targetNames } from './bench/targets.ts';

const scenarios: readonly Scenario[] = [
  openLoop,
  closedLoop,
  streams,
  largePrompts,
  firstLoadMemory,
  decision,
];

const { values: flags } = parseArgs({
  options: {
    smoke: { type: 'boolean', default: false },
    only: { type: 'string', multiple: true },
    targets: { type: 'string', default: targetNames.join(',') },
    compare: { type: 'string' },
    out: { type: 'string', default: 'artifacts' },
    seed: { type: 'string', default: process.env.SEED ?? '1' },
  },
});

process.exitCode = await main();

async function main(): Promise<number> {
  const chosen = pick(
    flags.only ?? [],
    scenarios.map(({ name }) => name),
  );
  const targets = pick(flags.targets.split(','), targetNames) as TargetName[];
  // Read first: a wrong file name must not cost ten minutes of measuring.
  const before: BenchReport | undefined = flags.compare
    ? JSON.parse(readFileSync(flags.compare, 'utf8'))
    : undefined;
  buildProgram();
  const results: ScenarioResult[] = [];
  for (const scenario of scenarios) {
    if (chosen.includes(scenario.name)) results.push(await run(scenario, new Set(targets)));
  }
  const report: BenchReport = { ...facts(), scenarios: results };
  mkdirSync(flags.out, { recursive: true });
  writeFileSync(join(flags.out, 'bench.json'), `${JSON.stringify(report, null, 2)}\n`);
  writeFileSync(join(flags.out, 'bench.md'), markdownReport(report));
  process.stdout.write(`${textReport(report)}\n`);
  if (before !== undefined) process.stdout.write(compareReports(before, report));
  return results.some(({ error }) => error !== undefined) ? 1 : 0;
}

/** Each scenario has its own processes, ended before the next one measures. */
async function run(scenario: Scenario, targets: ReadonlySet<TargetName>): Promise<ScenarioResult> {
  const say = (line: string) => process.stderr.write(`${scenario.name}  ${line}\n`);
  const bench = new BenchContext(flags.smoke, Number(flags.seed), targets, say);
  const onSignal = () => {
    bench.children.killAll();
    bench.removeFolder();
    process.exit(130);
  };
  process.once('SIGINT', onSignal);
  process.once('SIGTERM', onSignal);
  const { name, question } = scenario;
  try {
    return { name, question, ...(await scenario.run(bench)) };
  } catch (error) {
    const text = (error as Error).message;
    return { name, question, figures: [], skipped: [], data: {}, error: text };
  } finally {
    await bench.children.stopAll();
    bench.removeFolder();
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  }
}

function pick(names: readonly string[], known: readonly string[]): readonly string[] {
  const unknown = names.filter((name) => !known.includes(name));
  if (unknown.length > 0) {
    process.stderr.write(`unknown: ${unknown.join(', ')}; known: ${known.join(', ')}\n`);
    process.exit(2);
  }
  return names.length > 0 ? names : known;
}

function facts(): Omit<BenchReport, 'scenarios'> {
  return {
    machine: {
      cpu: os.cpus()[0]?.model.trim() ?? 'unknown',
      cores: os.availableParallelism(),
      memoryGb: os.totalmem() / 2 ** 30,
      os: `${os.type()} ${os.release()}`,
    },
    node: process.version,
    commit: commit(),
    seed: Number(flags.seed),
    mode: flags.smoke ? 'smoke' : 'full',
    startedAt: new Date().toISOString(),
  };
}

function commit(): string {
  const git = (...args: string[]) =>
    execFileSync('git', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  try {
    const changed = git('status', '--porcelain', '--', 'src', 'scripts') !== '';
    return `${git('rev-parse', '--short', 'HEAD')}${changed ? ' with changes' : ''}`;
  } catch {
    return 'unknown'; // Not a checkout.
  }
}

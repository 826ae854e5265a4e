/**
 * `npm test [-- FILTER…]`: installs missing test servers where it can, runs every test and the smoke
 * run of every benchmark, and ends with one line `N passed, N failed`.
 *
 * With filters only the matching test files run. Exit 0 needs at least one pass and no failure.
 */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join, relative } from 'node:path';
import { type Counts, countsLine, exitCodeOf } from './test/results.ts';
import { prepareServers, thisMachine } from './test/servers.ts';
import { root, runVitest, toolPath } from './test/vitest-run.ts';

const reportPath = 'artifacts/test-results.json';

/** Gateway, replicas and clients of one test share the limit; listeners ask for 10,000 by default. */
const descriptorsWanted = 4096;
const slowestShown = 5;
const smokeTimeoutMs = 60_000;

const env = { ...process.env, PATH: toolPath };

const say = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

const filters = process.argv.slice(2);
const started = performance.now();
sayMachine();
for (const line of prepareServers(thisMachine)) say(line);
const tests = runTests(filters);
const smoke = filters.length === 0 ? runSmokes() : { passed: 0, failed: 0, skipped: 0 };
const total: Counts = {
  passed: tests.passed + smoke.passed,
  failed: tests.failed + smoke.failed,
  skipped: tests.skipped + smoke.skipped,
};
say(`took ${((performance.now() - started) / 1000).toFixed(0)} s`);
say(countsLine(total));
process.exitCode = exitCodeOf(total);

function sayMachine(): void {
  const limit = descriptorLimit();
  say(`node ${process.versions.node}, ${limit ?? 'unknown'} descriptors`);
  if (limit === undefined || limit >= descriptorsWanted) return;
  say(`tests with many connections may fail: raise the limit to ${descriptorsWanted} (ulimit -n)`);
}

/** The soft limit of this process, which its children inherit. */
function descriptorLimit(): number | undefined {
  const shell = spawnSync('sh', ['-c', 'ulimit -n'], { encoding: 'utf8' });
  const text = shell.stdout?.trim() ?? '';
  if (text === 'unlimited') return Number.POSITIVE_INFINITY;
  return /^\d+$/.test(text) ? Number(text) : undefined;
}

function runTests(patterns: readonly string[]): Counts {
  const summary = runVitest({ reportPath, args: patterns, env });
  for (const { name, seconds } of summary.files.slice(0, slowestShown)) {
    say(`${seconds.toFixed(1).padStart(7)} s  ${relative(root, name)}`);
  }
  return summary;
}

/** One smoke run for each benchmark; a run that measures nothing has failed. */
function runSmokes(): Counts {
  const folder = join(root, 'native-free-bench');
  const names = readdirSync(folder).filter((name) => name.endsWith('.ts') && name !== 'harness.ts');
  let failed = 0;
  for (const name of names) {
    const run = spawnSync(process.execPath, [join(folder, name), '--smoke', '--json'], {
      cwd: root,
      env,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: smokeTimeoutMs,
    });
    if (run.status === 0 && hasMeasurements(run.stdout)) continue;
    failed++;
    say(`native-free-bench/${name} --smoke failed (${run.signal ?? `exit ${run.status}`})`);
    say(`${run.stdout}${run.stderr}`.trim());
  }
  return { passed: names.length - failed, failed, skipped: 0 };
}

function hasMeasurements(output: string): boolean {
  try {
    const { measurements } = JSON.parse(output) as { measurements?: unknown };
    return Array.isArray(measurements) && measurements.length > 0;
  } catch {
    return false;
  }
}

/**
 * `npm run test:fault`: every test of the acceptance battery in one run, and a table of what was seen.
 *
 * `-- --full` takes the battery's own load and times and half an hour of swarm; `-- --write` writes
 * docs/reliability.md. A row without a passing test counts as failed. Ends with one line
 * `N passed, N failed`, one per row of the battery.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { battery } from './fault/battery.ts';
import { holds, outcomes, type Seen } from './fault/outcomes.ts';
import { reliabilityPage, terminalTable } from './fault/page.ts';
import { countsLine, exitCodeOf } from './test/results.ts';
import { prepareServers, thisMachine } from './test/servers.ts';
import { root, runVitest, toolPath } from './test/vitest-run.ts';

const figuresPath = join(root, 'artifacts/figures.ndjson');
const scorecardPath = join(root, 'artifacts/scorecard.md');
/** Tests of the battery, of the scorecard, and the swarm. */
const names = '\\b[TF]\\d\\d\\b|System B|swarm|scorecard';
const full = { SLUICE_FULL: '1', SWARM_SECONDS: '1800', SOAK_SECONDS: '600' };

const { values } = parseArgs({
  options: {
    full: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
  },
});

for (const line of prepareServers(thisMachine)) process.stdout.write(`${line}\n`);
for (const path of [figuresPath, scorecardPath]) rmSync(path, { force: true });
const summary = runVitest({
  reportPath: 'artifacts/fault-results.json',
  args: ['test/fault', 'test/integration', '-t', names],
  env: {
    ...(values.full ? full : {}),
    ...process.env,
    PATH: toolPath,
    SLUICE_FIGURES: figuresPath,
    SLUICE_BATTERY: '1',
  },
});
const rows = outcomes(battery, summary.tests, linesOf(figuresPath));
process.stdout.write(`\n${terminalTable(rows)}\n`);
const scorecard = existsSync(scorecardPath) ? readFileSync(scorecardPath, 'utf8') : '';
if (values.write) {
  const page = reliabilityPage(rows, machine(), scorecard);
  writeFileSync(join(root, 'docs/reliability.md'), page);
  process.stdout.write('written docs/reliability.md\n');
}
const passed = rows.filter(holds).length;
const failedRows = rows.length - passed;
if (!scorecard.includes('16 of 16')) process.stdout.write('the scorecard is not 16 of 16\n');
// Files that did not load, hooks that threw, and tests that belong to no row fail the run as well.
const failed = Math.max(failedRows, summary.failed, scorecard.includes('16 of 16') ? 0 : 1);
const counts = { passed, failed, skipped: 0 };
process.stdout.write(`${countsLine(counts)}\n`);
process.exitCode = exitCodeOf(counts);

function linesOf(path: string): Seen[] {
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, 'utf8').split('\n');
  return lines.filter((line) => line !== '').map((line) => JSON.parse(line) as Seen);
}

function machine(): string {
  const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { cwd: root }).toString();
  const { length } = cpus();
  const load = values.full ? 'full load' : 'bounded load, as in `npm test`';
  return `${cpus()[0]?.model ?? 'unknown'}, ${length} cores, Node ${process.versions.node}, commit ${commit.trim()}, ${load}.`;
}

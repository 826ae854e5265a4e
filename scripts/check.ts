/**
 * `npm run check`: types, lint, dead code, layering and the short tests; under a minute.
 *
 * `-- --static` stops before the tests. Ends with one line `N passed, N failed`, one per step.
 */
import { spawnSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import { countsLine, exitCodeOf } from './test/results.ts';
import { root, toolPath } from './test/vitest-run.ts';

type Step = readonly [name: string, command: string, ...args: string[]];

const staticSteps: readonly Step[] = [
  ['types', 'tsc', '-p', '.'],
  ['lint', 'biome', 'check', '.'],
  ['dead code', 'knip', '--no-progress'],
];
const testSteps: readonly Step[] = [
  ['short tests', 'vitest', 'run', 'test/unit', 'test/tidy', '--reporter=dot'],
];

const { values } = parseArgs({ options: { static: { type: 'boolean', default: false } } });
const steps = values.static ? staticSteps : [...staticSteps, ...testSteps];
const passed = steps.filter(passes).length;
const counts = { passed, failed: steps.length - passed, skipped: 0 };
process.stdout.write(`${countsLine(counts)}\n`);
process.exitCode = exitCodeOf(counts);

function passes([name, command, ...args]: Step): boolean {
  const started = performance.now();
  const env = { ...process.env, PATH: toolPath };
  const { status } = spawnSync(command, args, { cwd: root, env, stdio: 'inherit' });
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  process.stdout.write(`${status === 0 ? 'ok  ' : 'FAIL'} ${name} (${seconds}s)\n`);
  return status === 0;
}

/**
 * `npm run test:long [-- NAME…]`: the tests whose length is a setting, at their long setting;
 * three quarters of an hour. With names only those. Ends with one line `N passed, N failed`.
 *
 * A variable that is set already wins: `FUZZ_SECONDS=60 npm run test:long -- fuzz`.
 */
import { countsLine, exitCodeOf } from './test/results.ts';
import { runVitest } from './test/vitest-run.ts';

interface LongRun {
  readonly name: string;
  readonly setting: string;
  readonly value: string;
  readonly files: readonly string[];
}

const longRuns: readonly LongRun[] = [
  {
    name: 'stress',
    setting: 'STRESS_SECONDS',
    value: '60',
    files: ['test/litmus/rings.test.ts'],
  },
  { name: 'swarm', setting: 'SWARM_SECONDS', value: '1800', files: ['test/fault/swarm.test.ts'] },
  { name: 'soak', setting: 'SOAK_SECONDS', value: '60', files: ['test/fault/aborts.test.ts'] },
  {
    name: 'fuzz',
    setting: 'FUZZ_SECONDS',
    value: '600',
    files: ['test/conformance/edge-fuzz.test.ts'],
  },
];

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !longRuns.some((run) => run.name === name));
const total = { passed: 0, failed: unknown.length, skipped: 0 };
for (const name of unknown) {
  const names = longRuns.map((run) => run.name).join(', ');
  process.stdout.write(`no long run is called ${name}; there are ${names}\n`);
}
for (const { name, setting, value, files } of longRuns) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  const env = { [setting]: value, ...process.env };
  process.stdout.write(`== ${name}: ${setting}=${env[setting]}\n`);
  const counts = runVitest({ reportPath: `artifacts/long-${name}.json`, args: files, env });
  total.passed += counts.passed;
  total.failed += counts.failed;
  total.skipped += counts.skipped;
}
process.stdout.write(`${countsLine(total)}\n`);
process.exitCode = exitCodeOf(total);

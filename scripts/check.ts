/** `npm run check`: types, lint, dead code, layering and the short tests; under a minute. */
import { spawnSync } from 'node:child_process';

const steps: readonly (readonly [string, ...string[]])[] = [
  ['types', 'tsc', '-p', '.'],
  ['lint', 'biome', 'check', '.'],
  ['dead code', 'knip', '--no-progress'],
  ['short tests', 'vitest', 'run', 'test/unit', 'test/tidy', '--reporter=dot'],
];

for (const [name, command, ...args] of steps) {
  const started = performance.now();
  const { status } = spawnSync(command as string, args, { stdio: 'inherit' });
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  process.stdout.write(`${status === 0 ? 'ok  ' : 'FAIL'} ${name} (${seconds}s)\n`);
  if (status !== 0) process.exit(1);
}

/** One run of vitest in a process of its own, counted from its JSON report. Scripts only; blocks. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { delimiter, dirname, join, resolve } from 'node:path';
import { summarise, type VitestSummary } from './results.ts';

export const root = resolve(import.meta.dirname, '../..');

/**
 * PATH of every tool: those of the install come first, also when a script is not started by npm;
 * Debian keeps servers in sbin, which is not on every user's path.
 */
export const toolPath = [join(root, 'node_modules/.bin'), process.env.PATH, '/usr/sbin'].join(
  delimiter,
);

export interface VitestRun {
  /** Where the report stays, relative to the root. */
  readonly reportPath: string;
  /** Filters and options of `vitest run`. */
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
}

export function runVitest({ reportPath, args, env }: VitestRun): VitestSummary {
  const report = join(root, reportPath);
  mkdirSync(dirname(report), { recursive: true });
  rmSync(report, { force: true }); // an old report must not be counted when vitest dies early
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const { status } = spawnSync('vitest', ['run', ...reporters, ...args], {
    cwd: root,
    env: { ...env, PATH: toolPath },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  let text: string;
  try {
    text = readFileSync(report, 'utf8');
  } catch {
    process.stdout.write('vitest left no report\n');
    return { passed: 0, failed: 1, skipped: 0, files: [], tests: [] };
  }
  return summarise(JSON.parse(text), status);
}

/**
 * `npm run test:engine`: the tests that need a real inference engine. Builds a llama.cpp server in
 * .cache/engine when there is none (minutes, once), and ends with one line `N passed, N failed`.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { buildEngine } from './engine/build.ts';
import { type Counts, countsLine, exitCodeOf, summarise } from './test/results.ts';
import { thisMachine } from './test/servers.ts';

const root = resolve(import.meta.dirname, '..');
const reportPath = join(root, 'artifacts/engine-results.json');
/** Three times what the build takes on two free cores. */
const buildLimitMs = 480_000;

const say = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

// The tools of the install come first, also when this file is not started by npm.
process.env.PATH = [join(root, 'node_modules/.bin'), process.env.PATH].join(delimiter);
const started = performance.now();
const counts = await run();
say(`took ${((performance.now() - started) / 1000).toFixed(0)} s`);
say(countsLine(counts));
process.exitCode = exitCodeOf(counts);

async function run(): Promise<Counts> {
  try {
    const folder = join(root, '.cache/engine');
    const engine = await buildEngine({ folder, machine: thisMachine, say, limitMs: buildLimitMs });
    return runTests({ SLUICE_TEST_ENGINE: engine.server, SLUICE_TEST_MODEL: engine.model });
  } catch (error) {
    say(`no engine: ${(error as Error).message}`);
    return { passed: 0, failed: 1, skipped: 0 };
  }
}

function runTests(env: Readonly<Record<string, string>>): Counts {
  mkdirSync(join(root, 'artifacts'), { recursive: true });
  rmSync(reportPath, { force: true }); // an old report must not be counted when vitest dies early
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${reportPath}`];
  const config = ['--config', 'test/engine/vitest.config.ts', '--root', '.'];
  const { status } = spawnSync('vitest', ['run', ...config, ...reporters], {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  return summarise(JSON.parse(readFileSync(reportPath, 'utf8')), status);
}

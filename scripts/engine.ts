/**
 * `npm run test:engine`: the tests that need a real inference engine. Builds a llama.cpp server in
 * .cache/engine when there is none (minutes, once), and ends with one line `N passed, N failed`.
 */
import { join } from 'node:path';
import { buildEngine } from './engine/build.ts';
import { type Counts, countsLine, exitCodeOf } from './test/results.ts';
import { thisMachine } from './test/servers.ts';
import { root, runVitest, toolPath } from './test/vitest-run.ts';

/** Six times what the build takes on two free cores; within the limit of the CI step. */
const buildLimitMs = 900_000;

const say = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

process.env.PATH = toolPath;
const started = performance.now();
const counts = await run();
say(`took ${((performance.now() - started) / 1000).toFixed(0)} s`);
say(countsLine(counts));
process.exitCode = exitCodeOf(counts);

async function run(): Promise<Counts> {
  try {
    const folder = join(root, '.cache/engine');
    const engine = await buildEngine({ folder, machine: thisMachine, say, limitMs: buildLimitMs });
    return runVitest({
      reportPath: 'artifacts/engine-results.json',
      args: ['--config', 'test/engine/vitest.config.ts', '--root', '.'],
      env: {
        ...process.env,
        SLUICE_TEST_ENGINE: engine.server,
        SLUICE_TEST_MODEL: engine.model,
      },
    });
  } catch (error) {
    say(`no engine: ${(error as Error).message}`);
    return { passed: 0, failed: 1, skipped: 0 };
  }
}

/**
 * Two projects. What is pure or small runs side by side; what starts servers, threads or uses the
 * clock of the machine runs alone, so that one test's load is not another test's latency.
 *
 * Forks, not threads: many tests start worker threads or uWebSockets.js, which must own a process.
 */
import { defineConfig } from 'vitest/config';

const folders = (...names: readonly string[]) => names.map((name) => `test/${name}/**/*.test.ts`);

export default defineConfig({
  test: {
    pool: 'forks',
    testTimeout: 30_000,
    hookTimeout: 30_000,
    projects: [
      {
        extends: true,
        test: {
          name: 'parallel',
          include: folders('unit', 'property', 'simulation', 'lockstep', 'tidy'),
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: {
          name: 'alone',
          include: folders('integration', 'fault', 'conformance', 'litmus'),
          maxWorkers: 1,
          fileParallelism: false,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});

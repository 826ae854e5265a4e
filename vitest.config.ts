import { defineConfig } from 'vitest/config';

/** Forks, not threads: many tests start worker threads or uWebSockets.js, which must own a process. */
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
});

/** The tests against a real engine; `npm run test:engine` builds it and says where it is. */
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    name: 'engine',
    include: ['test/engine/**/*.test.ts'],
    globalSetup: 'test/support/built-program.ts',
    pool: 'forks',
    maxWorkers: 1,
    fileParallelism: false,
    testTimeout: 30_000,
    hookTimeout: 30_000,
  },
});

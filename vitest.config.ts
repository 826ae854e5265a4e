/**
 * Three projects, one after the other, with one of the two cores for each worker.
 *
 * parallel: what is pure or small. beside: tests of servers and threads that wait for events and leave
 * their clocks room, two files at a time. alone: tests that measure time, processor use, memory or
 * descriptors, so that one test's load is not another test's latency.
 *
 * Forks, not threads: many tests start worker threads or uWebSockets.js, which must own a process.
 */
import { relative } from 'node:path';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

const folders = (...names: readonly string[]) => names.map((name) => `test/${name}/**/*.test.ts`);

/** What each of these measures is why it runs alone. */
const measuring = [
  'test/conformance/openai-client.test.ts', // how soon a cancel is seen
  'test/fault/aborts.test.ts', // how soon cancels are seen, memory
  'test/fault/acceptor-descriptors.test.ts', // processor use at rest, open descriptors
  'test/fault/acceptor-load.test.ts', // loop lag, time of a refusal
  'test/fault/drain.test.ts', // how soon readiness is off, how soon streams are cut
  'test/fault/forwarder-abort.test.ts', // how soon a cancel is seen
  'test/fault/limit-store.test.ts', // latency beside a bad store
  'test/fault/log-sinks.test.ts', // latency beside a bad log
  'test/fault/overload.test.ts', // time of a refusal
  'test/fault/pressure.test.ts', // processor use, loop lag, time of a refusal
  'test/fault/replica-deaths.test.ts', // how soon others answer, time of a refusal
  'test/fault/restart-time.test.ts', // how soon a killed gateway is back
  'test/fault/scorecard.test.ts', // time of an answer beside the clocks of each fault
  'test/fault/slow-pace.test.ts', // latency beside slow clients
  'test/fault/slow-readers.test.ts', // latency beside slow clients, memory
  'test/fault/thread-crash.test.ts', // how soon a thread is back
  'test/integration/bench-generator.test.ts', // the generator's own clocks
  'test/integration/bench-script.test.ts', // rebuilds the program that the others start
  'test/integration/prompt-hold.test.ts', // how long a prompt holds its acceptor
  'test/integration/scenarios-load.test.ts', // latency, throughput, memory
  'test/litmus/*.test.ts', // races that need the cores
];

/** The longest of their projects: begun last they would be what everybody waits for. */
const longest = [
  'test/lockstep/mutation.test.ts',
  'test/lockstep/shm.test.ts',
  'test/fault/swarm.test.ts',
  'test/fault/take-over.test.ts',
  'test/fault/take-over-deaths.test.ts',
  'test/fault/streams.test.ts',
  'test/integration/scenarios-a.test.ts',
  'test/fault/acceptor-limits.test.ts',
  'test/fault/supervisor.test.ts',
  'test/integration/health-live.test.ts',
  'test/fault/reload.test.ts',
  'test/integration/forwarder-flow.test.ts',
  'test/fault/slow-clients.test.ts',
  'test/integration/scenarios-c.test.ts',
];

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const orderOf = ({ project, moduleId }: TestSpecification): [group: number, place: number] => {
      const place = longest.indexOf(relative(import.meta.dirname, moduleId));
      return [project.config.sequence.groupOrder, place < 0 ? longest.length : place];
    };
    const sorted = await super.sort(files);
    return sorted.toSorted((a, b) => {
      const [[group, place], [otherGroup, otherPlace]] = [orderOf(a), orderOf(b)];
      return group - otherGroup || place - otherPlace;
    });
  }
}

export default defineConfig({
  test: {
    pool: 'forks',
    testTimeout: 30_000,
    hookTimeout: 30_000,
    // Concurrent tests of one file wait for clocks of the product; one for each core.
    maxConcurrency: 2,
    expect: { poll: { timeout: 10_000 } },
    sequence: { sequencer: LongestFirst },
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
          name: 'beside',
          include: folders('integration', 'fault', 'conformance'),
          exclude: measuring,
          globalSetup: 'test/support/built-program.ts',
          maxWorkers: 2,
          sequence: { groupOrder: 2 },
        },
      },
      {
        extends: true,
        test: {
          name: 'alone',
          include: measuring,
          globalSetup: 'test/support/built-program.ts',
          maxWorkers: 1,
          fileParallelism: false,
          sequence: { groupOrder: 3 },
        },
      },
    ],
  },
});

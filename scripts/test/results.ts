/** Counting: what vitest and the smoke runs did, as the one line every CI can read. */

export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

export interface TestOutcome {
  readonly file: string;
  /** With those of the blocks around it. */
  readonly fullName: string;
  readonly status: string;
}

/** The part of vitest's JSON report that is read. */
interface Report {
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly startTime: number;
    readonly endTime: number;
    readonly assertionResults: readonly Omit<TestOutcome, 'file'>[];
  }[];
}

export interface VitestSummary extends Counts {
  /** Slowest first. */
  readonly files: readonly { readonly name: string; readonly seconds: number }[];
  readonly tests: readonly TestOutcome[];
}

/**
 * Reads a report. A file that failed without a failed test (it did not load, a hook threw) is one
 * failure; so is an exit status that the report does not explain, as an unhandled rejection leaves.
 */
export function summarise(report: Report, exitStatus: number | null): VitestSummary {
  const files = report.testResults;
  const tests = files.flatMap(({ name, assertionResults }) =>
    assertionResults.map((test) => ({ ...test, file: name })),
  );
  const passed = tests.filter(({ status }) => status === 'passed').length;
  const failedTests = tests.filter(({ status }) => status === 'failed').length;
  const brokenFiles = files.filter(
    ({ status, assertionResults }) =>
      status === 'failed' && !assertionResults.some((test) => test.status === 'failed'),
  ).length;
  const failed = failedTests + brokenFiles;
  return {
    passed,
    failed: failed === 0 && exitStatus !== 0 ? 1 : failed,
    skipped: tests.length - passed - failedTests,
    tests,
    files: files
      .map(({ name, startTime, endTime }) => ({ name, seconds: (endTime - startTime) / 1000 }))
      .toSorted((a, b) => b.seconds - a.seconds),
  };
}

export function countsLine({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed${skipped === 0 ? '' : `, ${skipped} skipped`}`;
}

/** Nothing run is a failure: an empty suite proves nothing. */
export function exitCodeOf({ passed, failed }: Counts): number {
  return passed > 0 && failed === 0 ? 0 : 1;
}

/** What a run of the fault tests says of each row of the battery. Pure. */
import type { TestOutcome } from '../test/results.ts';
import type { BatteryRow } from './battery.ts';

/** A line of the file that tests write (test/support/figures.ts). */
export type Seen =
  | { readonly id: string; readonly name: string; readonly value: string }
  | { readonly test: string; readonly file: string; readonly invariants: readonly string[] };

export interface RowOutcome extends BatteryRow {
  readonly passed: number;
  readonly failed: number;
  /** The latest figure of each name. */
  readonly figures: readonly string[];
  /** Asked of every gateway that its tests left running. */
  readonly invariants: readonly string[];
}

const idsIn = (name: string): string[] => name.match(/\bT\d\d\b/g) ?? [];

export function outcomes(
  battery: readonly BatteryRow[],
  tests: readonly TestOutcome[],
  seen: readonly Seen[],
): RowOutcome[] {
  return battery.map((row) => {
    const own = tests.filter(({ fullName }) => idsIn(fullName).includes(row.id));
    const figures = new Map<string, string>();
    const invariants = new Set<string>();
    for (const line of seen) {
      if ('id' in line) {
        if (line.id === row.id) figures.set(line.name, line.value);
      } else if (isOf(line, own, row.id)) {
        for (const invariant of line.invariants) invariants.add(invariant);
      }
    }
    return {
      ...row,
      passed: own.filter(({ status }) => status === 'passed').length,
      // What was skipped has not been shown: a hook that threw skips its tests.
      failed: own.filter(({ status }) => status !== 'passed').length,
      figures: [...figures].map(([name, value]) => `${name}: ${value}`),
      invariants: [...invariants].sort(),
    };
  });
}

/** Of one of the row's tests, or of the gateway of a file that has one. */
function isOf(
  { test, file }: { readonly test: string; readonly file: string },
  own: readonly TestOutcome[],
  id: string,
): boolean {
  return test === '' ? own.some((of) => of.file === file) : idsIn(test).includes(id);
}

/** A row without a test that passed has not been shown. */
export const holds = ({ passed, failed }: RowOutcome): boolean => passed > 0 && failed === 0;

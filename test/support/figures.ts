/**
 * What the fault tests saw, for the table of `npm run test:fault` (scripts/fault.ts): a line a figure
 * in the file that SLUICE_FIGURES names. Without it the figures are printed and not kept.
 */
import { appendFileSync } from 'node:fs';
import { expect, TestRunner } from 'vitest';

/** Of the acceptance battery (RELIABILITY.md 8.2, 8.4). */
export type BatteryId = `T${number}` | `F${number}`;

export interface FigureLine {
  readonly id: BatteryId;
  readonly name: string;
  readonly value: string;
}

export interface InvariantsLine {
  /** Full name of a test; '' for the gateway of a whole file. */
  readonly test: string;
  readonly file: string;
  readonly invariants: readonly string[];
}

const file = process.env.SLUICE_FIGURES;

export function figure(id: BatteryId, name: string, value: number | string, unit = ''): void {
  const rounded = typeof value === 'number' ? Number(value.toPrecision(3)) : value;
  const text = unit === '' ? `${rounded}` : `${rounded} ${unit}`;
  process.stdout.write(`${id} ${name}: ${text}\n`);
  keep({ id, name, value: text });
}

/** The test that runs now, '' in a hook; called first thing, it is right in concurrent tests as well. */
export function currentTest(): string {
  const test = TestRunner.getCurrentTest();
  if (test === undefined) return '';
  const names = [test.name];
  for (let { suite } = test; suite !== undefined; suite = suite.suite) names.unshift(suite.name);
  return names.join(' ');
}

export function invariantsHeld(test: string, invariants: readonly string[]): void {
  keep({ test, file: expect.getState().testPath ?? '', invariants });
}

function keep(line: FigureLine | InvariantsLine): void {
  if (file !== undefined) appendFileSync(file, `${JSON.stringify(line)}\n`);
}

/** The benchmarks of the protocol run, alone and small, and report what makes results comparable. */
import { execFileSync } from 'node:child_process';
import { expect, test } from 'vitest';

interface Report {
  bench: string;
  smoke: boolean;
  seed: number;
  node: string;
  workHash: string;
  parameters: Record<string, number>;
  measurements: { label: string; nsPerOp: number; ops: number; ratio?: number }[];
}

function run(file: string, ...args: string[]): string {
  return execFileSync(process.execPath, [`native-free-bench/${file}.ts`, '--smoke', ...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
}

test.each(['scanner', 'sse'])('%s', (file) => {
  const report = JSON.parse(run(file, '--json', '--seed', '7')) as Report;
  expect(report).toMatchObject({ bench: file, smoke: true, seed: 7, node: process.version });
  expect(report.workHash).toMatch(/^[0-9a-f]{16}$/);
  expect(Object.keys(report.parameters).length).toBeGreaterThan(0);
  expect(report.measurements.some((item) => item.ratio !== undefined)).toBe(true);
  for (const item of report.measurements) {
    expect(item.nsPerOp, item.label).toBeGreaterThan(0);
    expect(item.ops, item.label).toBeGreaterThan(0);
  }
  const again = JSON.parse(run(file, '--json', '--seed', '7')) as Report;
  const other = JSON.parse(run(file, '--json', '--seed', '8')) as Report;
  expect(again.workHash).toBe(report.workHash);
  expect(other.workHash).not.toBe(report.workHash);
  const printed = run(file, '--seed', '7');
  for (const { label } of report.measurements) expect(printed).toContain(label);
});

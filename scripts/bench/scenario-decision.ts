/**
 * The decision alone, measured by native-free-bench/policies.ts in a process of its own. Its figures
 * are medians over runs of many decisions: the limits hold for them, not for the slowest decision.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Measurement } from '../../native-free-bench/harness.ts';
import type { Scenario } from './bench-context.ts';
import type { Figure } from './figures.ts';

const file = fileURLToPath(new URL('../../native-free-bench/policies.ts', import.meta.url));

export const decision: Scenario = {
  name: 'decision',
  question: 'What does one decision cost, with nothing around it?',
  async run(bench) {
    if (!existsSync(file)) {
      return { figures: [], skipped: ['native-free-bench/policies.ts: not there'], data: {} };
    }
    const args = [file, '--json', '--seed', String(bench.seed)];
    if (bench.smoke) args.push('--smoke');
    const { stdout } = await promisify(execFile)(process.execPath, args);
    const data: { measurements: Measurement[] } = JSON.parse(stdout);
    const figures = data.measurements.map((measurement): Figure => {
      const { label, nsPerOp, nsPerOpMin, nsPerOpMax } = measurement;
      return {
        name: label,
        value: nsPerOp,
        unit: 'ns',
        better: 'lower',
        floor: 10_000,
        aim: 2000,
        detail: `median of the runs, ${nsPerOpMin.toFixed(0)} to ${nsPerOpMax.toFixed(0)} ns`,
      };
    });
    return { figures, skipped: [], data };
  },
};

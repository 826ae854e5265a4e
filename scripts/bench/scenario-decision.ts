/**
 * The decision alone, measured by native-free-bench/policies.ts in a process of its own. The limits are
 * those of its claims, where single decisions at 64 replicas are timed one by one; the medians of many
 * decisions beside them, for every number of replicas, have none.
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
    const data: { measurements: Measurement[]; figures: Figure[] } = JSON.parse(stdout);
    const medians = data.measurements.map((measurement): Figure => {
      const { label, nsPerOp, nsPerOpMin, nsPerOpMax } = measurement;
      const detail = `median, ${nsPerOpMin.toFixed(0)} to ${nsPerOpMax.toFixed(0)} ns`;
      return { name: label, value: nsPerOp, unit: 'ns', better: 'lower', detail };
    });
    return { figures: [...data.figures, ...medians], skipped: [], data };
  },
};

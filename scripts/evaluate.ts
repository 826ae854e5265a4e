/**
 * `npm run evaluate`: runs every policy and every peer's rule on S1 to S10 and writes
 * docs/scheduling.md with its charts.
 *
 * `-- --quick` is a short run of the same, for tests; `-- --out FOLDER` writes elsewhere. The page is a
 * function of the code and the seeds: a second run writes the same bytes. `-- --live` measures fairness
 * and overload of the real gateway instead and writes docs/scheduling-live.md.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { Lab, type LabPlan } from './evaluate/lab.ts';
import { page } from './evaluate/page.ts';
import {
  ablationSection,
  brainSection,
  capacitySection,
  fairnessSection,
  scenarioSections,
} from './evaluate/sections.ts';
import { targetsOf } from './evaluate/targets.ts';
import { evaluateLive } from './live/run.ts';

const full: LabPlan = { seeds: 5, searchSteps: 7, searchSeeds: 1, requests: Infinity };
const quick: LabPlan = { seeds: 1, searchSteps: 1, searchSeeds: 1, requests: 60 };
const progressEvery = 100;

const { values } = parseArgs({
  options: {
    live: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
    out: { type: 'string', default: resolve(import.meta.dirname, '../docs') },
  },
});

if (values.live) {
  process.stdout.write(`written ${await evaluateLive(values.quick, values.out)}\n`);
} else evaluateSimulated();

function evaluateSimulated(): void {
  const plan = values.quick ? quick : full;
  const lab = new Lab(plan, (runs) => {
    if (runs % progressEvery === 0) process.stderr.write(`${runs} runs\n`);
  });
  const sections = [
    ...scenarioSections(lab),
    fairnessSection(lab),
    capacitySection(lab),
    brainSection(lab),
    ablationSection(lab),
  ];
  const charts = join(values.out, 'scheduling');
  mkdirSync(charts, { recursive: true });
  writeFileSync(join(values.out, 'scheduling.md'), page(plan, targetsOf(lab), sections));
  for (const { file, svg } of sections.flatMap((section) => section.charts)) {
    writeFileSync(join(charts, file), svg);
  }
  process.stdout.write(`${lab.runs} runs; written ${join(values.out, 'scheduling.md')}\n`);
}

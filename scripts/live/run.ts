/**
 * The live evaluation: real processes under load, one scenario after the other, and the page and charts
 * that show them. Bounded: some ten minutes, `quick` two.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { join } from 'node:path';
import { BenchContext, withBench } from '../bench/bench-context.ts';
import { commit, machine } from '../bench/machine.ts';
import { buildProgram } from '../bench/program.ts';
import { fairnessPart, floodPart } from './fairness.ts';
import { type LiveLab, type LiveSeconds, measureCapacity } from './lab.ts';
import { livePage } from './page.ts';
import type { LivePart } from './part.ts';
import { tenantCount } from './requests.ts';
import { startFleet } from './stage.ts';
import { stallsPart } from './stalls.ts';
import { stepsPart } from './steps.ts';

const full: LiveSeconds = { capacity: 12, normal: 6, fairness: 25, step: 15, longStep: 60 };
const quick: LiveSeconds = { capacity: 7, normal: 2, fairness: 3, step: 3, longStep: 3 };

/** Resolves with the path of the page. */
export async function evaluateLive(isQuick: boolean, out: string, seed = 1): Promise<string> {
  buildProgram();
  const say = (line: string) => process.stderr.write(`${line}\n`);
  const bench = new BenchContext(isQuick, seed, new Set(), say);
  return await withBench(bench, async () => {
    const [loadBefore = 0] = os.loadavg();
    const { lab, parts } = await runParts(bench, isQuick ? quick : full);
    const { capacity, capacityOfOne } = lab;
    const [loadAfter = 0] = os.loadavg();
    const ran = { node: process.version, commit: commit(), seed, loadBefore, loadAfter };
    const facts = { machine: machine(), ...ran, capacity, capacityOfOne };
    const charts = join(out, 'scheduling');
    mkdirSync(charts, { recursive: true });
    for (const { file, svg } of parts.flatMap(({ section }) => section.charts)) {
      writeFileSync(join(charts, file), svg);
    }
    const page = join(out, 'scheduling-live.md');
    writeFileSync(page, livePage(facts, parts));
    return page;
  });
}

async function runParts(bench: BenchContext, seconds: LiveSeconds) {
  const fleet = await startFleet(bench);
  const capacity = await measureCapacity({ bench, fleet, seconds }, tenantCount);
  const capacityOfOne = await measureCapacity({ bench, fleet, seconds }, 1);
  bench.progress(`capacity ${capacity.toFixed(1)} answers/s, of one ${capacityOfOne.toFixed(1)}`);
  const lab: LiveLab = { bench, fleet, seconds, capacity, capacityOfOne };
  const parts: LivePart[] = [];
  for (const part of [fairnessPart, floodPart, stepsPart, stallsPart]) {
    const done = await part(lab);
    for (const { against, wanted, found, met } of done.targets) {
      bench.progress(`${met ? 'met   ' : 'MISSED'} ${against}: ${wanted}: ${found}`);
    }
    parts.push(done);
  }
  return { lab, parts };
}

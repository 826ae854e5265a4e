/**
 * Shared by the benchmarks of this folder: parameters with a smoke and a full value, warm-up, median
 * of runs, and the facts that make two results comparable. Main thread of a process of its own.
 *
 *   const bench = createBench('scanner', 'What does a scan cost?');
 *   const size = bench.parameter('size', { smoke: 1024, full: 131072 });
 *   const base = bench.measure('JSON.parse', 1, () => ...);
 *   bench.measure('scan', 1, () => ..., base);
 *   bench.finish();
 *
 * `--smoke` takes the small values, `--json` prints one JSON object, `--seed N` seeds the work.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import os from 'node:os';
import { type Figure, formatNumber, verdict } from '../scripts/bench/figures.ts';

export interface Measurement {
  readonly label: string;
  /** Median over the runs, nanoseconds per operation. */
  readonly nsPerOp: number;
  readonly nsPerOpMin: number;
  readonly nsPerOpMax: number;
  readonly ops: number;
  /** This divided by the baseline of the same process; absent for a baseline. */
  readonly ratio?: number;
}

export interface Bench {
  readonly smoke: boolean;
  readonly seed: number;
  parameter<T extends number | string>(name: string, values: { smoke: T; full: T }): T;
  /**
   * Times `work`, which does `opsPerCall` operations and returns a number that depends on them: the
   * number enters the hash of the work, so the work cannot be optimised away or silently change.
   */
  measure(
    label: string,
    opsPerCall: number,
    work: () => number,
    baseline?: Measurement,
  ): Measurement;
  /** Records a figure that was measured elsewhere (threads, sockets). */
  record(measurement: Measurement): void;
  /** A claim with its limit: printed as met or missed, and never a failure. */
  figure(figure: Figure): void;
  /** Adds a value to the hash of the work. */
  hash(value: number | string): void;
  finish(): void;
}

const runs = 9;

export function createBench(name: string, question: string): Bench {
  const args = process.argv.slice(2);
  const smoke = args.includes('--smoke');
  const json = args.includes('--json');
  const seedAt = args.indexOf('--seed');
  const seed = Number(seedAt < 0 ? (process.env.SEED ?? 1) : args[seedAt + 1]) >>> 0;
  const runNs = smoke ? 2e6 : 60e6;
  const parameters: Record<string, number | string> = {};
  const measurements: Measurement[] = [];
  const figures: Figure[] = [];
  const work = createHash('sha256');
  const record = (measurement: Measurement): void => void measurements.push(measurement);

  return {
    smoke,
    seed,
    parameter(parameter, values) {
      const value = smoke ? values.smoke : values.full;
      parameters[parameter] = value;
      return value;
    },
    measure(label, opsPerCall, run, baseline) {
      work.update(`${label}:${run()};`);
      const calls = calibrate(run, runNs);
      const samples: number[] = [];
      for (let i = 0; i < runs; i++) samples.push(timeCalls(run, calls) / (calls * opsPerCall));
      samples.sort((a, b) => a - b);
      const measurement: Measurement = {
        label,
        nsPerOp: samples[runs >> 1] as number,
        nsPerOpMin: samples[0] as number,
        nsPerOpMax: samples[runs - 1] as number,
        ops: runs * calls * opsPerCall,
        ...(baseline && { ratio: (samples[runs >> 1] as number) / baseline.nsPerOp }),
      };
      record(measurement);
      return measurement;
    },
    record,
    figure: (figure) => void figures.push(figure),
    hash(value) {
      work.update(`${value};`);
    },
    finish() {
      const report = {
        bench: name,
        question,
        machine: `${os.cpus()[0]?.model ?? 'unknown'} x ${os.availableParallelism()}`,
        node: process.version,
        commit: commitOfTree(),
        seed,
        smoke,
        parameters,
        workHash: work.digest('hex').slice(0, 16),
        measurements,
        figures,
      };
      process.stdout.write(json ? `${JSON.stringify(report)}\n` : renderText(report));
    },
  };
}

/** Calls per run so that a run takes about `targetNs`; the calls made here are the warm-up. */
function calibrate(run: () => number, targetNs: number): number {
  let calls = 1;
  for (;;) {
    const elapsed = timeCalls(run, calls);
    if (elapsed >= targetNs / 2) return Math.max(1, Math.round((calls * targetNs) / elapsed));
    calls *= elapsed < targetNs / 16 ? 8 : 2;
  }
}

let sink = 0;

function timeCalls(run: () => number, calls: number): number {
  const start = process.hrtime.bigint();
  for (let i = 0; i < calls; i++) sink = (sink + run()) | 0;
  return Number(process.hrtime.bigint() - start);
}

function commitOfTree(): string {
  try {
    const options = { encoding: 'utf8' as const, stdio: 'pipe' as const };
    return execFileSync('git', ['rev-parse', '--short', 'HEAD'], options).trim();
  } catch {
    return 'unknown'; // An installed package is no checkout.
  }
}

interface Report {
  readonly bench: string;
  readonly question: string;
  readonly machine: string;
  readonly node: string;
  readonly commit: string;
  readonly seed: number;
  readonly smoke: boolean;
  readonly parameters: Record<string, number | string>;
  readonly workHash: string;
  readonly measurements: readonly Measurement[];
  readonly figures: readonly Figure[];
}

function renderText(report: Report): string {
  const lines = [
    `${report.bench}: ${report.question}`,
    `  ${report.machine}, Node ${report.node}, commit ${report.commit}, seed ${report.seed}${report.smoke ? ', smoke' : ''}, work ${report.workHash}`,
  ];
  for (const [name, value] of Object.entries(report.parameters)) {
    lines.push(`  ${name} = ${value}`);
  }
  for (const item of report.measurements) {
    const range = `${item.nsPerOpMin.toFixed(1)}..${item.nsPerOpMax.toFixed(1)}`;
    const ratio = item.ratio === undefined ? '' : `  ${item.ratio.toFixed(3)} x baseline`;
    lines.push(
      `  ${item.label.padEnd(44)} ${item.nsPerOp.toFixed(1).padStart(12)} ns/op  (${range})${ratio}`,
    );
  }
  for (const figure of report.figures) {
    const { name, value, unit, floor, detail } = figure;
    const limit = floor === undefined ? '' : `, limit ${formatNumber(floor)} ${unit}`;
    const outcome = verdict(figure)?.text ?? '';
    const rest = detail === undefined ? '' : `  (${detail})`;
    lines.push(`  ${name}: ${formatNumber(value)} ${unit}${limit}: ${outcome}${rest}`);
  }
  return `${lines.join('\n')}\n`;
}

/**
 * The cost of `item` without the loop it was measured in, against a limit. Medians decide; the fastest
 * runs beside them tell a slow program from a busy machine.
 */
export function netFigure(item: Measurement, loop: Measurement, limitNs: number): Figure {
  const fastest = Math.max(item.nsPerOpMin - loop.nsPerOpMin, 0);
  return {
    name: `${item.label}, net of the loop`,
    value: Math.max(item.nsPerOp - loop.nsPerOp, 0),
    unit: 'ns',
    better: 'lower',
    floor: limitNs,
    detail: `medians ${item.nsPerOp.toFixed(1)} - ${loop.nsPerOp.toFixed(1)} ns; fastest runs ${fastest.toFixed(1)} ns`,
  };
}

/** What every scenario gets: size of the run, seed, its children and a folder for their files. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Children } from './children.ts';
import type { ScenarioResult } from './figures.ts';
import type { TargetName } from './targets.ts';

export interface Scenario {
  readonly name: string;
  readonly question: string;
  run(bench: BenchContext): Promise<Pick<ScenarioResult, 'figures' | 'skipped' | 'data'>>;
}

export class BenchContext {
  readonly smoke: boolean;
  readonly seed: number;
  readonly children = new Children();
  readonly folder = mkdtempSync(join(tmpdir(), 'sluice-bench-'));
  readonly #wanted: ReadonlySet<TargetName>;
  readonly #say: (line: string) => void;

  constructor(
    smoke: boolean,
    seed: number,
    wanted: ReadonlySet<TargetName>,
    say: (line: string) => void,
  ) {
    this.smoke = smoke;
    this.seed = seed;
    this.#wanted = wanted;
    this.#say = say;
  }

  parameter<T>(values: { readonly smoke: T; readonly full: T }): T {
    return this.smoke ? values.smoke : values.full;
  }

  wants(target: TargetName): boolean {
    return this.#wanted.has(target);
  }

  progress(line: string): void {
    this.#say(line);
  }

  removeFolder(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** However `use` ends, and on a signal, its children end and its folder goes. */
export async function withBench<T>(bench: BenchContext, use: () => Promise<T>): Promise<T> {
  const onSignal = () => {
    bench.children.killAll();
    bench.removeFolder();
    process.exit(130);
  };
  process.once('SIGINT', onSignal);
  process.once('SIGTERM', onSignal);
  try {
    return await use();
  } finally {
    await bench.children.stopAll();
    bench.removeFolder();
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  }
}

import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import type { BenchReport } from '../../scripts/bench/figures.ts';

const folders: string[] = [];

afterEach(() => {
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

function folder(): string {
  const made = mkdtempSync(join(tmpdir(), 'bench-script-test-'));
  folders.push(made);
  return made;
}

interface Run {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function bench(temp: string, ...args: readonly string[]): Promise<Run> {
  const env = { ...process.env, TMPDIR: temp };
  return new Promise((resolve) => {
    execFile('node', ['scripts/bench.ts', ...args], { env }, (error, stdout, stderr) => {
      resolve({ code: Number(error?.code ?? 0), stdout, stderr });
    });
  });
}

const linux = process.platform === 'linux';

test.runIf(linux)(
  'a smoke run measures, writes its files and leaves nothing behind',
  { timeout: 90_000 },
  async () => {
    const out = folder();
    const temp = folder();
    const args = ['--smoke', '--only', 'closed-loop', '--targets', 'direct,uws', '--out', out];
    const first = await bench(temp, ...args);
    expect(first.code, first.stderr).toBe(0);
    const file = join(out, 'bench.json');
    const report: BenchReport = JSON.parse(readFileSync(file, 'utf8'));
    const [scenario] = report.scenarios;
    expect(report.mode).toBe('smoke');
    expect(scenario?.skipped).toContain('gateway: not among --targets');
    const figures = new Map(scenario?.figures.map((figure) => [figure.name, figure]));
    for (const name of ['direct', 'uws', 'uws (autocannon)', 'uws CPU']) {
      expect(figures.get(name)?.value, name).toBeGreaterThan(0);
      expect(figures.get(name)?.detail ?? '').not.toContain('FAILED');
    }
    expect(readFileSync(join(out, 'bench.md'), 'utf8')).toContain('| uws CPU |');
    expect(readdirSync(temp)).toEqual([]);

    const old = join(folder(), 'old.json');
    writeFileSync(old, JSON.stringify(report));
    const second = await bench(folder(), ...args, '--compare', old);
    expect(second.code, second.stderr).toBe(0);
    expect(second.stdout).toMatch(/closed-loop \/ direct +[\d.]+ requests\/s/);
  },
);

test('an unknown scenario is refused with the known ones', async () => {
  const run = await bench(folder(), '--only', 'nonsense');
  expect(run.code).toBe(2);
  expect(run.stderr).toContain('Allowed choices are open-loop, half-load');
});

/** The benchmarks with a claim say by figure whether it holds, net of the loop around the work. */
import { execFileSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { type Measurement, netFigure } from '../../native-free-bench/harness.ts';
import { BenchContext } from '../../scripts/bench/bench-context.ts';
import { type Figure, verdict } from '../../scripts/bench/figures.ts';
import { decision } from '../../scripts/bench/scenario-decision.ts';

const smoke = (file: string, ...args: string[]): string =>
  execFileSync(process.execPath, [`native-free-bench/${file}.ts`, '--smoke', ...args], {
    encoding: 'utf8',
  });

const limits = (figures: readonly Figure[]): Record<string, number | undefined> =>
  Object.fromEntries(figures.map(({ name, floor }) => [name, floor]));

test('metrics claims 50 ns for each kind of update', () => {
  const { figures } = JSON.parse(smoke('metrics', '--json')) as { figures: Figure[] };
  expect(limits(figures)).toEqual({
    'MetricsWriter.addPair, net of the loop': 50,
    'MetricsWriter.add, net of the loop': 50,
    'MetricsWriter.observe, net of the loop': 50,
  });
  expect(smoke('metrics')).toMatch(/observe, net of the loop: .* limit 50 ns: floor (met|MISSED)/);
});

test('tenants claims a microsecond for the check of a key, and for limits', () => {
  const { figures } = JSON.parse(smoke('tenants', '--json')) as { figures: Figure[] };
  expect(limits(figures)).toEqual({
    'KeyRing.find, a known key, net of the loop': 1000,
    'KeyRing.find, an unknown key, net of the loop': 1000,
    'limits: taken and given back, tenant, net of the loop': 1000,
    'limits: taken and given back, tenant and model, net of the loop': 1000,
    'limits: refused, net of the loop': 1000,
  });
});

test('tracing claims 3 % of the processor time of a request, for all of them together', () => {
  const { figures } = JSON.parse(smoke('tracing', '--json')) as { figures: Figure[] };
  expect(limits(figures)).toEqual({ 'traces of 1 %, for each request': 1800 });
});

test('the decision scenario holds single decisions at 64 replicas to 10 µs, and medians to nothing', async () => {
  const bench = new BenchContext(true, 1, new Set(), () => {});
  try {
    const { figures } = await decision.run(bench);
    const claimed = figures.filter(({ floor }) => floor !== undefined);
    expect(limits(claimed)).toEqual({
      'least_in_flight, N=64, net of the loop': 100,
      'single decision, least_in_flight, N=64, p99': 10_000,
      'single decision, least_in_flight, N=64, p50': 10_000,
      'single decision, marginal_cost, N=64, p99': 10_000,
      'single decision, marginal_cost, N=64, p50': 10_000,
    });
    expect(figures.length).toBeGreaterThan(claimed.length);
    const [p99, p50] = ['p99', 'p50'].map((part) => claimed.find((f) => f.name.endsWith(part)));
    expect(p99!.value).toBeGreaterThanOrEqual(p50!.value);
    expect(p50!.value).toBeGreaterThan(0);
  } finally {
    bench.removeFolder();
  }
});

test('a net figure is met below its limit and missed above', () => {
  const item = (label: string, nsPerOp: number): Measurement => ({
    ...{ label, nsPerOp, nsPerOpMin: nsPerOp, nsPerOpMax: nsPerOp, ops: 1 },
  });
  const loop = item('loop', 10);
  expect(verdict(netFigure(item('update', 60), loop, 50))).toMatchObject({ met: true });
  expect(verdict(netFigure(item('update', 85), loop, 50))?.text).toBe('floor MISSED by 1.50x');
  expect(netFigure(item('update', 9), loop, 50).value).toBe(0);
});

/** One load run against a target, with the CPU time of the processes that took part in it. */
import { type LoadHooks, type LoadPlan, runLoad } from '../../src/load/generator.ts';
import { type LoadReport, loadReport, progressLine } from '../../src/load/report.ts';
import { createRequestTemplate } from '../../src/load/request-template.ts';
import type { BenchContext } from './bench-context.ts';
import { CpuMeter } from './procfs.ts';
import { model } from './replicas.ts';
import type { Target } from './targets.ts';

export interface LoadShape {
  readonly stream?: boolean;
  readonly promptBytes?: number;
  readonly outputTokens?: number;
  /** Requests per second; absent is the closed loop. */
  readonly requestRate?: number;
  readonly burstiness?: number;
  readonly connections: number;
  readonly warmupMs: number;
  readonly durationMs: number;
}

export interface Measured {
  readonly target: string;
  readonly report: LoadReport;
  /** CPU seconds of the target's processes from the first request to the last answer. */
  readonly cpuSeconds: number;
  /** The same for each request that was sent. */
  readonly cpuUsPerRequest: number;
}

let run = 0;

export async function measure(
  bench: BenchContext,
  target: Target,
  shape: LoadShape,
  hooks: LoadHooks = {},
): Promise<Measured> {
  const plan = loadPlan(bench, target, shape);
  const meters = target.children.map((child) => new CpuMeter(child.pid));
  const result = await runLoad(plan, {
    onProgress: (progress) => bench.progress(`${target.name}  ${progressLine(progress)}`),
    ...hooks,
  });
  const cpuSeconds = meters.reduce((sum, meter) => sum + meter.read().seconds, 0);
  const report = loadReport(plan, result);
  if (report.completed === 0) {
    throw new Error(`${target.name} answered nothing: ${JSON.stringify(report.sluice.errors)}`);
  }
  return {
    target: target.name,
    report,
    cpuSeconds,
    cpuUsPerRequest: (cpuSeconds * 1e6) / report.sluice.sent,
  };
}

function loadPlan(bench: BenchContext, target: Target, shape: LoadShape): LoadPlan {
  const stream = shape.stream === true;
  const template = createRequestTemplate(
    {
      endpoint: '/v1/chat/completions',
      model,
      stream,
      inputTokens: 0,
      promptBytes: shape.promptBytes ?? 0,
      outputTokens: shape.outputTokens ?? 16,
      ignoreEos: shape.outputTokens !== undefined,
      seed: bench.seed,
    },
    `127.0.0.1:${target.ports[0]}`,
  );
  return {
    targets: target.ports.map((port) => ({ host: '127.0.0.1', port })),
    template,
    stream,
    requestRate: shape.requestRate ?? Number.POSITIVE_INFINITY,
    burstiness: shape.burstiness ?? 1,
    connections: shape.connections,
    concurrencyMax: shape.connections,
    durationMs: shape.durationMs,
    requestsMax: Number.POSITIVE_INFINITY,
    warmupMs: shape.warmupMs,
    timeoutMs: 30_000,
    seed: bench.seed,
    idPrefix: `bench-${process.pid}-${++run}`,
    expectTokens: shape.outputTokens ?? -1,
    goodput: {},
  };
}

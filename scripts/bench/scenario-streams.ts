/**
 * 1,000 streams of 50 tokens per second at one time. Streams start at a constant rate, so they are
 * out of step with each other as real ones are. CPU per chunk is the target's CPU time over the
 * token events the generator saw, both between two moments with all streams open. Added inter-token
 * latency is the p99 gap through the target minus the p99 gap direct, of the same run.
 */
import type { LoadProgress } from '../../src/load/generator.ts';
import type { BenchContext, Scenario } from './bench-context.ts';
import type { Figure } from './figures.ts';
import { type Measured, measure } from './measure.ts';
import { cpuSeconds } from './procfs.ts';
import { startReplicas } from './replicas.ts';
import { startTargets, type Target } from './targets.ts';

const ttftMs = 200;
const itlMs = 20;

interface Streamed extends Measured {
  /** 0 for `direct`, which has no process of its own. */
  readonly cpuUsPerChunk: number;
  readonly chunksPerSecond: number;
}

export const streams: Scenario = {
  name: 'streams',
  question: 'What do 1,000 streams of 50 tokens/s cost, and how late do their tokens come?',
  async run(bench) {
    const profile = `tokens:ttft=${ttftMs}ms,itl=${itlMs}ms`;
    const fleet = await startReplicas(bench, bench.parameter({ smoke: 1, full: 4 }), profile);
    const wanted = ['direct', 'nginx', 'haproxy', 'gateway'] as const;
    const { targets, skipped } = await startTargets(bench, fleet, wanted);
    const all: Streamed[] = [];
    for (const target of targets) all.push(await stream(bench, target));
    return { figures: figuresOf(all), skipped, data: all };
  },
};

async function stream(bench: BenchContext, target: Target): Promise<Streamed> {
  const streamsOpen = bench.parameter({ smoke: 40, full: 1000 });
  const outputTokens = bench.parameter({ smoke: 40, full: 250 });
  const streamMs = ttftMs + (outputTokens - 1) * itlMs;
  const warmupMs = streamMs + 500;
  const durationMs = bench.parameter({ smoke: 1500, full: 12_000 });
  const window = new ChunkWindow(target, warmupMs, warmupMs + durationMs);
  const measured = await measure(
    bench,
    target,
    {
      stream: true,
      outputTokens,
      requestRate: (streamsOpen * 1000) / streamMs,
      burstiness: Number.POSITIVE_INFINITY,
      connections: Math.ceil(streamsOpen * 1.3),
      warmupMs,
      durationMs,
    },
    { progressMs: 250, onProgress: (progress) => window.sample(progress) },
  );
  bench.progress(`${target.name}  ${measured.report.completed} streams`);
  return { ...measured, ...window.result() };
}

/** CPU time and chunks between the first and the last sample in which all streams are open. */
class ChunkWindow {
  readonly #target: Target;
  readonly #fromMs: number;
  readonly #untilMs: number;
  #first: { atMs: number; cpu: number; chunks: number } | undefined;
  #last: { atMs: number; cpu: number; chunks: number } | undefined;

  constructor(target: Target, fromMs: number, untilMs: number) {
    this.#target = target;
    this.#fromMs = fromMs;
    this.#untilMs = untilMs;
  }

  sample({ elapsedMs, metrics }: LoadProgress): void {
    if (elapsedMs < this.#fromMs || elapsedMs > this.#untilMs) return;
    const cpu = this.#target.children.reduce((sum, child) => sum + cpuSeconds(child.pid), 0);
    this.#last = { atMs: elapsedMs, cpu, chunks: metrics.tokenEvents };
    this.#first ??= this.#last;
  }

  result(): { cpuUsPerChunk: number; chunksPerSecond: number } {
    if (this.#first === undefined || this.#last === undefined || this.#first === this.#last) {
      throw new Error('the run was too short to see all streams open');
    }
    const chunks = this.#last.chunks - this.#first.chunks;
    return {
      cpuUsPerChunk: ((this.#last.cpu - this.#first.cpu) * 1e6) / chunks,
      chunksPerSecond: (chunks * 1000) / (this.#last.atMs - this.#first.atMs),
    };
  }
}

function figuresOf(all: readonly Streamed[]): Figure[] {
  const find = (name: string) => all.find(({ target }) => target === name);
  const gateway = find('gateway');
  const direct = find('direct');
  const figures: Figure[] = [];
  for (const [name, limits] of [
    ['nginx', { floor: 2, aim: 1 }],
    ['haproxy', {}],
  ] as const) {
    const other = find(name);
    if (gateway === undefined || other === undefined) continue;
    figures.push({
      name: `gateway CPU per chunk / ${name}`,
      value: gateway.cpuUsPerChunk / other.cpuUsPerChunk,
      unit: 'x',
      better: 'lower',
      ...limits,
      detail: `${gateway.cpuUsPerChunk.toFixed(1)} over ${other.cpuUsPerChunk.toFixed(1)} us`,
    });
  }
  for (const measured of all) {
    if (direct !== undefined && measured !== direct) figures.push(addedGap(measured, direct));
    figures.push(...ownFigures(measured));
  }
  return figures;
}

function addedGap(measured: Streamed, direct: Streamed): Figure {
  return {
    name: `${measured.target} added inter-token latency p99`,
    value: measured.report.p99_itl_ms - direct.report.p99_itl_ms,
    unit: 'ms',
    better: 'lower',
    ...(measured.target === 'gateway' && { floor: 10, aim: 2 }),
    detail:
      `${measured.report.p99_itl_ms.toFixed(2)} ms through, ` +
      `${direct.report.p99_itl_ms.toFixed(2)} ms direct`,
  };
}

function ownFigures({ target, report, cpuUsPerChunk, chunksPerSecond }: Streamed): Figure[] {
  const named = Object.entries(report.sluice.errors).map(([name, count]) => `${name} ${count}`);
  const figures: Figure[] = [
    {
      name: `${target} broken streams`,
      value: report.failed,
      unit: '',
      better: 'lower',
      ...(target === 'gateway' && { floor: 0, aim: 0 }),
      detail: [`of ${report.completed + report.failed}`, ...named].join(', '),
    },
    {
      name: `${target} chunks`,
      value: chunksPerSecond,
      unit: 'per second',
      better: 'higher',
      detail: `at most ${report.max_concurrent_requests} streams open`,
    },
  ];
  if (cpuUsPerChunk > 0) {
    const name = `${target} CPU per chunk`;
    figures.push({ name, value: cpuUsPerChunk, unit: 'us', better: 'lower' });
  }
  return figures;
}

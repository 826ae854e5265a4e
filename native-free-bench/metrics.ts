/**
 * Question: what does one metric update cost a hot thread, against prom-client doing the same?
 *
 * Included: the call, bounds checks, bucket search, the stores. Subtract `loop with one store` for the loop and
 * the choice of the next value. Baseline in the same run: the same updates on prom-client child
 * objects, whose labels are resolved beforehand as they would be on a hot path.
 * Claim: an update costs at most 50 ns net of the loop.
 * The last rows are a scrape on the main thread, per page.
 */
import { Counter, Histogram, Registry } from 'prom-client';
import { GatewayMetrics, type MetricsSources } from '../src/gateway/metrics.ts';
import { createPrng } from '../src/lib/prng.ts';
import { createMetricsRegion } from '../src/shm/metrics.layout.ts';
import { MetricsReader, MetricsWriter } from '../src/shm/metrics.ts';
import { metrics } from '../src/telemetry/catalogue.ts';
import { defaultMetricDims as dims, statusIndex } from '../src/telemetry/labels.ts';
import { createBench, netFigure } from './harness.ts';

const bench = createBench('metrics', 'What does a metric update cost?');
const models = bench.parameter('models', { smoke: 4, full: 40 });
const updates = 1024;

const random = createPrng(bench.seed);
/** Durations of 1 µs to 67 s, evenly over the orders of magnitude. */
const durationsUs = Float64Array.from({ length: updates }, () =>
  random.below(2 ** random.below(27)),
);
const modelOf = Uint8Array.from({ length: updates }, () => random.below(models));

const region = createMetricsRegion(dims);
const writer = new MetricsWriter(region, dims);
const registers = [new Registry()];
const names = Array.from({ length: models }, (_, row) => `model-${row}`);
const promCounter = new Counter({
  ...{ name: 'requests_total', help: 'h', labelNames: ['model', 'code'], registers },
});
const promCounters = names.map((model) => promCounter.labels(model, '200'));
const promHistogram = new Histogram({
  ...{ name: 'itl_seconds', help: 'h', labelNames: ['model'], registers },
  buckets: [...metrics.interTokenLatency.bounds],
});
const promHistograms = names.map((model) => promHistogram.labels(model));

/** Runs `update` with a model and a duration for each of the `updates` operations. */
function each(update: (model: number, us: number) => void): () => number {
  return () => {
    for (let i = 0; i < updates; i++) update(modelOf[i] as number, durationsUs[i] as number);
    return updates;
  };
}

const spare = new Float64Array(models);
const empty = each((model, us) => {
  spare[model] = us;
});
const loop = bench.measure('loop with one store', updates, empty);

const ok = statusIndex(200);
const counterBase = bench.measure(
  'prom-client counter.inc',
  updates,
  each((model) => promCounters[model]?.inc()),
);
const addPair = bench.measure(
  'MetricsWriter.addPair',
  updates,
  each((model) => writer.addPair(metrics.requests, model, ok, 1)),
  counterBase,
);
const add = bench.measure(
  'MetricsWriter.add',
  updates,
  each((model) => writer.add(metrics.streamTruncated, model, 1)),
  counterBase,
);
const histogramBase = bench.measure(
  'prom-client histogram.observe',
  updates,
  each((model, us) => promHistograms[model]?.observe(us / 1e6)),
);
const observe = bench.measure(
  'MetricsWriter.observe',
  updates,
  each((model, us) => writer.observe(metrics.interTokenLatency, model, us)),
  histogramBase,
);
for (const update of [addPair, add, observe]) bench.figure(netFigure(update, loop, 50));

const sources: MetricsSources = {
  models: () => names.map((name, row) => ({ row, name, inFlight: 0, queueDepth: 0 })),
  replicas: () => [],
  tenants: () => [],
  threads: () => [],
  threadCpu: () => new Map(),
  limitsLeft: () => [],
  modelLimitsLeft: () => [],
  ringDepths: () => ({ request: 0, dispatch: 0, event: 0, reply: 0, response: 0 }),
  slotsInUse: () => 0,
  arenaBytesInUse: () => 0,
  sinks: () => [],
  overload: () => [],
  limitStoreUp: () => 0,
  budgetStoreUp: () => 0,
  httpConnections: () => 0,
};
const reader = new MetricsReader(dims, [
  region,
  createMetricsRegion(dims),
  createMetricsRegion(dims),
]);
bench.measure('sum of three threads, per scrape', 1, () =>
  reader.snapshot().seriesCount(metrics.requests),
);
const page = new GatewayMetrics(dims, reader, sources, { version: '0', node: '0', engine: 'node' });
await recordRender();
bench.finish();

/** Rendering is asynchronous, which `measure` is not. */
async function recordRender(): Promise<void> {
  const rounds = bench.smoke ? 3 : 30;
  const times: number[] = [];
  let lines = 0;
  for (let i = 0; i < rounds; i++) {
    const start = process.hrtime.bigint();
    const text = await page.render();
    times.push(Number(process.hrtime.bigint() - start));
    lines = text.split('\n').filter((line) => line.startsWith('sluice_')).length;
  }
  times.sort((a, b) => a - b);
  bench.hash(lines);
  bench.record({
    label: `page of ${lines} samples`,
    nsPerOp: times[rounds >> 1] as number,
    nsPerOpMin: times[0] as number,
    nsPerOpMax: times[rounds - 1] as number,
    ops: rounds,
  });
}

/**
 * The metrics page of the admin server: cells of all threads, gauges, process metrics of prom-client.
 *
 * Main thread, once a scrape; never on a request's path. Cells carry row indexes and get their names
 * here. prom-client renders; its own Counter and Histogram objects are not used because filling
 * them costs 100 ms for a thousand histogram series, so a family hands over its values directly.
 * A series of two labels, of a route or of a tenant appears once it has counted something; the others are
 * there from the start.
 */
import { collectDefaultMetrics, type Metric as PromMetric, Registry } from 'prom-client';
import { assert } from '../lib/assert.ts';
import type { EngineMetrics } from '../protocol/engine-metrics.ts';
import type { MetricsReader, MetricsSnapshot } from '../shm/metrics.ts';
import { metrics, storedMetrics } from '../telemetry/catalogue.ts';
import { genaiPrefix } from '../telemetry/genai-metrics.ts';
import {
  fixedLabelValues,
  labelName,
  labelSize,
  type MetricDims,
  type RingName,
  type SeriesLabel,
} from '../telemetry/labels.ts';
import {
  type HistogramMetric,
  isStored,
  type ReadMetric,
  type StoredMetric,
} from '../telemetry/metric-kinds.ts';
import type { OverloadReading } from './overload.ts';
import { overloadStages } from './overload-stages.ts';
import type { SinkView } from './views.ts';

export interface ModelReading {
  /** Row of the model; its cells are found by it. */
  readonly row: number;
  readonly name: string;
  readonly inFlight: number;
  readonly queueDepth: number;
}
export interface ReplicaReading {
  readonly row: number;
  readonly name: string;
  readonly model: string;
  readonly up: boolean;
  readonly inFlight: number;
  readonly breaker: number;
  readonly adapters: number;
  /** Absent while its engine does not report. */
  readonly engine?: EngineMetrics | undefined;
}
export interface TenantReading {
  /** Index in the `tenant` label. */
  readonly index: number;
  readonly name: string;
}
export interface LimitReading {
  readonly tenant: string;
  readonly dimension: string;
  readonly left: number;
}
export interface ModelLimitReading extends LimitReading {
  readonly model: string;
}
export interface ThreadReading {
  readonly name: string;
  readonly heartbeatAgeSeconds: number;
  /** Absent for the scheduler, which has no event loop. */
  readonly eventLoopUtilization?: number;
}
/** What the gateway tells at a scrape; each is a recount and is called once a scrape. */
export interface MetricsSources {
  models(): readonly ModelReading[];
  replicas(): readonly ReplicaReading[];
  /** Those that have series of their own. */
  tenants(): Iterable<TenantReading>;
  threads(): readonly ThreadReading[];
  /** Seconds by name of the thread. */
  threadCpu(): ReadonlyMap<string, number>;
  /** Of the tenants that have series of their own. */
  limitsLeft(): readonly LimitReading[];
  /** Of those tenants too. */
  modelLimitsLeft(): readonly ModelLimitReading[];
  ringDepths(): Readonly<Record<RingName, number>>;
  slotsInUse(): number;
  arenaBytesInUse(): number;
  httpConnections(): number;
  /** 1 while the store of shared limits answers. */
  limitStoreUp(): number;
  /** 1 while it is heard what other gateways have spent. */
  budgetStoreUp(): number;
  overload(): readonly OverloadReading[];
  /** Where usage events go besides their file. */
  sinks(): readonly SinkView[];
}
export interface BuildInfo {
  readonly version: string;
  readonly node: string;
  readonly engine: string;
}

type Labels = Readonly<Record<string, string>>;
/** A value as prom-client renders it; `sharedLabels` are formatted once for each object. */
interface Value {
  readonly value: number;
  readonly labels: Labels;
  readonly sharedLabels?: Labels;
  readonly metricName?: string;
}

/** What one scrape has read, before it is rendered. */
interface Scrape {
  readonly snapshot: MetricsSnapshot;
  readonly models: ReadonlyMap<number, string>;
  readonly replicas: ReadonlyMap<number, ReplicaReading>;
  readonly tenants: ReadonlyMap<number, string>;
}

const noLabels: Labels = {};

/** Gauges that end in _total, which promtool refuses; each is the sum of a gauge by type we keep. */
const misnamedDefaults = [
  'nodejs_active_handles_total',
  'nodejs_active_requests_total',
  'nodejs_active_resources_total',
];

export class GatewayMetrics {
  readonly contentType: string;
  readonly #registry = new Registry();
  readonly #dims: MetricDims;
  readonly #reader: MetricsReader;
  readonly #sources: MetricsSources;
  readonly #build: BuildInfo;
  readonly #gaugeValues = new Map<ReadMetric, readonly Value[]>();
  #scrape: Scrape | undefined;

  /** `genai`: with the metrics of the conventions for GenAI. */
  constructor(
    dims: MetricDims,
    reader: MetricsReader,
    sources: MetricsSources,
    build: BuildInfo,
    genai = false,
  ) {
    this.#dims = dims;
    this.#reader = reader;
    this.#sources = sources;
    this.#build = build;
    this.contentType = this.#registry.contentType;
    collectDefaultMetrics({ register: this.#registry });
    for (const name of misnamedDefaults) this.#registry.removeSingleMetric(name);
    for (const metric of Object.values(metrics)) {
      if (!genai && metric.name.startsWith(genaiPrefix)) continue;
      const read = isStored(metric)
        ? (): readonly Value[] => this.#cellValues(metric)
        : (): readonly Value[] => this.#gaugeValues.get(metric) ?? [];
      register(this.#registry, metric, read);
    }
  }

  /** The page in the Prometheus text format 0.0.4. */
  async render(): Promise<string> {
    this.#readSources();
    return await this.#registry.metrics();
  }

  #readSources(): void {
    const models = this.#sources.models();
    const replicas = this.#sources.replicas();
    const threads = this.#sources.threads();
    const one = (value: number): Value[] => [{ value, labels: noLabels }];
    const gauges = this.#gaugeValues;
    const byModel = (read: (model: ModelReading) => number): Value[] =>
      models.map((model) => ({ value: read(model), labels: { model: model.name } }));
    const byReplica = (read: (replica: ReplicaReading) => number): Value[] =>
      replicas.map((r) => ({ value: read(r), labels: { replica: r.name, model: r.model } }));
    gauges.set(
      metrics.requestsInFlight,
      byModel((model) => model.inFlight),
    );
    gauges.set(
      metrics.queueDepth,
      byModel((model) => model.queueDepth),
    );
    gauges.set(
      metrics.replicaUp,
      byReplica((replica) => (replica.up ? 1 : 0)),
    );
    gauges.set(
      metrics.replicaInFlight,
      byReplica((replica) => replica.inFlight),
    );
    gauges.set(
      metrics.replicaBreaker,
      byReplica((replica) => replica.breaker),
    );
    gauges.set(
      metrics.replicaAdapters,
      byReplica((replica) => replica.adapters),
    );
    const byEngine = (read: (engine: EngineMetrics) => number): Value[] =>
      replicas.flatMap(({ name, model, engine }) =>
        engine === undefined ? [] : [{ value: read(engine), labels: { replica: name, model } }],
      );
    gauges.set(
      metrics.replicaEngineRunning,
      byEngine((engine) => engine.running),
    );
    gauges.set(
      metrics.replicaEngineWaiting,
      byEngine((engine) => engine.waiting),
    );
    gauges.set(
      metrics.replicaEngineKvUsage,
      byEngine((engine) => engine.kvUsage),
    );
    gauges.set(
      metrics.ringDepth,
      Object.entries(this.#sources.ringDepths()).map(([ring, value]) => ({
        value,
        labels: { ring },
      })),
    );
    gauges.set(
      metrics.threadHeartbeatAge,
      threads.map(({ name, heartbeatAgeSeconds }) => ({
        value: heartbeatAgeSeconds,
        labels: { thread: name },
      })),
    );
    gauges.set(
      metrics.eventLoopUtilization,
      threads.flatMap(({ name, eventLoopUtilization: value }) =>
        value === undefined ? [] : [{ value, labels: { thread: name } }],
      ),
    );
    gauges.set(
      metrics.threadCpu,
      [...this.#sources.threadCpu()].map(([thread, value]) => ({ value, labels: { thread } })),
    );
    const byLimit = (readings: readonly LimitReading[]): Value[] =>
      readings.map(({ left: value, ...labels }) => ({ value, labels }));
    gauges.set(metrics.limitRemaining, byLimit(this.#sources.limitsLeft()));
    gauges.set(metrics.limitModelRemaining, byLimit(this.#sources.modelLimitsLeft()));
    gauges.set(metrics.slotsInUse, one(this.#sources.slotsInUse()));
    gauges.set(metrics.arenaBytesInUse, one(this.#sources.arenaBytesInUse()));
    gauges.set(metrics.httpConnections, one(this.#sources.httpConnections()));
    gauges.set(metrics.limitStoreUp, one(this.#sources.limitStoreUp()));
    gauges.set(metrics.budgetStoreUp, one(this.#sources.budgetStoreUp()));
    const overload = this.#sources.overload();
    gauges.set(
      metrics.overloadStage,
      overload.map(({ resource, stage }) => {
        return { value: overloadStages.indexOf(stage), labels: { resource } };
      }),
    );
    gauges.set(
      metrics.overloadPressure,
      overload.map(({ resource, share }) => ({ value: share, labels: { resource } })),
    );
    const sinks = this.#sources.sinks();
    gauges.set(
      metrics.usageSinkWaiting,
      sinks.map(({ name: sink, waiting }) => ({ value: waiting, labels: { sink } })),
    );
    gauges.set(
      metrics.usageSinkLag,
      sinks.map(({ name: sink, lagSeconds }) => ({ value: lagSeconds, labels: { sink } })),
    );
    gauges.set(metrics.buildInfo, [{ value: 1, labels: { ...this.#build } }]);
    this.#scrape = {
      snapshot: this.#reader.snapshot(),
      models: namesOf(models, ({ row }) => row, this.#dims.models),
      tenants: namesOf([...this.#sources.tenants()], ({ index }) => index, this.#dims.tenants),
      replicas: new Map(replicas.map((replica) => [replica.row, replica])),
    };
  }

  #cellValues(metric: StoredMetric): Value[] {
    const scrape = this.#scrape;
    assert(scrape !== undefined);
    const values: Value[] = [];
    const count = scrape.snapshot.seriesCount(metric);
    for (let index = 0; index < count; index++) {
      if (metric.kind === 'counter') {
        const value = scrape.snapshot.counter(metric, index);
        const labels = this.#labelsOf(metric, index, value > 0, scrape);
        if (labels !== undefined) values.push({ value, labels });
      } else {
        const buckets = scrape.snapshot.buckets(metric, index);
        const labels = this.#labelsOf(
          metric,
          index,
          buckets.some((n) => n > 0),
          scrape,
        );
        if (labels === undefined) continue;
        pushHistogram(values, metric, labels, buckets, scrape.snapshot.sumSeconds(metric, index));
      }
    }
    return values;
  }

  /**
   * Labels of a series, or undefined when it is not shown: its row has no owner, or it is one of a
   * product of labels, of a route, a tenant or the catch-all model and has not counted.
   */
  #labelsOf(
    metric: StoredMetric,
    index: number,
    hasCounted: boolean,
    scrape: Scrape,
  ): Labels | undefined {
    const [first, second] = metric.series;
    const isOther = first === 'model' && index === this.#dims.models;
    const isOne = second !== undefined || first === 'route' || first === 'tenant';
    if (!hasCounted && (isOne || isOther)) return undefined;
    const labels: Record<string, string> = {};
    let rest = index;
    for (const label of metric.series.toReversed()) {
      const size = labelSize(label, this.#dims);
      if (!this.#resolve(label, rest % size, scrape, labels)) return undefined;
      rest = Math.floor(rest / size);
    }
    return labels;
  }

  #resolve(
    label: SeriesLabel,
    row: number,
    scrape: Scrape,
    labels: Record<string, string>,
  ): boolean {
    if (label === 'model' || label === 'gen_ai_request_model' || label === 'tenant') {
      const name = (label === 'tenant' ? scrape.tenants : scrape.models).get(row);
      if (name !== undefined) labels[label] = name;
      return name !== undefined;
    }
    if (label === 'replica') {
      const replica = scrape.replicas.get(row);
      if (replica !== undefined)
        Object.assign(labels, { replica: replica.name, model: replica.model });
      return replica !== undefined;
    }
    const value = fixedLabelValues[label][row] ?? 'other';
    if (value !== '') labels[labelName(label)] = value; // to Prometheus an empty one is none
    return true;
  }
}

/** By index; the last one is of everybody else. */
function namesOf<T extends { readonly name: string }>(
  named: readonly T[],
  indexOf: (each: T) => number,
  otherIndex: number,
): Map<number, string> {
  const names = new Map(named.map((each) => [indexOf(each), each.name]));
  // Two series of one name would make Prometheus refuse the whole page.
  const isTaken = named.some(({ name }) => name === 'other');
  return names.set(otherIndex, isTaken ? '_other' : 'other');
}

const upperLabels: ReadonlyMap<HistogramMetric, readonly Labels[]> = new Map(
  storedMetrics
    .filter((metric) => metric.kind === 'histogram')
    .map((metric) => [metric, [...metric.bounds.map(String), '+Inf'].map((le) => ({ le }))]),
);

function pushHistogram(
  values: Value[],
  metric: HistogramMetric,
  sharedLabels: Labels,
  buckets: Float64Array,
  sum: number,
): void {
  const uppers = upperLabels.get(metric) ?? [];
  assert(uppers.length === buckets.length);
  const metricName = `${metric.name}_bucket`;
  let count = 0;
  for (const [i, labels] of uppers.entries()) {
    count += buckets[i] ?? 0;
    values.push({ value: count, labels, sharedLabels, metricName });
  }
  const labels = noLabels;
  values.push({ value: sum, labels, sharedLabels, metricName: `${metric.name}_sum` });
  values.push({ value: count, labels, sharedLabels, metricName: `${metric.name}_count` });
}

/** Registers a family of which prom-client needs only a name and `get`, whatever its types say. */
function register(
  registry: Registry,
  metric: { readonly name: string; readonly help: string; readonly kind: string },
  read: () => readonly Value[],
): void {
  const { name, help, kind: type } = metric;
  const family = { name, help, type, get: () => ({ name, help, type, values: read() }) };
  registry.registerMetric(family as unknown as PromMetric);
}

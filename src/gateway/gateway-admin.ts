/**
 * What the admin listener can ask of the gateway: its pages are drawn here, changes are made in
 * replica-changes.ts and tenants.ts. Runs on the main thread.
 */
import { configuredSinks } from '../config/sinks.ts';
import type { Readiness } from '../shm/readiness.ts';
import { ReplicaAdmin } from '../shm/replica-table.layout.ts';
import { metrics } from '../telemetry/catalogue.ts';
import { defaultMetricDims } from '../telemetry/labels.ts';
import { type AdminActions, AdminError } from './admin-server.ts';
import { descriptorsOpen } from './descriptors.ts';
import type { ExplainView } from './explain.ts';
import type { Member } from './membership.ts';
import { GatewayMetrics } from './metrics.ts';
import type { OverloadReading, OverloadWatch } from './overload.ts';
import { type ChangeParts, ReplicaChanges } from './replica-changes.ts';
import type { Tenants } from './tenants.ts';
import { ThreadCpu } from './thread-cpu.ts';
import type { TokenizerPool } from './tokenizer-pool.ts';
import { version } from './version.ts';
import type { GatewayViews } from './views.ts';

export interface AdminParts extends ChangeParts {
  readonly engine: string;
  /** False while it starts. */
  readonly isServing: () => boolean;
  readonly views: GatewayViews;
  readonly explain: ExplainView;
  readonly overload: OverloadWatch;
  readonly readiness: Readiness;
  readonly tenants: Tenants;
  readonly tokenizers: TokenizerPool;
  readonly fault: ((body: unknown) => unknown) | undefined;
}

/** From outside one that leaves drains: it is given nothing new. */
const adminNames = Object.keys(ReplicaAdmin).with(ReplicaAdmin.leaving, 'draining');
const breakerNames = ['closed', 'open', 'half_open'] as const;

export class GatewayAdmin implements AdminActions {
  readonly #parts: AdminParts;
  readonly #metrics: GatewayMetrics;
  readonly #replicas: ReplicaChanges;
  constructor(parts: AdminParts) {
    this.#parts = parts;
    this.#replicas = new ReplicaChanges(parts);
    this.#metrics = this.#createMetrics();
  }

  get fault(): ((body: unknown) => unknown) | undefined {
    return this.#parts.fault;
  }

  failed(error: unknown): void {
    this.#parts.logger.error('an admin action failed', { err: error });
  }

  isStarting(): boolean {
    return !this.#parts.isServing();
  }

  ready(): { ready: boolean; reason: string } {
    const reason = this.isStarting() ? 'starting' : this.#parts.readiness.problem();
    return { ready: reason === '', reason };
  }

  async metrics(): Promise<{ contentType: string; text: string }> {
    return { contentType: this.#metrics.contentType, text: await this.#metrics.render() };
  }

  cluster(): unknown {
    const { options, engine, membership, views, reader } = this.#parts;
    const totals = reader.snapshot();
    const replicas = [...membership, ...membership.leaving].map((member) => {
      const { admin, healthy, inFlight, breaker, ejections } = membership.state(member);
      return {
        name: member.name,
        model: options.config.models[member.model]?.name,
        url: member.url,
        healthy,
        state: adminNames[admin],
        breaker: breakerNames[breaker],
        ejections: (ejections - member.ejectionsBefore) >>> 0,
        in_flight: inFlight,
        requests: totals.counter(metrics.replicaRequests, member.row),
        errors: totals.counter(metrics.replicaErrors, member.row),
        weight: member.weight,
        max_in_flight: member.maxInFlight,
        adapters: [...member.adapters, ...member.loaded],
        reason: member.reason,
        engine: engineView(member),
      };
    });
    const models = options.config.models.map(({ name, policy }, row) => ({
      name,
      policy,
      queue_depth: views.queued(row),
    }));
    return {
      replicas,
      models,
      policy: models.map(({ policy }) => policy).join(','),
      queue_depth: models.reduce((sum, model) => sum + model.queue_depth, 0),
      dispatched: totals.counter(metrics.schedulerDispatched, 0),
      dropped: totals.counter(metrics.schedulerDropped, 0),
      overload: overloadView(this.#parts.overload.readings()),
      version,
      engine,
      pid: process.pid,
      restart_problem: this.#parts.restarts.problem,
    };
  }

  slots(): unknown {
    return {
      ...(this.#parts.views.slotDump() as object),
      threads: this.#parts.views.threads(),
      descriptors: descriptorsOpen(),
      rss_bytes: process.memoryUsage.rss(),
    };
  }

  explain(requestId: string): unknown {
    return this.#parts.explain.ofRequest(requestId);
  }

  drain(name: string): unknown {
    return this.#replicas.drain(name);
  }

  undrain(name: string): unknown {
    return this.#replicas.undrain(name);
  }

  remove(name: string): Promise<unknown> {
    return this.#replicas.remove(name);
  }

  add(body: unknown): Promise<{ readonly name: string }> {
    return this.#replicas.add(body);
  }

  async reload(): Promise<unknown> {
    const done = await this.#replicas.reload();
    const problem = await this.#parts.tokenizers.reload();
    return problem === '' ? done : { ...done, tokenizers: `the old ones stay: ${problem}` };
  }

  tenants(): unknown {
    return this.#parts.tenants.view();
  }

  createKey(tenant: string, body: unknown): Promise<{ readonly id: string }> {
    return this.#parts.tenants.create(tenant, body);
  }

  disableKey(tenant: string, id: string, disabled: boolean): Promise<unknown> {
    return this.#parts.tenants.setDisabled(tenant, id, disabled);
  }

  /** Answers before anything has happened: this process may be the one that goes. */
  restart(): unknown {
    if (this.#parts.restarts.ask()) return { state: 'asked', pid: process.pid };
    throw new AdminError(409, 'no supervisor started this gateway: nobody could start another');
  }

  #createMetrics(): GatewayMetrics {
    const { options, engine, membership, overload, tenants, views, reader } = this.#parts;
    const { models } = options.config;
    const threadCpu = new ThreadCpu();
    return new GatewayMetrics(
      defaultMetricDims,
      reader,
      {
        models: () => {
          const inFlight = views.inFlightByModel(models.length);
          return models.map(({ name }, row) => {
            return { row, name, inFlight: inFlight[row] ?? 0, queueDepth: views.queued(row) };
          });
        },
        replicas: () =>
          [...membership].map((member) => {
            const { healthy, inFlight, breaker } = membership.state(member);
            const model = models[member.model]?.name ?? '';
            const { row, name, engine } = member;
            const adapters = member.adapters.length + member.loaded.length;
            return { row, name, model, up: healthy, inFlight, breaker, adapters, engine };
          }),
        tenants: () => tenants.series.named(),
        threads: () =>
          views.threads().flatMap(({ name, heartbeatAgeSeconds, utilization }) => {
            if (name === 'main') return [];
            const base = { name, heartbeatAgeSeconds };
            return [name === 'scheduler' ? base : { ...base, eventLoopUtilization: utilization }];
          }),
        threadCpu: () => threadCpu.read(),
        limitsLeft: () => tenants.limitsLeft(),
        modelLimitsLeft: () => tenants.modelLimitsLeft(),
        ringDepths: () => views.ringDepths(),
        slotsInUse: () => views.slotsInUse(),
        arenaBytesInUse: () => views.arenaBytesInUse(),
        overload: () => overload.readings(),
        httpConnections: () => views.connections(),
        limitStoreUp: () => views.limitStoreUp(),
        budgetStoreUp: () => views.budgetStoreUp(),
        sinks: () => views.sinks(configuredSinks(options.config.usage)),
      },
      { version, node: process.version, engine },
      options.config.metrics.genai,
    );
  }
}

/** What the engine says of itself; null while it does not. */
function engineView({ engine }: Member): unknown {
  if (engine === undefined) return null;
  const { running, waiting, kvUsage, kvCapacity } = engine;
  return { running, waiting, kv_usage_ratio: kvUsage, kv_capacity_tokens: kvCapacity };
}

/** By resource; no limit is null, as JSON has no other word for it. */
const overloadView = (readings: readonly OverloadReading[]): unknown =>
  Object.fromEntries(
    readings.map(({ resource, stage, share, limit }) => {
      return [resource, { stage, share, limit: Number.isFinite(limit) ? limit : null }];
    }),
  );

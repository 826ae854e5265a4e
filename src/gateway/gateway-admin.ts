/**
 * What the admin listener can ask of the gateway. Runs on the main thread.
 *
 * Changes of the membership are applied in the order that loses nothing: forwarders learn an address
 * before the scheduler may pick it, and forget it after the last request on it has ended. What a reload
 * takes away serves until something else can (handover.ts).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseNewReplica } from '../config/new-replica.ts';
import { formatProblem } from '../config/problems.ts';
import { nowMs } from '../lib/clock.ts';
import type { MetricsReader, MetricsWriter } from '../shm/metrics.ts';
import type { Readiness } from '../shm/readiness.ts';
import { ReplicaAdmin } from '../shm/replica-table.layout.ts';
import type { ToThread } from '../shm/threads.ts';
import { metrics } from '../telemetry/catalogue.ts';
import { defaultMetricDims, Result } from '../telemetry/labels.ts';
import type { Logger } from '../telemetry/log.ts';
import { type AdminActions, AdminError } from './admin-server.ts';
import { descriptorProblem, descriptorsOpen, replicaConnections } from './descriptors.ts';
import type { ExplainView } from './explain.ts';
import type { GatewayOptions } from './gateway.ts';
import { handoverOf, type Standing } from './handover.ts';
import type { HealthChecker } from './health.ts';
import type { Member, Membership, ReplicaSpec } from './membership.ts';
import { GatewayMetrics } from './metrics.ts';
import type { OverloadReading, OverloadWatch } from './overload.ts';
import { type NamedReplica, planReload } from './reload.ts';
import type { Restarts } from './restarts.ts';
import { version } from './version.ts';
import type { GatewayViews } from './views.ts';

type Joined = Extract<ToThread, { kind: 'replica' }>;
type Forgotten = Extract<ToThread, { kind: 'forget' }>;

export interface AdminParts {
  readonly options: GatewayOptions;
  readonly logger: Logger;
  readonly engine: string;
  /** False while it starts. */
  readonly isServing: () => boolean;
  readonly membership: Membership;
  readonly views: GatewayViews;
  readonly explain: ExplainView;
  readonly health: HealthChecker;
  readonly overload: OverloadWatch;
  readonly reader: MetricsReader;
  readonly writer: MetricsWriter;
  readonly readiness: Readiness;
  readonly restarts: Restarts;
  readonly fault: ((body: unknown) => unknown) | undefined;
  readonly tellForwarders: (message: Joined | Forgotten) => Promise<void>;
  readonly tellAcceptors: (message: Joined) => Promise<void>;
}

const drainPollMs = 20;
const handoverPollMs = 50;
const adminNames = Object.keys(ReplicaAdmin);
const breakerNames = ['closed', 'open', 'half_open'] as const;

export class GatewayAdmin implements AdminActions {
  readonly #parts: AdminParts;
  readonly #metrics: GatewayMetrics;
  /** Members whose removal waits for their last request: to take one back would lose what it is given. */
  readonly #removing = new Set<Member>();
  /** Changes that wait for requests to end run one after the other. */
  #changing: Promise<unknown> = Promise.resolve();

  constructor(parts: AdminParts) {
    this.#parts = parts;
    this.#metrics = this.#createMetrics();
  }

  get fault(): ((body: unknown) => unknown) | undefined {
    return this.#parts.fault;
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
        adapters: member.adapters,
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
    const member = this.#member(name);
    this.#parts.membership.drain(member);
    return { name, state: 'draining', in_flight: this.#parts.membership.state(member).inFlight };
  }

  undrain(name: string): unknown {
    const member = this.#member(name);
    if (this.#removing.has(member)) throw new AdminError(409, `${name} is being removed`);
    this.#parts.membership.activate(member);
    return { name, state: 'active' };
  }

  /** Drains the replica, waits for its last request, then forgets it. */
  remove(name: string): Promise<unknown> {
    return this.#inTurn(async () => {
      const member = this.#member(name);
      this.#removing.add(member);
      try {
        if (!(await this.#drained(member, this.#parts.options.config.drain.timeout))) {
          throw new AdminError(409, `${name} still has requests in flight; it stays draining`);
        }
        await this.#forget(member);
      } finally {
        this.#removing.delete(member);
      }
      return { name, state: 'removed' };
    });
  }

  add(body: unknown): Promise<{ readonly name: string }> {
    const { membership, options } = this.#parts;
    const parsed = parseNewReplica(body);
    if (!parsed.ok) throw new AdminError(400, parsed.message);
    const { replica } = parsed;
    const model = options.config.models.findIndex(({ name }) => name === replica.model);
    if (model < 0) throw new AdminError(404, `no model ${replica.model}`);
    const unknown = membership.unknownAdapter(replica, model);
    if (unknown !== undefined) {
      throw new AdminError(409, `adapter ${unknown} is new to the model: that needs a restart`);
    }
    return this.#inTurn(async () => {
      if (membership.get(replica.name) !== undefined) {
        throw new AdminError(409, `there is a replica ${replica.name} already`);
      }
      this.#assertDescriptorsFor([replica]);
      const member = await this.#join(membership.add(replica, model));
      return { name: member.name, state: 'active', healthy: membership.state(member).healthy };
    });
  }

  /** Answers before anything has happened: this process may be the one that goes. */
  restart(): unknown {
    if (this.#parts.restarts.ask()) return { state: 'asked', pid: process.pid };
    throw new AdminError(409, 'no supervisor started this gateway: nobody could start another');
  }

  /** Applies the replicas of the config file; refused whole when another key has changed. */
  reload(): Promise<unknown> {
    return this.#inTurn(async () => {
      try {
        const done = await this.#reload();
        this.#parts.restarts.byHand.reloaded();
        this.#parts.writer.add(metrics.configReloads, Result.ok, 1);
        return done;
      } catch (error) {
        this.#parts.writer.add(metrics.configReloads, Result.failed, 1);
        throw error;
      }
    });
  }

  async #reload(): Promise<unknown> {
    const { options, membership } = this.#parts;
    if (options.reload === undefined) {
      throw new AdminError(409, 'the gateway was started without a config file');
    }
    const loaded = await options.reload();
    if (!loaded.ok) throw new AdminError(400, loaded.problems.map(formatProblem).join('; '));
    const running = [...membership].map((member) => ({
      model: member.model,
      replica: {
        ...member,
        ...member.cost,
        api_key: member.apiKey,
        max_in_flight: member.maxInFlight,
      },
    }));
    const { restart, add, remove, replace, reweigh } = planReload(
      options.config,
      loaded.config,
      running,
    );
    if (restart.length > 0) {
      throw new AdminError(409, `these keys need a restart: ${restart.join(', ')}`);
    }
    const joining = [...add, ...replace];
    // Refused whole, before a name is given up: a replacement needs a row beside the one it replaces.
    if (joining.length > membership.freeRows()) {
      throw new AdminError(409, 'the replica table has no room for that many at once');
    }
    this.#assertDescriptorsFor(joining.map(({ replica }) => replica));
    const leaving = [...remove, ...replace.map(({ replica }) => replica.name)];
    const left = leaving.map((name) => this.#member(name));
    for (const member of left) membership.giveUpName(member);
    try {
      for (const { replica, model } of joining) {
        await this.#join(membership.add(replica, model));
      }
      for (const { replica } of reweigh) {
        membership.setWeight(this.#member(replica.name), replica.weight);
      }
    } finally {
      for (const member of left) void this.#leave(member);
    }
    const names = (list: readonly NamedReplica[]): string[] => list.map((n) => n.replica.name);
    const done = { added: names(add), replaced: names(replace), reweighed: names(reweigh) };
    return { ...done, removed: remove };
  }

  /** Whoever leaves has connections until the last request on it has ended. */
  #assertDescriptorsFor(joining: readonly ReplicaSpec[]): void {
    if (joining.length === 0) return;
    const { options, membership } = this.#parts;
    const { listen, threads } = options.config;
    const present = [...membership, ...membership.leaving].map(({ maxInFlight }) => maxInFlight);
    const maxInFlights = [...present, ...joining.map((replica) => replica.max_in_flight)];
    const connections = replicaConnections(maxInFlights, threads.forwarders);
    const problem = descriptorProblem(listen.max_connections, threads.acceptors, connections);
    if (problem !== undefined) throw new AdminError(409, problem);
  }

  /** Forwarders learn the address, then the scheduler may pick it, once a probe has succeeded. */
  async #join(member: Member | undefined): Promise<Member> {
    const { membership, health, reader } = this.#parts;
    if (member === undefined) throw new AdminError(409, 'the replica table is full');
    reader.rebase('replica', member.row);
    const { row, epoch, name, url, apiKey, maxInFlight, takesBatches } = member;
    const replica = { row, epoch, name, url, apiKey, maxInFlight, takesBatches };
    await this.#parts.tellForwarders({ kind: 'replica', replica });
    await this.#parts.tellAcceptors({ kind: 'replica', replica: { ...replica, apiKey: '' } });
    membership.activate(member);
    await health.watch(member);
    return member;
  }

  /**
   * Serves until another replica of the model does, then finishes what it has, which may take as long
   * as it may; the reload waits for neither.
   */
  async #leave(member: Member): Promise<void> {
    const { membership, logger } = this.#parts;
    const standing = (of: Member): Standing => ({ ...of, ...membership.state(of) });
    const sinceMs = nowMs();
    const look = () =>
      handoverOf(standing(member), [...membership].map(standing), nowMs() - sinceMs);
    const replica = member.name;
    let handover = look();
    if (handover === 'wait')
      logger.info('serves until another of its model is healthy', { replica });
    while (handover === 'wait') {
      await sleep(handoverPollMs, undefined, { ref: false });
      handover = look();
    }
    if (handover === 'late')
      logger.warn('leaves though no other of its model is healthy', { replica });
    if (await this.#drained(member, Number.POSITIVE_INFINITY)) await this.#forget(member);
  }

  /** No new requests; true once the last one has ended, false when that took too long. */
  async #drained(member: Member, timeoutMs: number): Promise<boolean> {
    const { membership } = this.#parts;
    const limit = performance.now() + timeoutMs;
    membership.drain(member);
    const beats = membership.schedulerBeats;
    while (membership.schedulerBeats === beats || membership.state(member).inFlight > 0) {
      if (performance.now() > limit) return false;
      await sleep(drainPollMs, undefined, { ref: false });
    }
    return true;
  }

  async #forget(member: Member): Promise<void> {
    const { membership, health, tellForwarders } = this.#parts;
    health.forget(member);
    membership.remove(member);
    await tellForwarders({ kind: 'forget', row: member.row, epoch: member.epoch });
  }

  /** Two changes at a time could meet in one row: the next one starts when the last has ended. */
  #inTurn<T>(change: () => Promise<T>): Promise<T> {
    const result = this.#changing.then(change);
    this.#changing = result.catch(() => {});
    return result;
  }

  #member(name: string): Member {
    const member = this.#parts.membership.get(name);
    if (member === undefined) throw new AdminError(404, `no replica ${name}`);
    return member;
  }

  #createMetrics(): GatewayMetrics {
    const { options, engine, membership, overload, views, reader } = this.#parts;
    const { models } = options.config;
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
            return { row, name, model, up: healthy, inFlight, breaker, engine };
          }),
        threads: () =>
          views.threads().flatMap(({ name, heartbeatAgeSeconds, utilization }) => {
            if (name === 'main') return [];
            const base = { name, heartbeatAgeSeconds };
            return [name === 'scheduler' ? base : { ...base, eventLoopUtilization: utilization }];
          }),
        ringDepths: () => views.ringDepths(),
        slotsInUse: () => views.slotsInUse(),
        arenaBytesInUse: () => views.arenaBytesInUse(),
        overload: () => overload.readings(),
        httpConnections: () => views.connections(),
      },
      { version, node: process.version, engine },
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

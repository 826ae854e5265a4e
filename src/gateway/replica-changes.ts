/**
 * Changes of the membership while the gateway runs: by hand, one at a time, or by a reload of the file.
 * Main thread.
 *
 * They are applied in the order that loses nothing: forwarders learn an address before the scheduler may
 * pick it, and forget it after the last request on it has ended. What a reload takes away serves until
 * something else can (handover.ts).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseNewReplica } from '../config/new-replica.ts';
import { formatProblem } from '../config/problems.ts';
import type { Config } from '../config/schema.ts';
import type { KeyTable } from '../config/tenants.ts';
import { nowMs } from '../lib/clock.ts';
import type { MetricsReader, MetricsWriter } from '../shm/metrics.ts';
import type { ToThread } from '../shm/threads.ts';
import { metrics } from '../telemetry/catalogue.ts';
import { Result } from '../telemetry/labels.ts';
import type { Logger } from '../telemetry/log.ts';
import { AdminError } from './admin-server.ts';
import { descriptorProblem, replicaConnections } from './descriptors.ts';
import type { GatewayOptions } from './gateway-options.ts';
import { handoverOf, type Standing } from './handover.ts';
import type { HealthChecker } from './health.ts';
import type { Member, Membership, ReplicaSpec } from './membership.ts';
import { changedTerms, type NamedReplica, planReload } from './reload.ts';
import type { Restarts } from './restarts.ts';
import type { RunningConfig } from './running-config.ts';
import { addressOf, withoutSecrets } from './start-data.ts';
import type { Tenants } from './tenants.ts';

type Joined = Extract<ToThread, { kind: 'replica' }>;
type Forgotten = Extract<ToThread, { kind: 'forget' }>;

export interface ChangeParts {
  readonly options: GatewayOptions;
  readonly logger: Logger;
  readonly membership: Membership;
  readonly health: HealthChecker;
  readonly reader: MetricsReader;
  readonly writer: MetricsWriter;
  readonly restarts: Restarts;
  readonly tenants: Tenants;
  readonly config: RunningConfig;
  /** Resolves when every thread goes by the models and splits of the config. */
  readonly tellModels: (config: Config, keys: KeyTable) => Promise<void>;
  readonly tellForwarders: (message: Joined | Forgotten) => Promise<void>;
  readonly tellAcceptors: (message: Joined) => Promise<void>;
}

const drainPollMs = 20;
const handoverPollMs = 50;

export class ReplicaChanges {
  readonly #parts: ChangeParts;
  /** Members whose removal waits for their last request: to take one back would lose what it is given. */
  readonly #removing = new Set<Member>();
  /** Changes that wait for requests to end run one after the other. */
  #changing: Promise<unknown> = Promise.resolve();

  constructor(parts: ChangeParts) {
    this.#parts = parts;
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
          this.#parts.membership.drain(member);
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
    const replica = parsed.value;
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
      const { models } = options.config;
      const loads = (row: number): boolean => models[row]?.lora !== undefined;
      const twin = [...membership].find(({ url }) => url === replica.url);
      // What the one has its engine load, the other would have it give up under running requests.
      if (twin !== undefined && (loads(model) || loads(twin.model))) {
        throw new AdminError(409, `${twin.name} has that url, and a model with lora shares none`);
      }
      this.#assertDescriptorsFor([replica]);
      const member = await this.#join(membership.add(replica, model));
      return { name: member.name, state: 'active', healthy: membership.state(member).healthy };
    });
  }

  /** Applies the config file; refused whole when a key has changed that needs a restart. */
  reload(): Promise<object> {
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

  async #reload(): Promise<object> {
    const { options, membership, logger } = this.#parts;
    if (options.reload === undefined) {
      throw new AdminError(409, 'the gateway was started without a config file');
    }
    const loaded = await options.reload();
    if (!loaded.ok) throw new AdminError(400, loaded.problems.map(formatProblem).join('; '));
    for (const warning of loaded.warnings) logger.warn(formatProblem(warning));
    const running = [...membership].map((member) => ({
      model: member.model,
      replica: {
        ...member,
        ...member.cost,
        api_key: member.apiKey,
        api_key_header: member.apiKeyHeader,
        max_in_flight: member.maxInFlight,
        served_model_name: member.servedName,
      },
    }));
    const { restart, add, remove, replace, reweigh } = planReload(
      this.#parts.config.start,
      loaded.config,
      running,
    );
    const changed = changedTerms(this.#parts.config.now, loaded.config);
    if (restart.length > 0) {
      throw new AdminError(409, `these keys need a restart: ${restart.join(', ')}`);
    }
    const joining = [...add, ...replace];
    // Refused whole, before a name is given up: a replacement needs a row beside the one it replaces.
    if (joining.length > membership.freeRows()) {
      throw new AdminError(409, 'the replica table has no room for that many at once');
    }
    this.#assertDescriptorsFor(joining.map(({ replica }) => replica));
    // Before anything that waits for replicas: a key that is gone is refused from here on.
    await this.#parts.tenants.narrow(loaded.config);
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
      // Whoever gets more of the requests has its replicas by now.
      if (changed.length > 0) await this.#takeTerms(loaded.config);
      else await this.#parts.tenants.widen();
    } finally {
      for (const member of left) void this.#leave(member);
    }
    const names = (list: readonly NamedReplica[]): string[] => list.map((n) => n.replica.name);
    const done = { added: names(add), replaced: names(replace), reweighed: names(reweigh) };
    return { ...done, removed: remove, changed };
  }

  /** A thread that is started from here on begins with them. */
  #takeTerms(next: Config): Promise<void> {
    const { config, tenants, tellModels } = this.#parts;
    const now = config.take(next);
    return tenants.rename(now, (keys) => tellModels(now, keys));
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
    const replica = addressOf(member);
    await this.#parts.tellForwarders({ kind: 'replica', replica });
    await this.#parts.tellAcceptors({ kind: 'replica', replica: withoutSecrets(replica) });
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
    membership.leave(member);
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
}

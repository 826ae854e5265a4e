/**
 * Adapters on demand: replicas load the LoRA adapters that requests wait for (`models[].lora`). Main thread.
 *
 * The scheduler lets a request wait where some replica could load its adapter, and gives it to none before
 * the row of the replica says that it has it. Here it is seen who waits, in the slot table; lora-plan.ts
 * says who loads what. An adapter is given up in this order: its bit goes, the scheduler has seen that, its
 * last request has ended, the engine is told. So no request reaches a replica without its adapter, but
 * where somebody else unloads it or an engine restarts between two looks.
 *
 * What a replica has is what it lists: read when it becomes healthy, and every `health.interval` from then
 * on. While it is unhealthy it has nothing. An engine that does not list what it has just loaded is
 * believed by its answers alone. If this thread dies the process does; the next one reads the lists.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { adaptersOf, loadableAdapters } from '../config/adapters.ts';
import type { Config, ModelConfig } from '../config/schema.ts';
import { nowMs, nowUs } from '../lib/clock.ts';
import type { SharedMemory } from '../shm/memory.ts';
import type { MetricsWriter } from '../shm/metrics.ts';
import { metrics } from '../telemetry/catalogue.ts';
import { Result } from '../telemetry/labels.ts';
import type { Logger } from '../telemetry/log.ts';
import { LoraApi } from './lora-api.ts';
import { LoraDemand } from './lora-demand.ts';
import { type Move, planLoads } from './lora-plan.ts';
import { type LoraModel, ReplicaShelf } from './lora-shelf.ts';
import type { Member, Membership } from './membership.ts';

type Lora = NonNullable<ModelConfig['lora']>;

export interface LoraParts {
  readonly config: Config;
  readonly membership: Membership;
  readonly memory: SharedMemory;
  readonly logger: Logger;
  readonly metrics: MetricsWriter;
  /** Requests of the model that wait for a replica. */
  readonly queued: (model: number) => number;
}

/** What is waited for is looked at so often: little beside the time of a load. */
const pollMs = 20;

export class LoraLoader {
  readonly #parts: LoraParts;
  readonly #models: readonly LoraModel[];
  readonly #api = new LoraApi();
  readonly #demand: LoraDemand;
  readonly #shelves = new Map<Member, ReplicaShelf>();
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;

  constructor(parts: LoraParts) {
    this.#parts = parts;
    this.#demand = new LoraDemand(parts.memory);
    this.#models = parts.config.models.flatMap((model, index) =>
      model.lora === undefined ? [] : [{ index, lora: model.lora, adapters: adaptersOf(model) }],
    );
  }

  start(): void {
    if (this.#models.length > 0) this.#look();
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    await this.#api.close();
  }

  #look(): void {
    for (const model of this.#models) {
      const shelves = this.#shelvesOf(model);
      for (const shelf of shelves) this.#follow(shelf);
      if (this.#parts.queued(model.index) > 0) this.#serve(model, shelves);
    }
    for (const shelf of this.#shelves.values())
      if (!shelf.isPresent) this.#shelves.delete(shelf.member);
    this.#timer = setTimeout(() => this.#look(), pollMs);
  }

  /** Members that drain or leave are none of them: they are given nothing new. */
  #shelvesOf(model: LoraModel): ReplicaShelf[] {
    const members = [...this.#parts.membership].filter((member) => member.model === model.index);
    return members.map((member) => {
      const present = this.#shelves.get(member);
      if (present !== undefined) return present;
      const shelf = new ReplicaShelf(member, model, this.#parts.membership, this.#demand);
      this.#shelves.set(member, shelf);
      return shelf;
    });
  }

  /** Takes note of its health, asks what it has when that is due, and forgives what failed long ago. */
  #follow(shelf: ReplicaShelf): void {
    const healthMs = this.#parts.config.health.interval;
    shelf.follow();
    if (!shelf.isHealthy || shelf.loading !== undefined || nowMs() < shelf.listAtMs) return;
    shelf.listAtMs = nowMs() + healthMs;
    void this.#list(shelf);
  }

  async #list(shelf: ReplicaShelf): Promise<void> {
    const { turn } = shelf;
    try {
      const names = await this.#api.list(shelf.member);
      // It may have loaded or lost something since it was asked.
      if (shelf.turn === turn && !this.#isStopped) shelf.listed(names);
    } catch {
      // A replica that gives no list keeps what it had; its health is the health checker's to judge.
    }
  }

  #serve({ index, lora, adapters }: LoraModel, shelves: readonly ReplicaShelf[]): void {
    const wants = [...this.#demand.waiting(index)].map(([adapter, sinceUs]) => ({
      adapter: adapters[adapter - 1] as string,
      waitedMs: (nowUs() - sinceUs) / 1000,
    }));
    const loadable = new Set(loadableAdapters({ lora }));
    const open = wants.filter(({ adapter }) => loadable.has(adapter));
    for (const move of planLoads(open, shelves, lora.max_loaded)) {
      void this.#move(move, lora);
    }
  }

  async #move({ shelf, adapter, evicted }: Move<ReplicaShelf>, lora: Lora): Promise<void> {
    const { logger, metrics: writer } = this.#parts;
    const { member } = shelf;
    const startedMs = nowMs();
    shelf.begin(adapter);
    try {
      if (evicted !== undefined) await this.#giveUp(shelf, evicted, lora);
      const { path } = lora.adapters.find(({ name }) => name === adapter) as { path: string };
      await this.#api.load(member, lora.engine, { name: adapter, path }, lora.load_timeout);
      shelf.put(adapter);
      writer.addPair(metrics.loraLoads, member.row, Result.ok, 1);
      logger.info('adapter loaded', {
        ...{ replica: member.name, model: adapter, e2e_ms: nowMs() - startedMs },
      });
    } catch (error) {
      if (this.#isStopped) return;
      shelf.failed(adapter, nowMs() + lora.retry_after);
      writer.addPair(metrics.loraLoads, member.row, Result.failed, 1);
      const err = (error as Error).message;
      logger.warn('adapter not loaded', { replica: member.name, model: adapter, err });
    } finally {
      shelf.end();
    }
  }

  /** Nobody is sent there for it any more, the last one has ended, then the engine gives it up. */
  async #giveUp(shelf: ReplicaShelf, adapter: string, lora: Lora): Promise<void> {
    const { membership } = this.#parts;
    const { member } = shelf;
    const beats = membership.schedulerBeats;
    shelf.take(adapter);
    while (membership.schedulerBeats === beats || shelf.isUsed(adapter)) {
      if (this.#isStopped || !shelf.isPresent) throw new Error('the replica has left');
      await sleep(pollMs, undefined, { ref: false });
    }
    try {
      await this.#api.unload(member, lora.engine, adapter, lora.load_timeout);
      this.#parts.metrics.add(metrics.loraEvictions, member.row, 1);
      this.#parts.logger.info('adapter given up', { replica: member.name, model: adapter });
    } catch (error) {
      // Whether it is still there the next list tells; until then nobody is sent there for it.
      shelf.listAtMs = 0;
      throw error;
    }
  }
}

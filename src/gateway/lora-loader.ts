/**
 * Adapters on demand: replicas load the LoRA adapters that requests wait for (`models[].lora`). Main thread.
 *
 * The scheduler lets a request wait where some replica could load its adapter, and gives it to none before
 * the row of the replica says that it has it. Here it is seen who waits, in the slot table; lora-plan.ts
 * says who loads what. An adapter is given up in this order: its bit goes, the scheduler has seen that, its
 * last request has ended, the engine is told. So no request reaches a replica without its adapter, but
 * where somebody else unloads it or an engine restarts between two looks.
 *
 * Lists are asked for when a replica becomes healthy, every `health.interval` from then on, and within
 * `patienceMs` where somebody waits though a replica has the adapter. If this thread dies the process does;
 * the next one reads the lists.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { adaptersOf, loadableAdapters } from '../config/adapters.ts';
import type { Config, ModelConfig } from '../config/schema.ts';
import { nowMs } from '../lib/clock.ts';
import type { SharedMemory } from '../shm/memory.ts';
import type { MetricsWriter } from '../shm/metrics.ts';
import { ReplicaAdmin } from '../shm/replica-table.layout.ts';
import { metrics } from '../telemetry/catalogue.ts';
import { Result } from '../telemetry/labels.ts';
import type { Logger } from '../telemetry/log.ts';
import { LoraApi, LoraRefused } from './lora-api.ts';
import { type Demand, LoraDemand } from './lora-demand.ts';
import { type Move, patienceMs, planLoads, type Want } from './lora-plan.ts';
import { type LoraModel, ReplicaShelf } from './lora-shelf.ts';
import type { Member, Membership } from './membership.ts';

type Lora = NonNullable<ModelConfig['lora']>;

export interface LoraParts {
  readonly config: Config;
  readonly membership: Membership;
  readonly memory: SharedMemory;
  readonly logger: Pick<Logger, 'info' | 'warn'>;
  readonly metrics: MetricsWriter;
  /** Requests of the model that wait for a replica. */
  readonly queued: (model: number) => number;
}

/** What is waited for is looked at so often: little beside the time of a load. */
const pollMs = 20;
/** A start waits so long for the first lists. */
const firstListsMs = 2000;

export class LoraLoader {
  readonly #parts: LoraParts;
  readonly #models: readonly LoraModel[];
  readonly #api = new LoraApi();
  readonly #slots: LoraDemand;
  #demand: Demand;
  /** How often that was looked at. */
  #looks = 0;
  readonly #shelves = new Map<Member, ReplicaShelf>();
  /** By wait: since when there is somebody. */
  readonly #sinceMs = new Map<string, number>();
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;

  constructor(parts: LoraParts) {
    this.#parts = parts;
    this.#slots = new LoraDemand(parts.memory);
    this.#demand = this.#slots.look();
    this.#models = parts.config.models.flatMap((model, index) => {
      if (loadableAdapters(model).length === 0 || model.lora === undefined) return [];
      const adapters = adaptersOf(model);
      const numbers = new Map(adapters.map((name, i) => [name, i + 1]));
      return [{ index, lora: model.lora, adapters, numbers }];
    });
  }

  /** Resolves once it is known what the healthy replicas have, or they have been asked for long enough. */
  async start(): Promise<void> {
    if (this.#models.length === 0) return;
    this.#look();
    const limitMs = nowMs() + firstListsMs;
    const isOpen = ({ isHealthy, isKnown }: ReplicaShelf): boolean => isHealthy && !isKnown;
    while ([...this.#shelves.values()].some(isOpen) && nowMs() < limitMs && !this.#isStopped) {
      await sleep(pollMs);
    }
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    await this.#api.close();
  }

  #look(): void {
    const isWaited = this.#models.some(({ index }) => this.#parts.queued(index) > 0);
    if (!isWaited) this.#sinceMs.clear();
    if (isWaited || [...this.#shelves.values()].some(({ loading }) => loading !== undefined)) {
      this.#demand = this.#slots.look();
      this.#looks++;
    }
    const engines = new Set<Member>();
    for (const model of this.#models) {
      const shelves = this.#shelvesOf(model);
      for (const shelf of shelves) {
        engines.add(shelf.member);
        this.#follow(shelf);
      }
      if (isWaited) this.#serve(model, shelves);
    }
    if (isWaited) this.#forgetEnded();
    for (const [member, shelf] of this.#shelves) {
      if (engines.has(member)) continue;
      shelf.isGone = true;
      this.#shelves.delete(member);
    }
    if (!this.#isStopped) this.#timer = setTimeout(() => this.#look(), pollMs);
  }

  /** One for each engine of the model that may still be given requests, a leaving one too until another serves. */
  #shelvesOf(model: LoraModel): ReplicaShelf[] {
    const { membership } = this.#parts;
    const engines = new Map<string, Member>();
    for (const member of membership.leaving) {
      const isActive = membership.state(member).admin === ReplicaAdmin.active;
      if (member.model === model.index && isActive) engines.set(member.url, member);
    }
    for (const member of membership) {
      // One that is not fit yet has the row beside it that it is to replace.
      const isWaitedFor = engines.has(member.url) && !membership.state(member).healthy;
      if (member.model === model.index && !isWaitedFor) engines.set(member.url, member);
    }
    return [...engines.values()].map((member) => {
      const present = this.#shelves.get(member);
      if (present !== undefined) return present;
      const shelf = new ReplicaShelf(member, model, membership, () => this.#demand);
      this.#shelves.set(member, shelf);
      return shelf;
    });
  }

  /** Takes note of its health, and asks what it has when that is due. */
  #follow(shelf: ReplicaShelf): void {
    shelf.follow();
    if (!shelf.isHealthy || shelf.isListing || shelf.loading !== undefined) return;
    if (nowMs() < shelf.listAtMs) return;
    shelf.listAtMs = nowMs() + this.#parts.config.health.interval;
    shelf.isListing = true;
    void this.#list(shelf);
  }

  async #list(shelf: ReplicaShelf): Promise<void> {
    const { turn } = shelf;
    // A replica that gives no list keeps what it had; its health is the health checker's to judge.
    const names = await this.#api.list(shelf.member).catch(() => undefined);
    shelf.isListing = false;
    // It may have loaded or lost something since it was asked.
    if (shelf.turn === turn && shelf.isHealthy && !this.#isStopped) shelf.listed(names);
    else shelf.listAtMs = 0;
  }

  #serve({ index, lora, adapters }: LoraModel, shelves: readonly ReplicaShelf[]): void {
    const loadable = new Set(loadableAdapters({ lora }));
    const wants: Want<ReplicaShelf>[] = [];
    for (const [key, { model, adapter, pin, sinceUs }] of this.#demand.waits) {
      const name = adapters[adapter - 1] as string;
      if (model !== index || !loadable.has(name)) continue;
      const only = shelves.find(({ member }) => member.row === pin);
      // Its replica leaves, and is given nothing new.
      if (pin >= 0 && only === undefined) continue;
      // Who is there now has waited so long, and not by what it did before: a retry begins to wait anew.
      const sinceMs = this.#sinceMs.get(key) ?? nowMs();
      this.#sinceMs.set(key, sinceMs);
      wants.push({ adapter: name, waitedMs: nowMs() - Math.max(sinceMs, sinceUs / 1000), only });
      for (const shelf of shelves) if (shelf.loaded.has(name)) this.#doubt(shelf);
    }
    if (wants.length === 0) return;
    for (const move of planLoads(wants, shelves, lora.max_loaded)) void this.#move(move, lora);
  }

  /** Somebody waits though the replica has the adapter: it may not have it any more. */
  #doubt(shelf: ReplicaShelf): void {
    shelf.listAtMs = Math.min(shelf.listAtMs, nowMs() + patienceMs);
  }

  #forgetEnded(): void {
    for (const key of [...this.#sinceMs.keys()]) {
      if (!this.#demand.waits.has(key)) this.#sinceMs.delete(key);
    }
  }

  async #move({ shelf, adapter, evicted }: Move<ReplicaShelf>, lora: Lora): Promise<void> {
    const { logger, metrics: writer } = this.#parts;
    const { member } = shelf;
    const startedMs = nowMs();
    shelf.begin(adapter);
    try {
      if (evicted !== undefined && !(await this.#giveUp(shelf, evicted, adapter, lora))) return;
      const { path } = lora.adapters.find(({ name }) => name === adapter) as { path: string };
      const limits = { timeoutMs: lora.load_timeout, signal: shelf.signal };
      await this.#api.load(member, lora.engine, { name: adapter, path }, limits);
      shelf.put(adapter);
      writer.addPair(metrics.loraLoads, member.row, Result.ok, 1);
      logger.info('adapter loaded', {
        ...{ replica: member.name, model: adapter, e2e_ms: nowMs() - startedMs },
      });
    } catch (error) {
      if (this.#isStopped) return;
      const isRefused = error instanceof LoraRefused;
      const pauseMs = isRefused ? lora.retry_after : patienceMs;
      shelf.failed(adapter, { untilMs: nowMs() + pauseMs, isRefused });
      writer.addPair(metrics.loraLoads, member.row, Result.failed, 1);
      const err = (error as Error).message;
      logger.warn('adapter not loaded', { replica: member.name, model: adapter, err });
    } finally {
      shelf.end();
      if (shelf.isGone) this.#listAgain(member);
    }
  }

  /** Whatever shelf its engine has now was not there when that was asked to load or give up something. */
  #listAgain({ url, model }: Member): void {
    for (const shelf of this.#shelves.values()) {
      if (shelf.member.url === url && shelf.member.model === model) shelf.listAtMs = 0;
    }
  }

  /**
   * Nobody is sent there for it any more, the last one has ended, then the engine gives it up. False: its
   * requests take too long, nobody waits for the other one any more, or the engine has not given it up.
   */
  async #giveUp(
    shelf: ReplicaShelf,
    adapter: string,
    wanted: string,
    lora: Lora,
  ): Promise<boolean> {
    const { logger } = this.#parts;
    const { member, signal } = shelf;
    shelf.take(adapter);
    if (!(await this.#isFree(shelf, adapter, wanted, lora))) {
      shelf.putBack(adapter);
      return false;
    }
    try {
      const limits = { timeoutMs: lora.load_timeout, signal };
      await this.#api.unload(member, lora.engine, adapter, limits);
    } catch (error) {
      const isRefused = error instanceof LoraRefused;
      // Else nobody knows whether it is there: the next list does.
      if (isRefused) shelf.putBack(adapter);
      else shelf.listAtMs = 0;
      const pauseMs = isRefused ? lora.retry_after : patienceMs;
      shelf.failed(wanted, { untilMs: nowMs() + pauseMs, isRefused: false });
      const err = (error as Error).message;
      logger.warn('adapter not given up', { replica: member.name, model: adapter, err });
      return false;
    }
    this.#parts.metrics.add(metrics.loraEvictions, member.row, 1);
    logger.info('adapter given up', { replica: member.name, model: adapter });
    return true;
  }

  /**
   * Resolves when no request runs there that needs the adapter, and none can come; false when that takes too
   * long, or is for nothing. A turn of the scheduler that began before its bit was gone may still send some: it
   * is over when two have begun since, and what it has sent shows in the next look at the slots.
   */
  async #isFree(
    shelf: ReplicaShelf,
    adapter: string,
    wanted: string,
    lora: Lora,
  ): Promise<boolean> {
    const { membership } = this.#parts;
    const { signal, member } = shelf;
    const limitMs = nowMs() + lora.load_timeout;
    const beats = membership.schedulerBeats;
    let seenAt = Number.POSITIVE_INFINITY;
    for (;;) {
      if (this.#looks > seenAt && !shelf.isUsed(adapter)) return true;
      if (signal.aborted || shelf.isGone || this.#isStopped) return false;
      if (this.#looks > seenAt && !this.#isWanted(member, wanted)) return false;
      if (nowMs() > limitMs) {
        // Not again before long: who asks for it now would be put off each time.
        const untilMs = nowMs() + lora.retry_after;
        shelf.drainLater(untilMs);
        return false;
      }
      if (seenAt === Number.POSITIVE_INFINITY && ((membership.schedulerBeats - beats) | 0) >= 2) {
        seenAt = this.#looks;
      }
      await sleep(pollMs, undefined, { ref: false });
    }
  }

  #isWanted({ model }: Member, name: string): boolean {
    const number = this.#models.find(({ index }) => index === model)?.numbers.get(name);
    return [...this.#demand.waits.values()].some(
      (wait) => wait.model === model && wait.adapter === number,
    );
  }
}

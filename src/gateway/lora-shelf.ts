/**
 * The adapters of one replica: what it has loaded, what it could not load lately, and its bits in the
 * replica table, which follow every change. Main thread.
 *
 * What it has is what it lists. An engine that has never listed an adapter, not even one that it has just
 * loaded, is believed by its answers alone. While a replica is unhealthy it has nothing.
 */
import { loadableAdapters } from '../config/adapters.ts';
import type { ModelConfig } from '../config/schema.ts';
import { BreakerState } from '../dispatch/breaker.ts';
import { nowMs } from '../lib/clock.ts';
import { ReplicaAdmin } from '../shm/replica-table.layout.ts';
import { isRoutable } from './handover.ts';
import type { Demand } from './lora-demand.ts';
import { patienceMs, type Shelf } from './lora-plan.ts';
import type { Member, Membership } from './membership.ts';

/** A model whose replicas load adapters. */
export interface LoraModel {
  readonly index: number;
  readonly lora: NonNullable<ModelConfig['lora']>;
  /** In the order of their numbers, and these by their names. */
  readonly adapters: readonly string[];
  readonly numbers: ReadonlyMap<string, number>;
}

interface Failure {
  readonly untilMs: number;
  /** By the engine; else it may be that it was not asked. */
  readonly isRefused: boolean;
}

export class ReplicaShelf implements Shelf {
  readonly member: Member;
  readonly loaded = new Set<string>();
  loading: string | undefined;
  isKnown = false;
  /** Grows with each change of what it has: a list that was asked for before it is old. */
  turn = 0;
  /** When it is asked next what it has; and it is being asked. */
  listAtMs = 0;
  isListing = false;
  isHealthy = false;
  /** It has left, or another row of its engine serves in its place. */
  isGone = false;
  readonly #model: LoraModel;
  readonly #membership: Membership;
  /** The last look at the slots. */
  readonly #demand: () => Demand;
  /** When each that it has was loaded, or found. */
  readonly #sinceMs = new Map<string, number>();
  /** Those of them that were loaded here for somebody who waited. */
  readonly #news = new Set<string>();
  readonly #failing = new Map<string, Failure>();
  /** Undefined: not known yet whether its lists have what it loads. */
  #listsLoaded: boolean | undefined;
  #ends = new AbortController();
  #drainAtMs = 0;

  constructor(member: Member, model: LoraModel, membership: Membership, demand: () => Demand) {
    this.member = member;
    this.#model = model;
    this.#membership = membership;
    this.#demand = demand;
  }

  get kept(): readonly string[] {
    return this.member.adapters;
  }

  get isRoutable(): boolean {
    return isRoutable({ ...this.member, ...this.#membership.state(this.member) });
  }

  get isReachable(): boolean {
    const { admin, healthy } = this.#membership.state(this.member);
    return healthy && (admin === ReplicaAdmin.active || admin === ReplicaAdmin.draining);
  }

  get mayDrain(): boolean {
    return nowMs() >= this.#drainAtMs;
  }

  get hasRoom(): boolean {
    const { inFlight, breaker } = this.#membership.state(this.member);
    return breaker === BreakerState.closed && inFlight < this.member.maxInFlight;
  }

  get load(): number {
    return this.#membership.state(this.member).inFlight / this.member.maxInFlight;
  }

  /** Ends what is asked of it once it is unhealthy. */
  get signal(): AbortSignal {
    return this.#ends.signal;
  }

  isFailing(adapter: string): boolean {
    return this.#failing.has(adapter);
  }

  isNew(adapter: string): boolean {
    if (!this.#news.has(adapter)) return false;
    const sinceMs = nowMs() - (this.#sinceMs.get(adapter) as number);
    return sinceMs < patienceMs && this.#unusedMs(adapter) >= sinceMs;
  }

  idleMs(adapter: string): number {
    return Math.min(nowMs() - (this.#sinceMs.get(adapter) ?? 0), this.#unusedMs(adapter));
  }

  isUsed(adapter: string): boolean {
    const { isUsed } = this.#demand();
    return this.#rows().some(({ row }) => isUsed(row, this.#number(adapter)));
  }

  /** A replica that went away may come back without what it had, and able to load what it could not. */
  follow(): void {
    const { healthy } = this.#membership.state(this.member);
    let isChanged = false;
    if (healthy !== this.isHealthy) {
      this.isHealthy = healthy;
      this.isKnown = false;
      this.listAtMs = 0;
      this.#listsLoaded = undefined;
      isChanged = this.loaded.size + this.#failing.size > 0;
      this.#failing.clear();
      if (!healthy) {
        this.loaded.clear();
        this.#ends.abort(new Error('it is unhealthy'));
        this.#ends = new AbortController();
      }
    }
    for (const [adapter, { untilMs }] of this.#failing) {
      if (nowMs() < untilMs) continue;
      this.#failing.delete(adapter);
      isChanged = true;
    }
    if (isChanged) this.#publish();
  }

  /** Names of its list; undefined: it gives none. */
  listed(names: ReadonlySet<string> | undefined): void {
    this.isKnown = true;
    if (names === undefined) return;
    const own = loadableAdapters(this.#model).filter(
      (name) => names.has(name) && !this.kept.includes(name),
    );
    if (own.length > 0) this.#listsLoaded = true;
    else if (this.#news.size > 0) this.#listsLoaded ??= false;
    if (this.#listsLoaded === false) return;
    const isSame = own.length === this.loaded.size && own.every((name) => this.loaded.has(name));
    if (isSame) return;
    for (const name of [...this.loaded]) if (!names.has(name)) this.loaded.delete(name);
    for (const name of own) this.#add(name);
    this.#publish();
  }

  begin(adapter: string): void {
    this.loading = adapter;
  }

  /** It has loaded the adapter. */
  put(adapter: string): void {
    this.#sinceMs.delete(adapter);
    this.#add(adapter);
    this.#news.add(adapter);
    if (this.#listsLoaded === undefined) this.listAtMs = 0;
    this.#publish();
  }

  /** Nobody is to be sent there for it any more. */
  take(adapter: string): void {
    this.loaded.delete(adapter);
    this.#publish();
  }

  /** What was taken has stayed there. */
  putBack(adapter: string): void {
    if (!this.isHealthy) return;
    this.#add(adapter);
    this.#publish();
  }

  failed(adapter: string, failure: Failure): void {
    this.#failing.set(adapter, failure);
    this.#publish();
  }

  /** What it has in use takes too long to be waited for. */
  drainLater(atMs: number): void {
    this.#drainAtMs = atMs;
  }

  end(): void {
    this.loading = undefined;
  }

  #add(adapter: string): void {
    this.loaded.add(adapter);
    if (!this.#sinceMs.has(adapter)) this.#sinceMs.set(adapter, nowMs());
  }

  #unusedMs(adapter: string): number {
    const number = this.#number(adapter);
    return Math.min(...this.#rows().map((row) => this.#membership.adapterIdleMs(row, number)));
  }

  #number(adapter: string): number {
    return this.#model.numbers.get(adapter) as number;
  }

  /** Its own, and those of what a reload has replaced by it and that still run: one engine serves them all. */
  #rows(): Member[] {
    const { url, model } = this.member;
    const isSame = (other: Member): boolean =>
      other !== this.member && other.url === url && other.model === model;
    return [this.member, ...[...this.#membership.leaving].filter(isSame)];
  }

  #publish(): void {
    this.turn++;
    for (const adapter of [...this.#sinceMs.keys()]) {
      if (this.loaded.has(adapter)) continue;
      this.#sinceMs.delete(adapter);
      this.#news.delete(adapter);
    }
    // Who waits for what an engine was not asked for, or did not answer, goes on waiting.
    const loadable = loadableAdapters(this.#model).filter(
      (name) => this.#failing.get(name)?.isRefused !== true,
    );
    for (const row of this.#rows()) this.#membership.setAdapters(row, [...this.loaded], loadable);
  }
}

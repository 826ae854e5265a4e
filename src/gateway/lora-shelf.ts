/**
 * The adapters of one replica: what it has loaded, what it could not load lately, and its bits in the
 * replica table, which follow every change. Main thread.
 */
import { loadableAdapters } from '../config/adapters.ts';
import type { ModelConfig } from '../config/schema.ts';
import { nowMs } from '../lib/clock.ts';
import { isRoutable } from './handover.ts';
import type { LoraDemand } from './lora-demand.ts';
import { patienceMs, type Shelf } from './lora-plan.ts';
import type { Member, Membership } from './membership.ts';

/** A model whose replicas load adapters. */
export interface LoraModel {
  readonly index: number;
  readonly lora: NonNullable<ModelConfig['lora']>;
  /** In the order of their numbers. */
  readonly adapters: readonly string[];
}

export class ReplicaShelf implements Shelf {
  readonly member: Member;
  readonly loaded = new Set<string>();
  loading: string | undefined;
  /** Grows with each change of what it has: a list that was asked for before it is old. */
  turn = 0;
  /** When it is asked next what it has. */
  listAtMs = 0;
  isHealthy = false;
  readonly #model: LoraModel;
  readonly #membership: Membership;
  readonly #demand: LoraDemand;
  readonly #failing = new Map<string, number>();
  /** When what it loaded was loaded, and how many attempts it had been given by then. */
  readonly #news = new Map<string, { readonly ms: number; readonly attempts: number }>();
  /** Undefined: not known yet whether its lists have what it loads. */
  #listsLoaded: boolean | undefined;

  constructor(member: Member, model: LoraModel, membership: Membership, demand: LoraDemand) {
    this.member = member;
    this.#model = model;
    this.#membership = membership;
    this.#demand = demand;
  }

  get kept(): readonly string[] {
    return this.member.adapters;
  }

  get isPresent(): boolean {
    return this.#membership.get(this.member.name) === this.member;
  }

  get isRoutable(): boolean {
    return isRoutable({ ...this.member, ...this.#membership.state(this.member) });
  }

  get isFull(): boolean {
    return this.#membership.state(this.member).inFlight >= this.member.maxInFlight;
  }

  get load(): number {
    return this.#membership.state(this.member).inFlight / this.member.maxInFlight;
  }

  isFailing(adapter: string): boolean {
    return this.#failing.has(adapter);
  }

  isNew(adapter: string): boolean {
    const news = this.#news.get(adapter);
    if (news === undefined || nowMs() - news.ms >= patienceMs) return false;
    const { dispatched } = this.#membership.state(this.member);
    return this.age(adapter) >= (dispatched - news.attempts) >>> 0;
  }

  age(adapter: string): number {
    return this.#membership.adapterAge(this.member, this.#number(adapter));
  }

  isUsed(adapter: string): boolean {
    const { row } = this.member;
    return this.#demand.running(row, this.#model.index, this.#number(adapter)) > 0;
  }

  /** A replica that went away may come back without what it had. */
  follow(): void {
    const { healthy } = this.#membership.state(this.member);
    let isChanged = false;
    if (healthy !== this.isHealthy) {
      this.isHealthy = healthy;
      this.listAtMs = 0;
      isChanged = !healthy && this.loaded.size > 0;
      if (!healthy) this.loaded.clear();
      this.#listsLoaded = undefined;
    }
    for (const [adapter, untilMs] of this.#failing) {
      if (nowMs() < untilMs) continue;
      this.#failing.delete(adapter);
      isChanged = true;
    }
    if (isChanged) this.#publish();
  }

  listed(names: ReadonlySet<string>): void {
    const [last] = [...this.loaded].slice(-1);
    if (last !== undefined) this.#listsLoaded ??= names.has(last);
    if (this.#listsLoaded === false) return;
    const own = loadableAdapters(this.#model).filter(
      (name) => names.has(name) && !this.kept.includes(name),
    );
    const isSame = own.length === this.loaded.size && own.every((name) => this.loaded.has(name));
    if (isSame) return;
    for (const name of [...this.loaded]) if (!names.has(name)) this.loaded.delete(name);
    for (const name of own) if (!this.loaded.has(name)) this.loaded.add(name);
    this.#publish();
  }

  begin(adapter: string): void {
    this.loading = adapter;
  }

  put(adapter: string): void {
    this.loaded.add(adapter);
    const { dispatched: attempts } = this.#membership.state(this.member);
    this.#news.set(adapter, { ms: nowMs(), attempts });
    if (this.#listsLoaded === undefined) this.listAtMs = 0;
    this.#publish();
  }

  take(adapter: string): void {
    this.loaded.delete(adapter);
    this.#news.delete(adapter);
    this.#publish();
  }

  failed(adapter: string, untilMs: number): void {
    this.#failing.set(adapter, untilMs);
    this.#publish();
  }

  end(): void {
    this.loading = undefined;
  }

  #number(adapter: string): number {
    return 1 + this.#model.adapters.indexOf(adapter);
  }

  #publish(): void {
    this.turn++;
    const loadable = loadableAdapters(this.#model).filter((name) => !this.#failing.has(name));
    this.#membership.setAdapters(this.member, [...this.loaded], loadable);
  }
}

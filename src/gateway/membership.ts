/**
 * Membership: which replicas there are, and the only writer of the main thread's columns of the
 * replica table. Runs on the main thread.
 *
 * A row is published in two steps: the forwarders learn the address first, the row becomes active
 * only then, so no request is ever dispatched to a row that a forwarder does not know. A removed row
 * is drained, forgotten and later reused under another epoch.
 */
import { adapterBits } from '../config/adapters.ts';
import { identityOf, rateTerms } from '../config/scheduling.ts';
import type { BreakerState } from '../dispatch/breaker.ts';
import { assert } from '../lib/assert.ts';
import { nowMs } from '../lib/clock.ts';
import type { EngineMetrics } from '../protocol/engine-metrics.ts';
import { OwnHeaders } from '../protocol/own-headers.ts';
import { ControlLayout, ThreadId } from '../shm/control.layout.ts';
import { ring } from '../shm/doorbell.ts';
import { controlCounts, replicaCounts, type SharedMemory } from '../shm/memory.ts';
import { ReplicaProgress } from '../shm/replica-progress.ts';
import { ReplicaAdmin, ReplicaTableLayout, replicaRows } from '../shm/replica-table.layout.ts';
import type { ReplicaAddress } from '../shm/threads.ts';

export interface ReplicaSpec {
  readonly name: string;
  readonly url: string;
  readonly api_key: string;
  readonly api_key_header?: string | undefined;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly weight: number;
  readonly max_in_flight: number;
  readonly prefill_us: number;
  readonly resident_us: number;
  readonly kv_tokens: number;
  readonly adapters: readonly string[];
  readonly batching?: Batching | undefined;
  readonly served_model_name?: string | undefined;
  readonly limits?: RateSource | undefined;
}

/** What its owner lets it be given. */
type RateSource = NonNullable<Parameters<typeof rateTerms>[0]>;

/** How completions for the replica are put together to one call. */
interface Batching {
  /** Milliseconds. */
  readonly window: number;
  readonly max_items: number;
  readonly max_bytes: number;
}

export interface Member extends ReplicaAddress {
  readonly model: number;
  readonly cost: Pick<
    ReplicaSpec,
    'prefill_us' | 'resident_us' | 'kv_tokens' | 'batching' | 'limits'
  >;
  /** Those it has from its start, and those it has loaded since. */
  readonly adapters: readonly string[];
  loaded: readonly string[];
  /** Version of the replica table when it was added: decisions made from a later one know it. */
  readonly addedAt: number;
  /** Ejections of its row before it, which were another replica's. */
  readonly ejectionsBefore: number;
  weight: number;
  /** Why the last probe failed; empty while healthy. */
  reason: string;
  /** What its engine said last, while that is not too old to count. */
  engine?: EngineMetrics | undefined;
}

/** What each request of this thread to the replica says: name, value, name, value ... */
export const ownHeadersOf = (member: Member): string[] => [...new OwnHeaders(member).list];

/** What this gateway has on a replica. */
export interface OwnLoad {
  readonly requests: number;
  readonly tokens: number;
}

export interface ReportTimes {
  readonly scrapedUs: number;
  readonly intervalUs: number;
}

export interface MemberState {
  readonly admin: ReplicaAdmin;
  readonly healthy: boolean;
  readonly inFlight: number;
  readonly breaker: BreakerState;
  /** Times its breaker has opened; wraps at 2^32. */
  readonly ejections: number;
  /** Attempts dispatched and failed since the gateway started; wraps at 2^32. */
  readonly dispatched: number;
  readonly failed: number;
}

export class Membership {
  readonly #members = new Map<string, Member>();
  /** Members that have given up their name and finish what they have. */
  readonly #leaving = new Set<Member>();
  readonly #words: Int32Array;
  readonly #floats: Float64Array;
  readonly #at = ReplicaTableLayout.place(replicaCounts).at;
  readonly #progress: ReplicaProgress;
  readonly #control: Int32Array;
  readonly #schedulerBell: number;
  readonly #schedulerBeats: number;
  readonly #adapterNames: readonly (readonly string[])[];
  readonly #loadableNames: readonly (readonly string[])[];

  /** Names of the adapters of each model in the order of their numbers, and of those that replicas load. */
  constructor(
    memory: SharedMemory,
    adapterNames: readonly (readonly string[])[] = [],
    loadableNames: readonly (readonly string[])[] = [],
  ) {
    this.#adapterNames = adapterNames;
    this.#loadableNames = loadableNames;
    ReplicaTableLayout.attach(memory.replicas, replicaCounts);
    this.#words = new Int32Array(memory.replicas);
    this.#floats = new Float64Array(memory.replicas);
    this.#progress = new ReplicaProgress(memory.replicas);
    this.#control = new Int32Array(memory.control);
    const { thread } = ControlLayout.place(controlCounts(memory.size)).at;
    const scheduler = thread.base + ThreadId.scheduler * thread.stride;
    this.#schedulerBell = scheduler + thread.at.bell;
    this.#schedulerBeats = scheduler + thread.at.beats;
  }

  [Symbol.iterator](): IterableIterator<Member> {
    return this.#members.values();
  }

  /** Those whose name may belong to another member by now. */
  get leaving(): Iterable<Member> {
    return this.#leaving;
  }

  /**
   * Changes at the start of a turn of the scheduler: once it has changed, every decision made from an
   * older state of the table shows in `inFlight`.
   */
  get schedulerBeats(): number {
    return Atomics.load(this.#control, this.#schedulerBeats);
  }

  get(name: string): Member | undefined {
    return this.#members.get(name);
  }

  /** Takes a free row for the replica; not routable before `activate`. Undefined: no row is free. */
  add(spec: ReplicaSpec, model: number): Member | undefined {
    assert(!this.#members.has(spec.name), 'replica names are unique');
    const row = this.#freeRow();
    if (row < 0) return undefined;
    const { at } = this.#at.replica;
    const base = this.#row(row);
    const epoch = (this.#words[base + at.epoch] ?? 0) + 1;
    this.#words[base + at.epoch] = epoch;
    this.#words[base + at.healthy] = 0;
    this.#words[base + at.model] = model;
    this.#words[base + at.maxInFlight] = spec.max_in_flight;
    this.#words[base + at.identity] = identityOf(spec.url);
    this.#words[base + at.kvTokens] = spec.kv_tokens;
    this.#words[base + at.batchItems] = spec.batching?.max_items ?? 0;
    this.#words[base + at.batchBytes] = spec.batching?.max_bytes ?? 0;
    this.#floats[(base + at.batchWindowUs) / 2] = (spec.batching?.window ?? 0) * 1000;
    const rate = rateTerms(spec.limits);
    this.#floats[(base + at.rateRequests) / 2] = rate?.requestsPerUs ?? 0;
    this.#floats[(base + at.rateTokens) / 2] = rate?.tokensPerUs ?? 0;
    this.#floats[(base + at.rateBurstUs) / 2] = rate?.burstUs ?? 0;
    this.#writeAdapters(row, model, spec.adapters, this.#loadableNames[model] ?? []);
    Atomics.store(this.#words, base + at.reports, 0);
    this.#floats[(base + at.weight) / 2] = spec.weight;
    this.#floats[(base + at.prefillUs) / 2] = spec.prefill_us;
    this.#floats[(base + at.residentUs) / 2] = spec.resident_us;
    const member: Member = {
      row,
      epoch,
      model,
      name: spec.name,
      url: spec.url,
      apiKey: spec.api_key,
      apiKeyHeader: spec.api_key_header,
      headers: spec.headers,
      weight: spec.weight,
      cost: {
        prefill_us: spec.prefill_us,
        resident_us: spec.resident_us,
        kv_tokens: spec.kv_tokens,
        batching: spec.batching,
        limits: spec.limits,
      },
      takesBatches: spec.batching !== undefined,
      maxInFlight: spec.max_in_flight,
      servedName: spec.served_model_name,
      adapters: spec.adapters,
      loaded: [],
      addedAt: Atomics.load(this.#words, this.#at.version),
      ejectionsBefore: Atomics.load(this.#words, base + at.ejections) >>> 0,
      reason: 'not probed yet',
    };
    this.#members.set(spec.name, member);
    const count = Math.max(Atomics.load(this.#words, this.#at.count), row + 1);
    Atomics.store(this.#words, this.#at.count, count);
    return member;
  }

  /** An adapter of the replica that the model had not when the gateway started. */
  unknownAdapter(spec: Pick<ReplicaSpec, 'adapters'>, model: number): string | undefined {
    return spec.adapters.find((name) => this.#adapterNames[model]?.includes(name) !== true);
  }

  /** Frees the name at once; the member serves on until it is drained and removed. */
  giveUpName(member: Member): void {
    assert(this.#members.get(member.name) === member, 'the name is its own');
    this.#members.delete(member.name);
    this.#leaving.add(member);
  }

  /** The forwarders know the address: the replica may take requests once it is healthy. */
  activate(member: Member): void {
    this.#write(member, this.#at.replica.at.admin, ReplicaAdmin.active);
  }

  /** No new requests but for what it keeps; those in flight finish. */
  drain(member: Member): void {
    this.#write(member, this.#at.replica.at.admin, ReplicaAdmin.draining);
  }

  /** No new requests at all: it is to be removed once those in flight have finished. */
  leave(member: Member): void {
    this.#write(member, this.#at.replica.at.admin, ReplicaAdmin.leaving);
  }

  setWeight(member: Member, weight: number): void {
    member.weight = weight;
    this.#floats[(this.#row(member.row) + this.#at.replica.at.weight) / 2] = weight;
    this.#changed();
  }

  /** What it has loaded beside those of its start, and what it would load. */
  setAdapters(member: Member, loaded: readonly string[], loadable: readonly string[]): void {
    if (this.#words[this.#row(member.row) + this.#at.replica.at.epoch] !== member.epoch) return;
    member.loaded = loaded;
    this.#writeAdapters(member.row, member.model, [...member.adapters, ...loaded], loadable);
    this.#changed();
  }

  /** Milliseconds since the row was given a request for the adapter; Infinity: it never was. */
  adapterIdleMs({ row }: Member, adapter: number): number {
    const { adapterUsedUs } = this.#at.replica.at;
    const usedUs = this.#floats[(this.#row(row) + adapterUsedUs) / 2 + adapter - 1] as number;
    // Below 0: the clocks of two threads differ by microseconds.
    return usedUs === 0 ? Number.POSITIVE_INFINITY : Math.max(0, nowMs() - usedUs / 1000);
  }

  setHealthy(member: Member, healthy: boolean, reason: string): void {
    member.reason = reason;
    this.#write(member, this.#at.replica.at.healthy, healthy ? 1 : 0);
  }

  ownLoad(member: Member): OwnLoad {
    const base = this.#row(member.row);
    const { at } = this.#at.replica;
    const requests = Atomics.load(this.#words, base + at.inFlight);
    return { requests, tokens: this.#floats[(base + at.contextTokens) / 2] as number };
  }

  /** What the engine said when it was asked at `scrapedUs`, and what was ours then. */
  report(member: Member, engine: EngineMetrics, own: OwnLoad, times: ReportTimes): void {
    const base = this.#row(member.row);
    const { at } = this.#at.replica;
    if (this.#words[base + at.epoch] !== member.epoch) return;
    member.engine = engine;
    const reports = (Atomics.load(this.#words, base + at.reports) + 1) | 0;
    const half = reports & 1;
    // A ratio says how many tokens there are only when somebody says of how many.
    const kvCapacity = engine.kvCapacity || member.cost.kv_tokens;
    this.#words[base + at.engineRunning + half] = engine.running;
    this.#words[base + at.engineWaiting + half] = engine.waiting;
    this.#words[base + at.engineKvTokens + half] = Math.round(engine.kvUsage * kvCapacity);
    this.#words[base + at.engineKvCapacity + half] = engine.kvCapacity;
    this.#words[base + at.engineOwnRequests + half] = own.requests;
    this.#floats[(base + at.engineOwnTokens) / 2 + half] = own.tokens;
    this.#floats[(base + at.scrapedUs) / 2 + half] = times.scrapedUs;
    this.#floats[(base + at.scrapeIntervalUs) / 2 + half] = times.intervalUs;
    // Publishes the half. Pairs with the load in ReplicaRows.readReports().
    Atomics.store(this.#words, base + at.reports, reports);
  }

  /** The row is given back; the caller has drained it and told the forwarders to forget it. */
  remove(member: Member): void {
    this.#write(member, this.#at.replica.at.admin, ReplicaAdmin.absent);
    if (!this.#leaving.delete(member)) this.#members.delete(member.name);
  }

  state(member: Member): MemberState {
    const base = this.#row(member.row);
    const { at } = this.#at.replica;
    const read = (field: number): number => Atomics.load(this.#words, base + field);
    return {
      admin: read(at.admin) as ReplicaAdmin,
      healthy: read(at.healthy) === 1,
      inFlight: read(at.inFlight),
      breaker: read(at.breaker) as BreakerState,
      ejections: read(at.ejections) >>> 0,
      dispatched: read(at.dispatched) >>> 0,
      failed: read(at.failed) >>> 0,
    };
  }

  /** When the replica last sent a byte of an answer. */
  progressUs(member: Member): number {
    return this.#progress.lastUs(member.row);
  }

  #row(row: number): number {
    assert(row >= 0 && row < replicaRows, 'row is in the table');
    return this.#at.replica.base + row * this.#at.replica.stride;
  }

  /** How many replicas could join now. */
  freeRows(): number {
    return this.#listFreeRows().length;
  }

  #freeRow(): number {
    return this.#listFreeRows()[0] ?? -1;
  }

  #listFreeRows(): number[] {
    const { at } = this.#at.replica;
    const taken = new Set([...this.#members.values(), ...this.#leaving].map(({ row }) => row));
    return Array.from({ length: replicaRows }, (_, row) => row).filter((row) => {
      const base = this.#row(row);
      const unused = Atomics.load(this.#words, base + at.admin) === ReplicaAdmin.absent;
      return unused && !taken.has(row) && Atomics.load(this.#words, base + at.inFlight) === 0;
    });
  }

  #write(member: Member, field: number, value: number): void {
    Atomics.store(this.#words, this.#row(member.row) + field, value);
    this.#changed();
  }

  #writeAdapters(
    row: number,
    model: number,
    has: readonly string[],
    loadable: readonly string[],
  ): void {
    const names = this.#adapterNames[model] ?? [];
    const { at } = this.#at.replica;
    this.#words.set(adapterBits(names, has), this.#row(row) + at.adapters);
    this.#words.set(adapterBits(names, loadable), this.#row(row) + at.loadable);
  }

  #changed(): void {
    Atomics.add(this.#words, this.#at.version, 1);
    ring(this.#control, this.#schedulerBell);
  }
}

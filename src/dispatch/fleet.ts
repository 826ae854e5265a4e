/**
 * Fleet: what the brain knows of each replica, by row of the replica table, and who may be picked.
 *
 * Membership (the row exists under this epoch), admin, health and pause are separate facts; routable
 * is derived: active, healthy, weight above 0. A candidate is routable, not paused, below its limit
 * and has no more than `holdTokens` to prefill. Every change of one of these goes through #refresh, so `candidates` never has to be
 * filtered at a pick. Limits count what is ours and are exact; a policy sees what other clients have
 * there as well (foreign-load.ts). Pure. A pause is what a replica asks for that answers "busy": it never ends
 * earlier than promised, a shorter one does not cut a longer one.
 */
import { assert } from '../lib/assert.ts';
import type { Pressure } from './admission.ts';
import type { BatchTerms } from './batches.ts';
import { Candidates, NONE, type ReplicaLoad } from './candidates.ts';
import { Filter, filterNames } from './choice.ts';
import { type EngineReport, ForeignLoad } from './foreign-load.ts';
import type { RingMember } from './hash-ring.ts';
import { Phase, type Requests } from './requests.ts';

export interface ReplicaFacts {
  /** Another epoch is another replica: nothing that was counted before belongs to it. */
  readonly epoch: number;
  readonly model: number;
  readonly active: boolean;
  readonly healthy: boolean;
  readonly maxInFlight: number;
  readonly weight: number;
  /** Hash of what names the replica; equal on every gateway. */
  readonly identity: number;
  /** Microseconds per prompt token of prefill, and per resident token and decode step. */
  readonly prefillUs: number;
  readonly residentUs: number;
  /** Tokens its KV cache holds; 0: what its engine reports, if it does. */
  readonly kvTokens: number;
  /** One bit for each adapter of the model that it has loaded, from adapter 1 on; absent: none. */
  readonly adapters?: Int32Array | undefined;
  /** Absent: it takes no batches. */
  readonly batching?: BatchTerms | undefined;
}

interface Replica extends ReplicaLoad {
  readonly row: number;
  readonly foreign: ForeignLoad;
  facts: ReplicaFacts;
  routable: boolean;
  /** What keeps it from being a candidate; NONE for one. */
  filter: Filter | typeof NONE;
  /** Attempts of ours, and the prompt tokens they keep resident. */
  ownRequests: number;
  ownTokens: number;
  inFlight: number;
  weight: number;
  pendingTokens: number;
  contextTokens: number;
  roomTokens: number;
  prefillUs: number;
  residentUs: number;
  /** Not picked before this time. */
  pausedUntilUs: number;
  /** Error it paused itself with. */
  pauseError: number;
}

/** Whether a request that no candidate can take may hope for one. */
export const Outlook = { none: 0, paused: 1, full: 2 } as const;
export type Outlook = (typeof Outlook)[keyof typeof Outlook];

const unused: ReplicaFacts = {
  ...{ epoch: 0, model: -1, active: false, healthy: false, maxInFlight: 0, weight: 0 },
  ...{ identity: 0, prefillUs: 0, residentUs: 0, kvTokens: 0 },
};

/** An engine preempts what does not fit: some room is left for estimates that are off. */
const kvShare = 0.95;

export class Fleet {
  /** Of the last outlook() that said `paused`: when the first of them resumes, and why it paused. */
  pauseEndUs = 0;
  pauseError = 0;
  /** When the next pause ends; Infinity when nobody is paused. */
  nextResumeUs = Number.POSITIVE_INFINITY;
  readonly #replicas: readonly Replica[];
  readonly #byModel: Replica[][];
  readonly #candidates: readonly Candidates[];
  readonly #scratch: Candidates;
  /** Members of each model that are no candidates, by Filter. */
  readonly #filtered: readonly Int32Array[];
  readonly #holdTokens: readonly number[];
  /** In flight, pending and context of each row, counted again. */
  readonly #recount: Float64Array;

  /** `holdTokens` of each model: a replica with more to prefill is no candidate. */
  constructor(rows: number, holdTokens: readonly number[]) {
    const models = holdTokens.length;
    this.#holdTokens = holdTokens;
    this.#recount = new Float64Array(3 * rows);
    this.#replicas = Array.from({ length: rows }, (_, row) => ({
      ...{ row, facts: unused, routable: false, pausedUntilUs: 0, pauseError: 0 },
      filter: NONE,
      ...{ foreign: new ForeignLoad(), ownRequests: 0, ownTokens: 0 },
      ...{ inFlight: 0, weight: 0, pendingTokens: 0, contextTokens: 0, roomTokens: 0 },
      ...{ prefillUs: 0, residentUs: 0 },
    }));
    this.#byModel = Array.from({ length: models }, () => []);
    this.#candidates = Array.from({ length: models }, () => new Candidates(rows));
    this.#scratch = new Candidates(rows);
    this.#filtered = holdTokens.map(() => new Int32Array(filterNames.length));
  }

  candidates(model: number): Candidates {
    return this.#candidates[model] as Candidates;
  }

  /** The candidates without those whose row is in `excluded`; valid until the next call. */
  candidatesWithout(model: number, excluded: (row: number) => boolean): Candidates {
    const all = this.candidates(model);
    this.#scratch.clear();
    for (let i = 0; i < all.length; i++) {
      const row = all.row[i] as number;
      if (!excluded(row)) this.#scratch.append(row, this.#at(row));
    }
    return this.#scratch;
  }

  epoch(row: number): number {
    return this.#at(row).facts.epoch;
  }

  model(row: number): number {
    return this.#at(row).facts.model;
  }

  /** Attempts of ours that it is running. */
  inFlight(row: number): number {
    return this.#at(row).ownRequests;
  }

  /** Prompt tokens of those attempts. */
  contextTokens(row: number): number {
    return this.#at(row).ownTokens;
  }

  get rows(): number {
    return this.#replicas.length;
  }

  /** Calls `changed` for each model whose routable replicas are others than before. */
  update(row: number, facts: ReplicaFacts, changed: (model: number) => void): void {
    const replica = this.#at(row);
    const { facts: before, routable: wasRoutable } = replica;
    assert(!facts.active || this.#byModel[facts.model] !== undefined, 'the model is known');
    if (before.model !== facts.model) {
      const old = this.#byModel[before.model];
      if (old !== undefined) {
        old.splice(old.indexOf(replica), 1);
        this.candidates(before.model).delete(row);
        this.#setFilter(replica, before.model, NONE);
      }
      this.#byModel[facts.model]?.push(replica);
    }
    if (before.epoch !== facts.epoch) {
      replica.ownRequests = replica.ownTokens = replica.pendingTokens = 0;
      replica.pausedUntilUs = 0;
      replica.foreign.forget();
    }
    replica.facts = facts;
    replica.weight = facts.weight;
    replica.prefillUs = facts.prefillUs;
    replica.residentUs = facts.residentUs;
    replica.routable = facts.active && facts.healthy && facts.weight > 0;
    this.#refresh(replica);
    const isAnother = before.identity !== facts.identity || before.model !== facts.model;
    if (wasRoutable && (isAnother || !replica.routable)) changed(before.model);
    if (replica.routable && (isAnother || !wasRoutable)) changed(facts.model);
  }

  /** Takes the last report of the replica's engine. True when its load or its room has changed. */
  report(row: number, report: EngineReport, nowUs: number): boolean {
    const replica = this.#at(row);
    const isMember = this.#byModel[replica.facts.model] !== undefined;
    if (!isMember || !replica.foreign.update(report, nowUs)) return false;
    this.#refresh(replica);
    return true;
  }

  /** Members of the model as the ring knows them: routable, whatever their load. */
  members(model: number): RingMember[] {
    const replicas = (this.#byModel[model] as Replica[]).filter(({ routable }) => routable);
    return replicas.map(({ row, facts: { identity } }) => ({ row, identity }));
  }

  memberCount(model: number): number {
    return (this.#byModel[model] as Replica[]).length;
  }

  /**
   * Members of the model that are no candidates, by Filter. Those that are left out for one request
   * alone are counted by whoever does so.
   */
  filtered(model: number): Int32Array {
    return this.#filtered[model] as Int32Array;
  }

  /** Tokens its KV cache holds; 0: not known. */
  kvTokens(row: number): number {
    const { facts, foreign } = this.#at(row);
    return facts.kvTokens || foreign.kvCapacity;
  }

  hasAdapter(row: number, adapter: number): boolean {
    if (adapter === 0) return true;
    const bit = adapter - 1;
    const word = this.#at(row).facts.adapters?.[bit >>> 5] ?? 0;
    return ((word >>> (bit & 31)) & 1) === 1;
  }

  /** What it takes in one call; undefined: one request. */
  batching(row: number): BatchTerms | undefined {
    return this.#at(row).facts.batching;
  }

  load(row: number): ReplicaLoad {
    return this.#at(row);
  }

  /**
   * Until the replicas of the model could have shown the first token of `tokens` more prompt tokens,
   * if the work they have were spread evenly: a lower bound, microseconds. 0 without replicas.
   */
  waitUs(model: number, tokens: number): number {
    let workUs = 0;
    let prefillUs = 0;
    let count = 0;
    for (const replica of this.#byModel[model] as Replica[]) {
      if (!replica.routable) continue;
      workUs += replica.pendingTokens * replica.prefillUs;
      prefillUs += replica.prefillUs;
      count++;
    }
    return count === 0 ? 0 : (workUs + (tokens * prefillUs) / count) / count;
  }

  /** Routable replicas of the model, and how full their caches are. Off the hot path. */
  pressure(model: number, waiting: number): Pressure {
    const pressure = { waiting, replicas: 0, contextTokens: 0, kvTokens: 0 };
    for (const replica of this.#byModel[model] as Replica[]) {
      if (!replica.routable) continue;
      pressure.replicas++;
      pressure.contextTokens += replica.contextTokens;
      pressure.kvTokens += this.kvTokens(replica.row);
    }
    return pressure;
  }

  /** Recounts what the running requests hold of each replica. */
  assertExact({ phase, replica: rows, epoch, pendingTokens, contextTokens }: Requests): void {
    const counts = this.#recount.fill(0);
    for (let slot = 0; slot < phase.length; slot++) {
      const row = rows[slot] as number;
      if (phase[slot] !== Phase.running || this.epoch(row) !== epoch[slot]) continue;
      counts[3 * row] = (counts[3 * row] as number) + 1;
      counts[3 * row + 1] = (counts[3 * row + 1] as number) + (pendingTokens[slot] as number);
      counts[3 * row + 2] = (counts[3 * row + 2] as number) + (contextTokens[slot] as number);
    }
    for (const { row, ownRequests, pendingTokens, ownTokens } of this.#replicas) {
      assert(ownRequests === counts[3 * row], 'in-flight is what the requests hold');
      assert(pendingTokens === counts[3 * row + 1], 'pending is what the requests wait for');
      assert(ownTokens === counts[3 * row + 2], 'context is what the requests keep');
    }
    for (const [model, candidates] of this.#candidates.entries()) {
      const filtered = this.filtered(model)
        .subarray(0, Filter.noKvRoom)
        .reduce((sum, count) => sum + count, 0);
      const isWhole = candidates.length + filtered === this.memberCount(model);
      assert(isWhole, 'who is no candidate is filtered by one reason');
    }
  }

  /** Counts an attempt that starts now. */
  take(row: number, pendingTokens: number, contextTokens: number): void {
    const replica = this.#at(row);
    assert(replica.routable, 'only a routable replica is picked');
    assert(replica.ownRequests < replica.facts.maxInFlight, 'a full replica is no candidate');
    this.#add(replica, 1, pendingTokens, contextTokens);
  }

  /** Counts an attempt that a predecessor of this brain had started. */
  restore(row: number, epoch: number, pendingTokens: number, contextTokens: number): void {
    const replica = this.#at(row);
    if (replica.facts.epoch === epoch) this.#add(replica, 1, pendingTokens, contextTokens);
  }

  /** The prefill of an attempt that was counted under `epoch` is over. */
  prefilled(row: number, epoch: number, pendingTokens: number): void {
    const replica = this.#at(row);
    if (replica.facts.epoch === epoch) this.#add(replica, 0, -pendingTokens, 0);
  }

  /** The end of an attempt that was counted under `epoch`. */
  release(row: number, epoch: number, contextTokens: number): void {
    const replica = this.#at(row);
    if (replica.facts.epoch === epoch) this.#add(replica, -1, 0, -contextTokens);
  }

  #add(replica: Replica, requests: number, pendingTokens: number, contextTokens: number): void {
    replica.ownRequests += requests;
    replica.pendingTokens += pendingTokens;
    replica.ownTokens += contextTokens;
    assert(replica.ownRequests >= 0, 'what is released was taken');
    assert(replica.pendingTokens >= 0, 'what is prefilled was pending');
    assert(replica.ownTokens >= 0, 'what is released was resident');
    this.#refresh(replica);
  }

  pause(row: number, epoch: number, untilUs: number, error: number): void {
    const replica = this.#at(row);
    if (replica.facts.epoch !== epoch || untilUs <= replica.pausedUntilUs) return;
    replica.pausedUntilUs = untilUs;
    replica.pauseError = error;
    this.nextResumeUs = Math.min(this.nextResumeUs, untilUs);
    this.#refresh(replica);
  }

  /** Ends the pauses that are over; calls `resumed` with the model of each such replica. */
  resume(nowUs: number, resumed: (model: number) => void): void {
    if (nowUs < this.nextResumeUs) return;
    this.nextResumeUs = Number.POSITIVE_INFINITY;
    for (const replica of this.#replicas) {
      if (replica.pausedUntilUs === 0) continue;
      if (replica.pausedUntilUs > nowUs) {
        this.nextResumeUs = Math.min(this.nextResumeUs, replica.pausedUntilUs);
        continue;
      }
      replica.pausedUntilUs = 0;
      this.#refresh(replica);
      if (replica.facts.model >= 0) resumed(replica.facts.model);
    }
  }

  /**
   * Off the hot path. none: no routable replica but excluded ones. paused: all others are paused.
   * full: one of them will have room when it finishes something.
   */
  outlook(model: number, excluded: (row: number) => boolean): Outlook {
    let outlook: Outlook = Outlook.none;
    this.pauseEndUs = Number.POSITIVE_INFINITY;
    for (const replica of this.#byModel[model] as Replica[]) {
      if (!replica.routable || excluded(replica.row)) continue;
      if (replica.pausedUntilUs === 0) return Outlook.full;
      outlook = Outlook.paused;
      if (replica.pausedUntilUs < this.pauseEndUs) {
        this.pauseEndUs = replica.pausedUntilUs;
        this.pauseError = replica.pauseError;
      }
    }
    return outlook;
  }

  #at(row: number): Replica {
    const replica = this.#replicas[row];
    assert(replica !== undefined, 'the row is in the table');
    return replica;
  }

  #refresh(replica: Replica): void {
    const { facts, row, ownRequests, ownTokens, foreign } = replica;
    replica.inFlight = ownRequests + foreign.requests;
    replica.contextTokens = ownTokens + foreign.tokens;
    // With nothing of ours a replica takes anything: what does not fit there fits nowhere, and is its
    // to refuse. So what others have there can delay requests and never stop them.
    // Only a size that was configured limits: a prompt whose beginning is shared counts in full here.
    const kvTokens = ownRequests === 0 ? 0 : facts.kvTokens;
    replica.roomTokens =
      kvTokens === 0 ? Number.POSITIVE_INFINITY : kvShare * kvTokens - replica.contextTokens;
    const candidates = this.#candidates[facts.model];
    if (candidates === undefined) return;
    const filter = this.#filterOf(replica);
    if (filter !== replica.filter) this.#setFilter(replica, facts.model, filter);
    if (filter === NONE) candidates.set(row, replica);
    else candidates.delete(row);
  }

  #filterOf(replica: Replica): Filter | typeof NONE {
    const { facts, ownRequests, pendingTokens } = replica;
    if (!replica.routable) return Filter.notRoutable;
    if (replica.pausedUntilUs !== 0) return Filter.paused;
    if (ownRequests >= facts.maxInFlight) return Filter.full;
    const isHeld = ownRequests > 0 && pendingTokens > (this.#holdTokens[facts.model] as number);
    return isHeld ? Filter.held : NONE;
  }

  #setFilter(replica: Replica, model: number, filter: Filter | typeof NONE): void {
    const counts = this.filtered(model);
    if (replica.filter !== NONE) counts[replica.filter] = (counts[replica.filter] as number) - 1;
    if (filter !== NONE) counts[filter] = (counts[filter] as number) + 1;
    replica.filter = filter;
  }
}

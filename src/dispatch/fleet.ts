/**
 * Fleet: every replica by its row of the replica table, in the cluster of its model. Pure.
 *
 * What is counted of a replica belongs to an epoch of its row: what began under another one changes
 * nothing when it ends. Of what a replica did, only an attempt of the breaker's term is judged.
 */
import { assert } from '../lib/assert.ts';
import type { BatchTerms } from './batches.ts';
import { BreakerState } from './breaker.ts';
import { Candidates, NONE, type ReplicaLoad } from './candidates.ts';
import { Cluster } from './cluster.ts';
import { type BrainConfig, Verdict } from './decisions.ts';
import type { EngineReport } from './foreign-load.ts';
import { type ReplicaFacts, ReplicaState } from './replica-state.ts';
import type { AttemptCost, Requests } from './requests.ts';

export class Fleet {
  /** When the next pause, ejection or slow start ends; Infinity when there is none. */
  nextResumeUs = Number.POSITIVE_INFINITY;
  readonly rows: number;
  readonly #replicas: readonly ReplicaState[];
  readonly #clusters: readonly Cluster[];
  readonly #scratch: Candidates;
  /** In flight, pending and context of each row, counted again. */
  readonly #recount: Float64Array;

  constructor({ replicaRows: rows, models, breaker, slowStartUs }: BrainConfig) {
    this.rows = rows;
    this.#replicas = Array.from({ length: rows }, (_, row) => new ReplicaState(row, breaker));
    this.#clusters = models.map(
      ({ holdTokens }) => new Cluster(rows, { holdTokens, breaker, slowStartUs }),
    );
    this.#scratch = new Candidates(rows);
    this.#recount = new Float64Array(3 * rows);
  }

  cluster(model: number): Cluster {
    const cluster = this.#clusters[model];
    assert(cluster !== undefined, 'the model is known');
    return cluster;
  }

  candidates(model: number): Candidates {
    return this.cluster(model).candidates;
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

  /** The replica alone, if it has room and the row is that of `epoch`; valid until the next call. */
  only(row: number, epoch: number): Candidates {
    const replica = this.#at(row);
    const cluster = this.#clusters[replica.facts.model];
    this.#scratch.clear();
    if (replica.facts.epoch !== epoch || cluster === undefined) return this.#scratch;
    const { candidates, reserved } = cluster;
    const hasRoom = candidates.indexOf(row) !== NONE || reserved.indexOf(row) !== NONE;
    if (hasRoom) this.#scratch.append(row, replica);
    return this.#scratch;
  }

  /** The replica that had the row under `epoch` has not left. */
  isMember(row: number, epoch: number): boolean {
    const { facts, isMember } = this.#at(row);
    return facts.epoch === epoch && facts.model >= 0 && isMember;
  }

  /** Another row of the replica that had this one under `epoch` and is leaving it; NONE: it has none. */
  successor(row: number, epoch: number): number {
    const { facts } = this.#at(row);
    if (facts.epoch !== epoch) return NONE;
    const members = this.#clusters[facts.model]?.members ?? [];
    const isSame = (other: ReplicaState): boolean =>
      other.row !== row && other.isMember && other.facts.identity === facts.identity;
    return members.find(isSame)?.row ?? NONE;
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

  /** Tokens its KV cache holds; 0: not known. */
  kvTokens(row: number): number {
    return this.#at(row).kvTokens;
  }

  /** Its KV cache limits what it is given. */
  isKvLimited(row: number): boolean {
    return this.#at(row).facts.kvTokens > 0;
  }

  hasAdapter(row: number, adapter: number): boolean {
    return adapter === 0 || this.#at(row).hasAdapter(adapter);
  }

  /** It has the adapter, or loads it when a request waits for it. */
  couldServe(row: number, adapter: number): boolean {
    return this.#at(row).couldServe(adapter);
  }

  /** With `facts` the replica of the row could not serve some adapter that it could load before. */
  losesAdapter(row: number, facts: ReplicaFacts): boolean {
    return this.#at(row).losesAdapter(facts);
  }

  /** Some replica of the model that may be given requests, whatever its health, is not `excluded`. */
  isServed(model: number, excluded: (row: number) => boolean): boolean {
    return this.cluster(model).members.some(({ isActive, row }) => isActive && !excluded(row));
  }

  /** What it takes in one call; undefined: one request. */
  batching(row: number, nowUs: number): BatchTerms | undefined {
    const { facts, batchesAtUs } = this.#at(row);
    return nowUs < batchesAtUs ? undefined : facts.batching;
  }

  /** A batch there has come to nothing: the next requests go one by one. */
  pauseBatching(row: number, epoch: number, untilUs: number): void {
    const replica = this.#at(row);
    if (replica.facts.epoch === epoch) replica.batchesAtUs = untilUs;
  }

  load(row: number): ReplicaLoad {
    return this.#at(row);
  }

  breakerState(row: number): BreakerState {
    return this.#at(row).breaker.state;
  }

  /** Term of its breaker, which what begins belongs to. */
  term(row: number): number {
    return this.#at(row).breaker.term;
  }

  /** Calls `changed` for each model whose routable replicas are others than before. */
  update(row: number, facts: ReplicaFacts, nowUs: number, changed: (model: number) => void): void {
    const replica = this.#at(row);
    const { facts: before, routable: wasRoutable } = replica;
    assert(!facts.active || this.#clusters[facts.model] !== undefined, 'the model is known');
    if (before.model !== facts.model) this.#clusters[before.model]?.remove(replica);
    replica.set(facts);
    const cluster = this.#clusters[facts.model];
    if (before.model !== facts.model) cluster?.add(replica);
    const isAnother = before.identity !== facts.identity || before.model !== facts.model;
    const left = wasRoutable && (isAnother || !replica.routable);
    const joined = replica.routable && (isAnother || !wasRoutable);
    if (left) cluster?.slowStart.end(row);
    if (joined) this.#start(replica, nowUs);
    cluster?.refreshAll(replica, nowUs);
    if (left) changed(before.model);
    if (joined) changed(facts.model);
  }

  /** Takes the last report of the replica's engine. True when its load or its room has changed. */
  report(row: number, report: EngineReport, nowUs: number): boolean {
    const replica = this.#at(row);
    const cluster = this.#clusters[replica.facts.model];
    if (cluster === undefined || !replica.foreign.update(report, nowUs)) return false;
    cluster.refresh(replica);
    return true;
  }

  /** Counts an attempt that starts now. */
  take(row: number, cost: AttemptCost, nowUs: number): void {
    const { pendingTokens, contextTokens, outputTokens } = cost;
    const replica = this.#at(row);
    assert(replica.reachable, 'only a replica that answers is picked');
    assert(replica.ownRequests < replica.facts.maxInFlight, 'a full replica is no candidate');
    replica.breaker.took(nowUs);
    this.#note(replica.breaker.moreAtUs);
    replica.add(1, pendingTokens, contextTokens);
    replica.limitBy(contextTokens + outputTokens, nowUs);
    this.#note(replica.limitedUntilUs);
    this.#clusters[replica.facts.model]?.took(replica, nowUs);
  }

  /** An attempt that was taken under `epoch` came to so many tokens more, or less. */
  cameTo(row: number, epoch: number, tokens: number, nowUs: number): void {
    const replica = this.#at(row);
    if (replica.facts.epoch !== epoch) return;
    replica.correctLimit(tokens, nowUs);
    this.#note(replica.limitedUntilUs);
  }

  /** Counts an attempt that a predecessor of this brain had started. */
  restore(row: number, epoch: number, pendingTokens: number, contextTokens: number): void {
    this.#add(row, epoch, 1, pendingTokens, contextTokens);
  }

  /** The prefill of an attempt that was counted under `epoch` is over. */
  prefilled(row: number, epoch: number, pendingTokens: number): void {
    this.#add(row, epoch, 0, -pendingTokens, 0);
  }

  /** The end of an attempt that was counted under `epoch` and is of `term`. */
  release(row: number, epoch: number, term: number, contextTokens: number): void {
    const replica = this.#at(row);
    if (replica.facts.epoch === epoch) replica.breaker.released(term);
    this.#add(row, epoch, -1, 0, -contextTokens);
  }

  #add(
    row: number,
    epoch: number,
    requests: number,
    pendingTokens: number,
    contextTokens: number,
  ): void {
    const replica = this.#at(row);
    if (replica.facts.epoch !== epoch) return;
    replica.add(requests, pendingTokens, contextTokens);
    this.#clusters[replica.facts.model]?.refresh(replica);
  }

  /** An attempt of `term` has shown its first token. Returns the term it is of from here on. */
  answered(row: number, epoch: number, term: number, nowUs: number): number {
    const replica = this.#at(row);
    if (replica.facts.epoch !== epoch || !replica.breaker.succeeded(term)) return term;
    this.#onBreaker(replica, nowUs);
    return replica.breaker.term;
  }

  /** What an attempt of `term` has come to says something of its replica. */
  judge(row: number, epoch: number, term: number, verdict: Verdict, nowUs: number): void {
    const replica = this.#at(row);
    const cluster = this.#clusters[replica.facts.model];
    if (verdict === Verdict.none || replica.facts.epoch !== epoch || cluster === undefined) return;
    const isBad = verdict === Verdict.bad;
    if (replica.breaker.ended(term, isBad, nowUs, !isBad || cluster.mayEject)) {
      this.#onBreaker(replica, nowUs);
    }
  }

  pause(row: number, epoch: number, untilUs: number, error: number): void {
    const replica = this.#at(row);
    if (replica.facts.epoch !== epoch || untilUs <= replica.pausedUntilUs) return;
    replica.pausedUntilUs = untilUs;
    replica.pauseError = error;
    this.#note(untilUs);
    this.#clusters[replica.facts.model]?.refresh(replica);
  }

  /** Ends what is over; calls `resumed` with the model of each replica that feels it. */
  resume(nowUs: number, resumed: (model: number) => void): void {
    if (nowUs < this.nextResumeUs) return;
    this.nextResumeUs = Number.POSITIVE_INFINITY;
    for (const replica of this.#replicas) {
      const cluster = this.#clusters[replica.facts.model];
      if (cluster === undefined || !this.#resume(replica, cluster, nowUs)) continue;
      cluster.refreshAll(replica, nowUs);
      resumed(replica.facts.model);
    }
  }

  /** Recounts what the running requests hold of each replica. */
  assertExact(requests: Requests): void {
    const { replica: rows, epoch, pendingTokens, contextTokens } = requests;
    const counts = this.#recount.fill(0);
    for (let place = 0; place < rows.length; place++) {
      const row = rows[place] as number;
      if (!requests.holds(place) || this.epoch(row) !== epoch[place]) continue;
      counts[3 * row] = (counts[3 * row] as number) + 1;
      counts[3 * row + 1] = (counts[3 * row + 1] as number) + (pendingTokens[place] as number);
      counts[3 * row + 2] = (counts[3 * row + 2] as number) + (contextTokens[place] as number);
    }
    for (const { row, ownRequests, pendingTokens, ownTokens } of this.#replicas) {
      assert(ownRequests === counts[3 * row], 'in-flight is what the requests hold');
      assert(pendingTokens === counts[3 * row + 1], 'pending is what the requests wait for');
      assert(ownTokens === counts[3 * row + 2], 'context is what the requests keep');
    }
    for (const cluster of this.#clusters) cluster.assertExact();
  }

  #resume(replica: ReplicaState, { slowStart }: Cluster, nowUs: number): boolean {
    const { breaker, pausedUntilUs, row } = replica;
    const isPauseOver = pausedUntilUs !== 0 && pausedUntilUs <= nowUs;
    if (isPauseOver) replica.pausedUntilUs = 0;
    const isLimitOver = replica.limitedUntilUs !== 0 && replica.limitedUntilUs <= nowUs;
    if (isLimitOver) replica.limitedUntilUs = 0;
    const isTimeOver = breaker.tick(nowUs);
    if (isTimeOver && breaker.state === BreakerState.closed) this.#start(replica, nowUs);
    const isStarted = slowStart.expire(row, nowUs);
    this.#note(replica.pausedUntilUs);
    this.#note(replica.limitedUntilUs);
    this.#note(breaker.openUntilUs);
    this.#note(breaker.moreAtUs);
    this.#note(slowStart.endUs(row));
    return isPauseOver || isLimitOver || isTimeOver || isStarted;
  }

  /** Its breaker has changed by what it did. */
  #onBreaker(replica: ReplicaState, nowUs: number): void {
    const { breaker, facts, row } = replica;
    this.#note(breaker.openUntilUs);
    if (breaker.state === BreakerState.closed) this.#start(replica, nowUs);
    else this.#clusters[facts.model]?.slowStart.end(row);
    this.#clusters[facts.model]?.refreshAll(replica, nowUs);
  }

  /** Its caches are cold, and it is the emptiest of all. */
  #start({ row, facts }: ReplicaState, nowUs: number): void {
    this.#note(this.#clusters[facts.model]?.slowStart.begin(row, nowUs) ?? 0);
  }

  /** Something ends at `untilUs`; 0: nothing does. */
  #note(untilUs: number): void {
    if (untilUs !== 0) this.nextResumeUs = Math.min(this.nextResumeUs, untilUs);
  }

  #at(row: number): ReplicaState {
    const replica = this.#replicas[row];
    assert(replica !== undefined, 'the row is in the table');
    return replica;
  }
}

/**
 * Placement: which of the candidates gets a request. Pure; nothing is allocated per request.
 *
 * Filter, score, pick: those that have the adapter and room in their KV cache, what each already holds of
 * the prompt, then the ring for a request of a session or the policy of the model. What the choice costs
 * its replica is left in `pendingTokens` and `contextTokens`; commit() tells the prefix index.
 */
import { assert } from '../lib/assert.ts';
import { bytesPerTokenStart, Estimates } from '../lib/estimates.ts';
import { createPrng } from '../lib/prng.ts';
import type { Arrival } from './arrival.ts';
import { Candidates, NONE } from './candidates.ts';
import { type Choice, Filter, filterNames } from './choice.ts';
import type { Cluster } from './cluster.ts';
import type { BrainConfig, Release } from './decisions.ts';
import type { Fleet } from './fleet.ts';
import type { Passing } from './passing.ts';
import type { Pins } from './pins.ts';
import type { PickRequest, Policy } from './policies/policy.ts';
import { PrefixAffinity } from './policies/prefix-affinity.ts';
import { policyFactory } from './policies/registry.ts';
import { PrefixIndex } from './prefix-index.ts';
import type { Requests } from './requests.ts';
import { SharedBlocks } from './shared-blocks.ts';

/** What an index remembers of a replica over what it holds: less costs hits (ALGORITHMS 3). */
const rememberedShare = 2;
/** KV tokens of a replica that does not say: an 8B model on one 80 GB card (ALGORITHMS 4). */
const kvTokensAssumed = 448_000;
/** Records of the index; the blocks of 64 such replicas, an eighth of them at depths of their own. */
const indexRecords = 32_768;

type Writable<T> = { -readonly [K in keyof T]: T[K] };

export class Placement {
  /** Of the last choice: tokens to prefill, tokens that stay resident, expected tokens of the answer. */
  pendingTokens = 0;
  contextTokens = 0;
  outputTokens = 0;
  readonly #estimates: readonly Estimates[];
  readonly #config: BrainConfig;
  readonly #requests: Requests;
  readonly #fleet: Fleet;
  readonly #passing: Passing;
  readonly #pins: Pins;
  readonly #policies: readonly Policy[];
  readonly #rings: readonly (PrefixAffinity | undefined)[];
  readonly #index: PrefixIndex | undefined;
  /** Only where a replica's KV cache limits what it is given. */
  #shared: SharedBlocks | undefined;
  readonly #fitting: Candidates;
  /** The cluster that is chosen from, while replicas of it start and others are asked first. */
  #starting: Cluster | undefined;
  readonly #request: PickRequest;
  readonly #choice: Writable<Choice>;

  constructor(config: BrainConfig, requests: Requests, fleet: Fleet, passing: Passing, pins: Pins) {
    const { models, replicaRows, seed } = config;
    this.#config = config;
    this.#requests = requests;
    this.#fleet = fleet;
    this.#passing = passing;
    this.#pins = pins;
    this.#estimates = models.map(() => new Estimates());
    this.#policies = models.map(({ policy }, model) => {
      const factory = policyFactory(policy);
      assert(factory !== undefined, `policy ${policy} is known`);
      return factory(createPrng(seed + model));
    });
    this.#rings = models.map((rules) => (rules.sessionAffinity ? new PrefixAffinity() : undefined));
    const needsIndex = this.#policies.some((policy) => policy.needsPrefix === true);
    this.#index = needsIndex ? new PrefixIndex(replicaRows, indexRecords) : undefined;
    this.#fitting = new Candidates(replicaRows);
    const matched = new Int32Array(replicaRows);
    this.#request = { promptTokens: 0, outputTokens: 0, matched, key0: 0, key1: 0 };
    this.#choice = {
      ...{ candidates: this.#fitting, index: NONE, request: this.#request, members: 0 },
      ...{
        isMatched: false,
        isBySession: false,
        isPinned: false,
        filtered: new Int32Array(filterNames.length),
      },
    };
  }

  /** What the last choice was made from; valid until its request is counted. */
  get choice(): Choice {
    return this.#choice;
  }

  /** What is known of a replica has changed; `isAnother`: its row stands for another one now. */
  setReplica(row: number, isAnother: boolean): void {
    if (isAnother) {
      this.#index?.forget(row);
      this.#shared?.forget(row);
    }
    if (this.#fleet.isKvLimited(row)) this.#shared ??= this.#createShared();
    const kvTokens = this.#fleet.kvTokens(row) || kvTokensAssumed;
    this.#index?.setLimit(row, this.#blocksOf(kvTokens) * rememberedShare);
  }

  /** Replicas of the model have come or gone. */
  setMembers(model: number): void {
    const members = this.#fleet.cluster(model).ringMembers();
    this.#policies[model]?.setMembers?.(members);
    this.#rings[model]?.setMembers(members);
  }

  /** Tokens of the request's prompt, as far as they are known. */
  promptTokens({ model, textBytes, promptTokens }: Arrival): number {
    if (promptTokens > 0) return promptTokens;
    return (this.#estimates[model] as Estimates).promptTokens(textBytes);
  }

  /** The attempt of the slot has ended; the replica says what it came to. */
  learn(slot: number, { promptTokens, completionTokens }: Release): void {
    const { learntBytes, model } = this.#requests;
    const estimates = this.#estimates[model[slot] as number] as Estimates;
    estimates.learn(learntBytes[slot] as number, promptTokens, completionTokens);
  }

  /** The most that a candidate of its model holds of the request's prompt, tokens. */
  cachedTokens(slot: number): number {
    const model = this.#requests.model[slot] as number;
    if (this.#policies[model]?.needsPrefix !== true) return 0;
    const candidates = this.#fleet.candidates(model);
    this.#request.promptTokens = this.#requests.promptTokens[slot] as number;
    this.#match(slot, candidates, this.#estimates[model] as Estimates);
    let most = 0;
    for (let i = 0; i < candidates.length; i++) {
      most = Math.max(most, this.#request.matched[i] as number);
    }
    return most;
  }

  /**
   * The row to give the request; NONE when no candidate that has its adapter has room. `leftOut` is why
   * `candidates` are not all of the model. Where the choice of the policy comes to its first token after
   * `leftUs`, the soonest takes its place.
   */
  choose(slot: number, candidates: Candidates, leftOut: Filter, leftUs: number): number {
    const { promptTokens, maxTokens, model: models, session, head } = this.#requests;
    const model = models[slot] as number;
    const estimates = this.#estimates[model] as Estimates;
    const request = this.#request;
    request.promptTokens = promptTokens[slot] as number;
    request.outputTokens = estimates.expectedOutput(maxTokens[slot] as number);
    const cluster = this.#fleet.cluster(model);
    this.#starting = cluster.slowStart.isIdle ? undefined : cluster;
    let fitting = this.#fittingOf(slot, candidates);
    if (fitting.length === 0 && this.#starting !== undefined) {
      this.#starting = undefined; // nobody else can take it
      fitting = this.#fittingOf(slot, candidates);
    }
    if (fitting.length === 0) return NONE;
    const hasSession = session[2 * slot] !== 0 || session[2 * slot + 1] !== 0;
    const keys = hasSession ? session : head;
    request.key0 = keys[2 * slot] as number;
    request.key1 = keys[2 * slot + 1] as number;
    const ring = hasSession ? this.#rings[model] : undefined;
    const policy = ring ?? this.#policies[model];
    assert(policy !== undefined, 'the model is known');
    const isIndexed = this.#index !== undefined && this.#policies[model]?.needsPrefix === true;
    if (isIndexed) this.#match(slot, fitting, estimates);
    const isPinned = this.#pins.has(slot);
    let index = isPinned ? 0 : policy.pick(fitting, request);
    if (firstTokenUs(fitting, index, request, isIndexed) > leftUs) {
      index = soonest(fitting, request, isIndexed);
    }
    const row = fitting.row[index];
    assert(row !== undefined, 'a policy picks one of its candidates');
    this.#note(model, fitting, index, isIndexed);
    this.#choice.isPinned = isPinned;
    this.#choice.isBySession = !isPinned && ring !== undefined;
    const all = this.#fleet.candidates(model);
    const left = all.length - (isPinned && all.indexOf(row) === NONE ? 0 : candidates.length);
    this.#choice.filtered[leftOut] = (this.#choice.filtered[leftOut] as number) + left;
    const held = isIndexed ? (request.matched[index] as number) : 0;
    this.pendingTokens = Math.max(1, request.promptTokens - held);
    this.contextTokens = request.promptTokens;
    this.outputTokens = Math.round(request.outputTokens);
    return row;
  }

  /** The request goes to the row, as the exchange of the place. */
  commit(slot: number, row: number, place: number): void {
    const policy = this.#policies[this.#requests.model[slot] as number];
    if (policy?.needsPrefix === true) this.#index?.insert(this.#config.prefixes, slot, row);
    this.begin(slot, row, this.#fleet.epoch(row), place);
  }

  /** The request runs on the replica that had the row under `epoch`. */
  begin(slot: number, row: number, epoch: number, place: number): void {
    const isThere = this.#fleet.epoch(row) === epoch;
    if (isThere && this.#fleet.isKvLimited(row)) this.#shared?.add(slot, row, place);
  }

  /** The exchange of the place does no more. */
  end(place: number): void {
    this.#shared?.remove(place);
  }

  /** The hedge takes the place of the slot. */
  moveHedge(slot: number): void {
    this.#shared?.move(this.#requests.hedgeOf(slot), slot);
  }

  #note(model: number, fitting: Candidates, index: number, isMatched: boolean): void {
    const choice = this.#choice;
    choice.candidates = fitting;
    choice.index = index;
    choice.isMatched = isMatched;
    choice.members = this.#fleet.cluster(model).members.length;
    choice.filtered = this.#fleet.cluster(model).filtered;
  }

  #match(slot: number, candidates: Candidates, { bytesPerToken }: Estimates): void {
    const { prefixes } = this.#config;
    const { matched, promptTokens } = this.#request;
    this.#index?.match(prefixes, slot, candidates, matched);
    const tokensPerBlock = prefixes.blockBytes / bytesPerToken;
    for (let i = 0; i < candidates.length; i++) {
      matched[i] = Math.min(promptTokens, Math.round((matched[i] as number) * tokensPerBlock));
    }
  }

  /** The candidates that can take the request; the others are counted by Filter. */
  #fittingOf(slot: number, candidates: Candidates): Candidates {
    const { length, row: rows } = candidates;
    const { model } = this.#requests;
    const tokens = this.#request.promptTokens + this.#request.outputTokens;
    const { filtered } = this.#fleet.cluster(model[slot] as number);
    filtered.fill(0, Filter.noKvRoom);
    let count = 0;
    while (count < length && this.#filterOf(slot, candidates, count, tokens) === NONE) count++;
    if (count === length) return candidates;
    this.#fitting.clear();
    for (let i = 0; i < length; i++) {
      const row = rows[i] as number;
      const filter = this.#filterOf(slot, candidates, i, tokens);
      if (filter === NONE) this.#fitting.append(row, this.#fleet.load(row));
      else filtered[filter] = (filtered[filter] as number) + 1;
    }
    return this.#fitting;
  }

  #filterOf(slot: number, candidates: Candidates, i: number, tokens: number): Filter | typeof NONE {
    const row = candidates.row[i] as number;
    const adapter = this.#requests.adapter[slot] as number;
    if (adapter !== 0 && !this.#fleet.hasAdapter(row, adapter)) return Filter.noAdapter;
    if (this.#passing.isHeld(row)) return Filter.kept;
    if (this.#starting?.hasEnough(row) === true) return Filter.starting;
    const missing = tokens - (candidates.roomTokens[i] as number);
    return missing <= 0 || missing <= this.#sharedTokens(slot, row) ? NONE : Filter.noKvRoom;
  }

  /** Tokens that the row keeps once and that are counted again for each request, this one's too. */
  #sharedTokens(slot: number, row: number): number {
    if (this.#shared === undefined) return 0;
    const { bytesPerToken } = this.#estimates[this.#requests.model[slot] as number] as Estimates;
    const blocks = (this.#shared.shared[row] as number) + this.#shared.common(slot, row);
    return (blocks * this.#config.prefixes.blockBytes) / bytesPerToken;
  }

  #createShared(): SharedBlocks {
    const { prefixes, slots, replicaRows } = this.#config;
    return new SharedBlocks(prefixes, slots, replicaRows);
  }

  #blocksOf(tokens: number): number {
    const { blockBytes } = this.#config.prefixes;
    return Math.ceil((tokens * bytesPerTokenStart) / blockBytes);
  }
}

/** Until the candidate could show the first token, by its prefill alone. */
function firstTokenUs(
  { pendingTokens, prefillUs }: Candidates,
  index: number,
  { promptTokens, matched }: PickRequest,
  isMatched: boolean,
): number {
  const held = isMatched ? (matched[index] as number) : 0;
  const tokens = (pendingTokens[index] as number) + Math.max(1, promptTokens - held);
  return (prefillUs[index] as number) * tokens;
}

function soonest(candidates: Candidates, request: PickRequest, isMatched: boolean): number {
  let best = 0;
  let least = Number.POSITIVE_INFINITY;
  for (let i = 0; i < candidates.length; i++) {
    const us = firstTokenUs(candidates, i, request, isMatched);
    if (us >= least) continue;
    least = us;
    best = i;
  }
  return best;
}

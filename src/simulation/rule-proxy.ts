/**
 * Rule proxy: one proxy that runs a rule, and all that it knows. Pure.
 *
 * It counts its own dispatches and nobody else's. With an age, what the rule sees (counters and
 * prefixes alike) is as of the last refresh; what the proxy has done since then is there, unseen.
 */

import { Candidates, NONE, type ReplicaLoad } from '../dispatch/candidates.ts';
import type { PickRequest } from '../dispatch/policies/policy.ts';
import { assert } from '../lib/assert.ts';
import { createPrng } from '../lib/prng.ts';
import { PrefixMirror } from './prefix-mirror.ts';
import type { Rule, RulePolicy, ScrapedSignals } from './rule.ts';
import type { Workload } from './workload.ts';

/** What the cost rules need to know of the replicas' hardware. */
export interface ReplicaCosts {
  readonly prefillUs: number;
  readonly residentUs: number;
}

interface Load extends ReplicaLoad {
  inFlight: number;
  pendingTokens: number;
  contextTokens: number;
}

/** Share of the newest answer in the expected output length (ALGORITHMS.md 3). */
const outputAlpha = 0.01;
/** Before any answer is known. */
const outputGuess = 256;

export class RuleProxy {
  readonly #policy: RulePolicy;
  readonly #workload: Workload;
  readonly #aged: boolean;
  readonly #loads: readonly Load[];
  readonly #isUp: Uint8Array;
  readonly #candidates: Candidates;
  readonly #mirror: PrefixMirror | undefined;
  readonly #heldTokens: Float64Array;
  readonly #matchedBlocks: Int32Array;
  readonly #request: PickRequest;
  /** With an age: what has been sent since the refresh, as pairs of request and row. */
  readonly #unseen: number[] = [];
  #expectedOutput = outputGuess;

  constructor(
    rule: Rule,
    workload: Workload,
    costs: ReplicaCosts,
    scraped: ScrapedSignals,
    aged: boolean,
    seed: number,
    rows: number,
  ) {
    this.#workload = workload;
    this.#aged = aged;
    this.#loads = Array.from({ length: rows }, () => ({
      ...costs,
      ...{ weight: 1, inFlight: 0, pendingTokens: 0, contextTokens: 0, roomTokens: Infinity },
    }));
    this.#isUp = new Uint8Array(rows);
    this.#candidates = new Candidates(rows);
    this.#heldTokens = new Float64Array(rows);
    this.#matchedBlocks = new Int32Array(rows);
    this.#mirror =
      rule.rememberedTokens > 0
        ? new PrefixMirror(
            workload.blockCount,
            rows,
            Math.ceil(rule.rememberedTokens / workload.blockTokens),
          )
        : undefined;
    const request = { promptTokens: 0, outputTokens: 0, key0: 0, key1: 0 };
    this.#request = { ...request, matched: new Int32Array(rows) };
    this.#policy = rule.create({
      random: createPrng(seed),
      scraped,
      heldTokens: this.#heldTokens,
    });
  }

  get hasCandidates(): boolean {
    return this.#candidates.length > 0;
  }

  setUp(row: number, isUp: boolean): void {
    this.#isUp[row] = isUp ? 1 : 0;
    const load = this.#load(row);
    if (!isUp) {
      load.inFlight = load.pendingTokens = load.contextTokens = 0;
      this.#mirror?.forget(row);
      this.#candidates.delete(row);
    } else this.#candidates.set(row, load);
    const members = [...this.#isUp.keys()].filter((member) => this.#isUp[member] === 1);
    this.#policy.setMembers?.(members.map((member) => ({ row: member, identity: member + 1 })));
  }

  /** The row for a request; there is a candidate. */
  pick(request: number, nowUs: number): number {
    const { promptTokens, headBlock } = this.#workload;
    this.#request.promptTokens = promptTokens[request] as number;
    this.#request.outputTokens = this.#expectedOutput;
    this.#request.key0 = (headBlock[request] as number) + 1;
    this.#match(request);
    this.#policy.setTime?.(nowUs);
    const index = this.#policy.pick(this.#candidates, this.#request);
    assert(index !== NONE && index < this.#candidates.length, 'a policy picks a candidate');
    return this.#candidates.row[index] as number;
  }

  /** Prompt tokens that the row, as far as this proxy knows, has to compute for the request. */
  uncachedTokens(request: number, row: number): number {
    const promptTokens = this.#workload.promptTokens[request] as number;
    const index = this.#candidates.indexOf(row);
    return Math.max(1, promptTokens - (this.#request.matched[index] as number));
  }

  inFlight(row: number): number {
    return this.#load(row).inFlight;
  }

  dispatched(request: number, row: number, pendingTokens: number): void {
    this.#add(row, 1, pendingTokens, this.#workload.promptTokens[request] as number);
    if (this.#aged) this.#unseen.push(request, row);
    else this.#remember(request, row);
  }

  /** `inFlight`: requests it found there when it was dispatched, `ttftUs` ago. */
  firstToken(
    row: number,
    pendingTokens: number,
    ttftUs: number,
    inFlight: number,
    nowUs: number,
  ): void {
    this.#add(row, 0, -pendingTokens, 0);
    this.#policy.observe?.(row, ttftUs, inFlight, nowUs);
  }

  /** `pendingTokens`: what of it still waits for a first token. */
  ended(request: number, row: number, pendingTokens: number): void {
    this.#add(row, -1, -pendingTokens, -(this.#workload.promptTokens[request] as number));
  }

  answered(request: number): void {
    const outputTokens = this.#workload.outputTokens[request] as number;
    this.#expectedOutput += outputAlpha * (outputTokens - this.#expectedOutput);
  }

  /** Shows the rule what has happened since the last refresh. */
  refresh(): void {
    for (let at = 0; at < this.#unseen.length; at += 2) {
      const row = this.#unseen[at + 1] as number;
      if (this.#isUp[row] === 1) this.#remember(this.#unseen[at] as number, row);
    }
    this.#unseen.length = 0;
    for (let row = 0; row < this.#loads.length; row++) {
      if (this.#isUp[row] === 1) this.#candidates.set(row, this.#load(row));
    }
  }

  #add(row: number, requests: number, pendingTokens: number, contextTokens: number): void {
    const load = this.#load(row);
    load.inFlight += requests;
    load.pendingTokens += pendingTokens;
    load.contextTokens += contextTokens;
    assert(load.inFlight >= 0 && load.pendingTokens >= 0 && load.contextTokens >= 0);
    if (!this.#aged && this.#isUp[row] === 1) this.#candidates.set(row, load);
  }

  #remember(request: number, row: number): void {
    const { blocks, blockStart, blockTokens } = this.#workload;
    const mirror = this.#mirror;
    if (mirror === undefined) return;
    mirror.insert(blocks, blockStart[request] as number, blockStart[request + 1] as number, row);
    this.#heldTokens[row] = (mirror.held[row] as number) * blockTokens;
  }

  #match(request: number): void {
    const { blocks, blockStart, blockTokens, promptTokens } = this.#workload;
    const { matched } = this.#request;
    const { length, row: rows } = this.#candidates;
    if (this.#mirror === undefined) return;
    this.#mirror.match(
      blocks,
      blockStart[request] as number,
      blockStart[request + 1] as number,
      this.#matchedBlocks,
    );
    for (let i = 0; i < length; i++) {
      const tokens = (this.#matchedBlocks[rows[i] as number] as number) * blockTokens;
      matched[i] = Math.min(tokens, promptTokens[request] as number);
    }
  }

  #load(row: number): Load {
    return this.#loads[row] as Load;
  }
}

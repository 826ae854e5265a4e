/**
 * Brain router: the brain that serves, driven by the simulation. Pure.
 *
 * It is told what a gateway would tell it: arrivals with token counts and block hashes, first tokens,
 * ends with usage, replicas that come and go. `split` brains share the traffic evenly and at random,
 * each with its own queue and counters, as that many gateways would.
 */

import type { Arrival, PrefixSource } from '../dispatch/arrival.ts';
import { Brain } from '../dispatch/brain.ts';
import {
  type DecisionSink,
  type FirstToken,
  type Release,
  RetryRule,
} from '../dispatch/decisions.ts';
import { createArrival, createRelease } from '../dispatch/empty-records.ts';
import { assert } from '../lib/assert.ts';
import { createPrng, type Prng } from '../lib/prng.ts';
import { prefixDepths } from '../protocol/prefix-hash.ts';
import { type GatewaySetup, noLimitUs } from './gateway-setup.ts';
import type { RequestView } from './request-view.ts';
import type { Router, RouterContext } from './router.ts';
import type { Workload } from './workload.ts';

export interface BrainRouterOptions {
  readonly workload: Workload;
  readonly setup: GatewaySetup;
  readonly split: number;
}

/** More requests than this never wait and run at a time. */
const slotsMax = 65_536;
/** One gateway has the seed of the run, as a real one of that seed would. */
const seedStep = 7919;
/** A request of a simulation runs on one replica at a time. */
const hedge = { automatic: false, budget: 0 } as const;

export class BrainRouter implements Router {
  readonly #options: BrainRouterOptions;
  readonly #gateways: readonly Gateway[];
  readonly #spread: Prng;
  readonly #gatewayOf: Uint8Array;
  readonly #epochs: Int32Array;

  constructor(options: BrainRouterOptions, context: RouterContext) {
    this.#options = options;
    this.#spread = createPrng(context.seed + seedStep * options.split);
    this.#gatewayOf = new Uint8Array(options.workload.count);
    this.#epochs = new Int32Array(context.rows);
    this.#gateways = Array.from(
      { length: options.split },
      (_, i) => new Gateway(options, context, context.seed + seedStep * i),
    );
  }

  get nextTimerUs(): number {
    let nextUs = Number.POSITIVE_INFINITY;
    for (const { brain } of this.#gateways) nextUs = Math.min(nextUs, brain.nextTimerUs);
    return nextUs;
  }

  tick(nowUs: number): void {
    for (const { brain } of this.#gateways) if (brain.nextTimerUs <= nowUs) brain.tick(nowUs);
  }

  arrive(request: number, nowUs: number): void {
    const { split } = this.#options;
    this.#gatewayOf[request] = split === 1 ? 0 : this.#spread.below(split);
    this.#gateway(request).arrive(request, nowUs);
  }

  firstToken(request: number, nowUs: number): void {
    this.#gateway(request).firstToken(request, nowUs);
  }

  finished(request: number, nowUs: number): void {
    this.#gateway(request).release(request, true, nowUs);
  }

  failed(request: number, retry: boolean, nowUs: number): void {
    this.#gateway(request).release(request, !retry, nowUs);
  }

  replicaUp(row: number, nowUs: number): void {
    this.#epochs[row] = (this.#epochs[row] as number) + 1;
    this.#update(row, true, nowUs);
  }

  replicaDown(row: number, nowUs: number): void {
    this.#update(row, false, nowUs);
  }

  #update(row: number, healthy: boolean, nowUs: number): void {
    const epoch = this.#epochs[row] as number;
    const facts = { ...this.#options.setup.facts(row), epoch, healthy };
    for (const { brain } of this.#gateways) brain.updateReplica(row, facts, nowUs);
  }

  #gateway(request: number): Gateway {
    return this.#gateways[this.#gatewayOf[request] as number] as Gateway;
  }
}

/** One brain, and the slots through which it knows requests. */
class Gateway implements DecisionSink {
  readonly brain: Brain;
  readonly #workload: Workload;
  readonly #view: RequestView;
  readonly #context: RouterContext;
  readonly #hashes: SlotHashes;
  readonly #freeSlots: Int32Array;
  #freeCount: number;
  /** Per slot: the request it holds. */
  readonly #requestOf: Int32Array;
  readonly #generation: Int32Array;
  /** Per request. */
  readonly #slotOf: Int32Array;
  readonly #attempt: Uint8Array;
  readonly #arrival: Arrival;
  readonly #release: Release;
  readonly #firstToken: FirstToken = {
    ...{ slot: 0, generation: 0, attempt: 0, hedge: false, afterUs: 0 },
  };

  constructor(options: BrainRouterOptions, context: RouterContext, seed: number) {
    const { workload, setup } = options;
    const { view, models, queueMax, queueTimeoutMs, retry, breaker, slowStartUs } = setup;
    const slots = Math.min(workload.count, slotsMax);
    this.#workload = workload;
    this.#view = view;
    this.#context = context;
    this.#hashes = new SlotHashes(slots, view.blockBytes);
    this.#freeSlots = Int32Array.from({ length: slots }, (_, i) => slots - 1 - i);
    this.#freeCount = slots;
    this.#requestOf = new Int32Array(slots);
    this.#generation = new Int32Array(slots);
    this.#slotOf = new Int32Array(workload.count);
    this.#attempt = new Uint8Array(workload.count);
    this.#arrival = { ...createArrival(), deadlineUs: noLimitUs, streams: true };
    this.#release = { ...createRelease(), settled: true };
    this.brain = new Brain(
      {
        ...{ slots, seed, models, queueMax, queueTimeoutMs, retry, breaker, slowStartUs, hedge },
        ...{ replicaRows: context.rows, tenants: view.tenants, prefixes: this.#hashes },
      },
      this,
    );
  }

  arrive(request: number, nowUs: number): void {
    if (this.#freeCount === 0) {
      this.#context.sink.refuse(request);
      return;
    }
    const slot = this.#freeSlots[--this.#freeCount] as number;
    this.#requestOf[slot] = request;
    this.#slotOf[request] = slot;
    this.#hashes.write(slot, this.#view, request);
    const arrival = this.#arrival;
    arrival.slot = slot;
    arrival.generation = this.#generation[slot] = (this.#generation[slot] as number) + 1;
    arrival.publishedUs = nowUs;
    this.#view.read(request, nowUs, arrival);
    this.brain.arrive(arrival, nowUs);
  }

  firstToken(request: number, nowUs: number): void {
    if (!this.#view.streams(request)) return;
    const first = this.#firstToken;
    first.slot = this.#slotOf[request] as number;
    first.generation = this.#generation[first.slot] as number;
    first.attempt = this.#attempt[request] as number;
    this.brain.firstToken(first, nowUs);
  }

  /** `settled`: the request has ended; else its replica has failed it before the first token. */
  release(request: number, settled: boolean, nowUs: number): void {
    const release = this.#release;
    const slot = this.#slotOf[request] as number;
    release.slot = slot;
    release.generation = this.#generation[slot] as number;
    release.attempt = this.#attempt[request] as number;
    release.settled = settled;
    release.retry = settled ? RetryRule.never : RetryRule.elsewhere;
    release.error = settled ? 0 : 1;
    const { promptTokens, outputTokens } = this.#workload;
    // Of a stream that does not say it the gateway counts the events with tokens.
    const isTold = settled && this.#view.tellsUsage(request);
    release.promptTokens = isTold ? (promptTokens[request] as number) : -1;
    release.completionTokens = settled ? (outputTokens[request] as number) : -1;
    assert(this.brain.release(release, nowUs), 'an attempt ends once');
    if (settled) this.#free(slot);
  }

  admitted(): void {}

  fellBack(): void {
    assert(false, 'a simulation is of one model');
  }

  settledLimits(): void {}

  mayGoOn(): void {}

  followed(): void {}

  placed(): void {
    // Reasons are for people who ask about one request.
  }

  dispatch(slot: number, attempt: number, replica: number): void {
    const request = this.#requestOf[slot] as number;
    this.#attempt[request] = attempt;
    this.#context.sink.dispatch(request, replica);
  }

  hedge(): void {
    assert(false, 'no simulation asks for hedges');
  }

  hedgeEnded(): void {
    assert(false, 'no simulation asks for hedges');
  }

  dropped(): void {
    assert(false, 'no simulation asks for hedges');
  }

  batchBegins(): void {
    assert(false, 'requests of a simulation stream, and streams are in no batch');
  }

  batchEnds(): void {
    assert(false, 'requests of a simulation stream, and streams are in no batch');
  }

  refuse(slot: number): void {
    this.#context.sink.refuse(this.#requestOf[slot] as number);
    this.#free(slot);
  }

  abort(): void {
    assert(false, 'no client leaves in a simulation');
  }

  attemptEnded(): void {
    // The brain's own counters are what the simulation is about.
  }

  retry(): void {
    // The dispatch that follows says it all.
  }

  #free(slot: number): void {
    this.#freeSlots[this.#freeCount++] = slot;
  }
}

/** The block hashes of the requests in slots, at the depths of the live gateway. */
class SlotHashes implements PrefixSource {
  readonly depths = prefixDepths;
  readonly blockBytes: number;
  readonly words: Int32Array;
  readonly #count: Uint8Array;

  constructor(slots: number, blockBytes: number) {
    this.blockBytes = blockBytes;
    this.words = new Int32Array(slots * 2 * prefixDepths.length);
    this.#count = new Uint8Array(slots);
  }

  startOf(slot: number): number {
    return slot * 2 * prefixDepths.length;
  }

  countOf(slot: number): number {
    return this.#count[slot] as number;
  }

  write(slot: number, view: RequestView, request: number): void {
    this.#count[slot] = view.writeHashes(request, this.words, this.startOf(slot));
  }
}

/**
 * Rule router: sends each request at once where a rule says. Pure.
 *
 * `split` proxies share the traffic evenly and at random, and each knows only what went through it.
 * `ageUs` is how old a proxy's view may be: it is renewed once in that time; 0 is always current.
 * Neither changes the rule or the requests, only what the rule sees.
 */
import { createPrng, type Prng } from '../lib/prng.ts';
import type { Router, RouterContext } from './router.ts';
import type { Rule, ScrapedSignals } from './rule.ts';
import { type ReplicaCosts, RuleProxy } from './rule-proxy.ts';
import type { Workload } from './workload.ts';

export interface RuleRouterOptions {
  readonly rule: Rule;
  readonly workload: Workload;
  readonly costs: ReplicaCosts;
  readonly split: number;
  readonly ageUs: number;
}

export class RuleRouter implements Router {
  readonly #context: RouterContext;
  readonly #proxies: readonly RuleProxy[];
  readonly #scrapeUs: number;
  readonly #ageUs: number;
  readonly #scraped: { readonly [Signal in keyof ScrapedSignals]: Float64Array };
  readonly #isUp: Uint8Array;
  readonly #spread: Prng;
  readonly #proxyOf: Int32Array;
  readonly #rowOf: Int32Array;
  readonly #pendingTokens: Int32Array;
  readonly #dispatchedUs: Float64Array;
  readonly #foundInFlight: Int32Array;
  /** Requests that found no replica up. */
  #stranded: number[] = [];
  #nextScrapeUs: number;
  #nextRefreshUs: number;

  constructor({ rule, workload, costs, split, ageUs }: RuleRouterOptions, context: RouterContext) {
    const { rows, seed } = context;
    this.#context = context;
    this.#scrapeUs = rule.scrapeUs ?? Number.POSITIVE_INFINITY;
    this.#ageUs = ageUs === 0 ? Number.POSITIVE_INFINITY : ageUs;
    this.#nextScrapeUs = rule.scrapeUs === undefined ? Number.POSITIVE_INFINITY : 0;
    this.#nextRefreshUs = this.#ageUs;
    this.#scraped = {
      waiting: new Float64Array(rows),
      running: new Float64Array(rows),
      kvUsage: new Float64Array(rows),
    };
    this.#isUp = new Uint8Array(rows);
    this.#spread = createPrng(seed);
    this.#proxyOf = new Int32Array(workload.count);
    this.#rowOf = new Int32Array(workload.count);
    this.#pendingTokens = new Int32Array(workload.count);
    this.#dispatchedUs = new Float64Array(workload.count);
    this.#foundInFlight = new Int32Array(workload.count);
    this.#proxies = Array.from({ length: split }, (_, i) => {
      const proxySeed = seed + 7919 * (i + 1);
      return new RuleProxy(rule, workload, costs, this.#scraped, ageUs > 0, proxySeed, rows);
    });
  }

  get nextTimerUs(): number {
    return Math.min(this.#nextScrapeUs, this.#nextRefreshUs);
  }

  tick(nowUs: number): void {
    if (nowUs >= this.#nextScrapeUs) {
      this.#nextScrapeUs = nowUs + this.#scrapeUs;
      this.#scrape();
    }
    if (nowUs >= this.#nextRefreshUs) {
      this.#nextRefreshUs = nowUs + this.#ageUs;
      for (const proxy of this.#proxies) proxy.refresh();
    }
  }

  arrive(request: number, nowUs: number): void {
    this.#proxyOf[request] =
      this.#proxies.length === 1 ? 0 : this.#spread.below(this.#proxies.length);
    this.#place(request, nowUs);
  }

  firstToken(request: number, nowUs: number): void {
    const pendingTokens = this.#pendingTokens[request] as number;
    const ttftUs = nowUs - (this.#dispatchedUs[request] as number);
    const inFlight = this.#foundInFlight[request] as number;
    this.#pendingTokens[request] = 0;
    this.#proxy(request).firstToken(this.#row(request), pendingTokens, ttftUs, inFlight, nowUs);
  }

  finished(request: number): void {
    const proxy = this.#proxy(request);
    proxy.ended(request, this.#row(request), this.#pendingTokens[request] as number);
    proxy.answered(request);
  }

  /** The counters of the dead replica are gone with it. */
  failed(request: number, retry: boolean, nowUs: number): void {
    if (retry) this.#place(request, nowUs);
  }

  replicaUp(row: number, nowUs: number): void {
    this.#isUp[row] = 1;
    for (const proxy of this.#proxies) proxy.setUp(row, true);
    const stranded = this.#stranded;
    this.#stranded = [];
    for (const request of stranded) this.#place(request, nowUs);
  }

  replicaDown(row: number): void {
    this.#isUp[row] = 0;
    for (const proxy of this.#proxies) proxy.setUp(row, false);
  }

  #place(request: number, nowUs: number): void {
    const proxy = this.#proxy(request);
    if (!proxy.hasCandidates) {
      this.#stranded.push(request);
      return;
    }
    const row = proxy.pick(request, nowUs);
    const pendingTokens = proxy.uncachedTokens(request, row);
    this.#rowOf[request] = row;
    this.#pendingTokens[request] = pendingTokens;
    this.#dispatchedUs[request] = nowUs;
    this.#foundInFlight[request] = proxy.inFlight(row);
    proxy.dispatched(request, row, pendingTokens);
    this.#context.sink.dispatch(request, row);
  }

  #scrape(): void {
    for (let row = 0; row < this.#isUp.length; row++) {
      if (this.#isUp[row] !== 1) continue;
      const { waiting, running, kvUsage } = this.#context.signals(row);
      this.#scraped.waiting[row] = waiting;
      this.#scraped.running[row] = running;
      this.#scraped.kvUsage[row] = kvUsage;
    }
  }

  #proxy(request: number): RuleProxy {
    return this.#proxies[this.#proxyOf[request] as number] as RuleProxy;
  }

  #row(request: number): number {
    return this.#rowOf[request] as number;
  }
}

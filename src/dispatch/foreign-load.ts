/**
 * Foreign load: what other clients of a replica have on its engine, from the engine's own word. Pure.
 *
 *   requests  max(0, running + waiting - own)         own: the most of ours at the last five reports
 *   tokens    max(0, KV tokens - own prompt tokens)   0 without foreign requests
 *   share     1 for two intervals of reports, falling to 0 at five; both are multiplied by it
 *
 * Our own counts are exact, those of an engine trail by seconds (vllm#49538): what it still counts of
 * ours must not look like another's. So a peak of ours hides foreign load for five reports, and what
 * is ours is never taken for foreign while the engine trails by less than that.
 */
import { assert } from '../lib/assert.ts';

/** What an engine said of itself, and what was ours at that time. A record its writer reuses. */
export interface EngineReport {
  scrapedUs: number;
  /** Time between two reports. */
  intervalUs: number;
  /** Requests it runs and has waiting, whoever sent them. */
  running: number;
  waiting: number;
  /** Tokens in its KV cache, and tokens the cache holds; 0: it does not say. */
  kvTokens: number;
  kvCapacity: number;
  /** Attempts of ours in flight, and the tokens of their prompts. */
  ownRequests: number;
  ownTokens: number;
}

const reportsRemembered = 5;
const trustedIntervals = 2;
/** No engine holds as many; keeps what a broken one says within int32. */
const requestsMax = 1_000_000;

export class ForeignLoad {
  requests = 0;
  tokens = 0;
  /** Tokens the KV cache holds; not forgotten when reports stop, it only changes with the engine. */
  kvCapacity = 0;
  readonly #ownRequests = new Float64Array(reportsRemembered);
  readonly #ownTokens = new Float64Array(reportsRemembered);
  #reports = 0;
  #scrapedUs = 0;

  /** Takes the last report there is, seen before or not. True when anything has changed by it. */
  update(report: EngineReport, nowUs: number): boolean {
    assert(report.intervalUs > 0, 'reports come at intervals');
    if (report.scrapedUs !== this.#scrapedUs) this.#remember(report);
    const { requests, tokens, kvCapacity } = this;
    const share = shareAt((nowUs - report.scrapedUs) / report.intervalUs);
    const reported = Math.min(report.running + report.waiting, requestsMax);
    this.requests = Math.round(share * Math.max(0, reported - Math.max(...this.#ownRequests)));
    const others = Math.max(0, report.kvTokens - Math.max(...this.#ownTokens));
    this.tokens = this.requests === 0 ? 0 : Math.round(share * others);
    if (report.kvCapacity > 0) this.kvCapacity = report.kvCapacity;
    return requests !== this.requests || tokens !== this.tokens || kvCapacity !== this.kvCapacity;
  }

  /** The replica is another one. */
  forget(): void {
    this.requests = this.tokens = this.kvCapacity = 0;
    this.#ownRequests.fill(0);
    this.#ownTokens.fill(0);
    this.#reports = this.#scrapedUs = 0;
  }

  #remember({ scrapedUs, ownRequests, ownTokens }: EngineReport): void {
    this.#scrapedUs = scrapedUs;
    const at = this.#reports++ % reportsRemembered;
    this.#ownRequests[at] = ownRequests;
    this.#ownTokens[at] = ownTokens;
  }
}

/** What a report counts for at this age, in intervals. */
function shareAt(age: number): number {
  const left = (reportsRemembered - age) / (reportsRemembered - trustedIntervals);
  return Math.min(1, Math.max(0, left));
}

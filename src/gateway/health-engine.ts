/**
 * Engine scraper: one GET of the metrics page per replica and interval. Runs on the main thread.
 *
 * What the engine says goes to the replica table beside what was ours at that time; the scheduler takes
 * the difference for the load of other clients (dispatch/foreign-load.ts). A page that is missing, late,
 * too large or of another kind changes nothing: the last report counts less with age, then not at all.
 */
import { Agent, request } from 'undici';
import { replicaLookup } from '../forwarder/replica-lookup.ts';
import { nowUs } from '../lib/clock.ts';
import { type EngineMetrics, EngineMetricsParser } from '../protocol/engine-metrics.ts';
import { urlAt } from '../protocol/replica-base.ts';
import { type Member, type Membership, ownHeadersOf } from './membership.ts';

export interface EngineOptions {
  /** Milliseconds between two scrapes of a replica; 0: never. */
  readonly interval: number;
  readonly timeout: number;
  readonly path: string;
}

/** A report counts for as many intervals (dispatch/foreign-load.ts). */
const intervalsKept = 5;

export class EngineScraper {
  readonly #membership: Membership;
  readonly #options: EngineOptions;
  readonly #onChange: (member: Member, reason: string) => void;
  readonly #agent: Agent;
  /** When each replica last reported; undefined: never, and that has been told. */
  readonly #reportedUs = new WeakMap<Member, number | undefined>();
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  /** `onChange`: a replica begins to report (no reason), or does not report any more. */
  constructor(
    membership: Membership,
    options: EngineOptions,
    onChange: (member: Member, reason: string) => void,
  ) {
    this.#membership = membership;
    this.#options = options;
    this.#onChange = onChange;
    const { timeout } = options;
    this.#agent = new Agent({ connect: { timeout, lookup: replicaLookup }, connections: 1 });
  }

  start(): void {
    if (this.#options.interval > 0) this.#round();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#agent.destroy();
  }

  /** Asks all members, spread over the interval: their pages together may be megabytes. */
  #round(): void {
    const { interval } = this.#options;
    const members = [...this.#membership];
    for (const [i, member] of members.entries()) {
      setTimeout(() => void this.#scrape(member), (i / members.length) * interval).unref();
    }
    this.#timer = setTimeout(() => this.#round(), interval);
  }

  async #scrape(member: Member): Promise<void> {
    if (this.#stopped) return;
    const scrapedUs = nowUs();
    const before = this.#membership.ownLoad(member);
    const engine = await this.#read(member);
    if (this.#stopped) return;
    if (typeof engine === 'string') {
      this.#missed(member, engine);
      return;
    }
    const after = this.#membership.ownLoad(member);
    // The engine counted somewhere between the two.
    const own = {
      requests: Math.max(before.requests, after.requests),
      tokens: Math.max(before.tokens, after.tokens),
    };
    const intervalUs = this.#options.interval * 1000;
    this.#membership.report(member, engine, own, { scrapedUs, intervalUs });
    if (this.#reportedUs.get(member) === undefined) this.#onChange(member, '');
    this.#reportedUs.set(member, scrapedUs);
  }

  #missed(member: Member, reason: string): void {
    const reportedUs = this.#reportedUs.get(member);
    const isFirst = !this.#reportedUs.has(member);
    const keptUs = intervalsKept * this.#options.interval * 1000;
    if (!isFirst && (reportedUs === undefined || nowUs() - reportedUs < keptUs)) return;
    this.#reportedUs.set(member, undefined);
    member.engine = undefined;
    this.#onChange(member, reason);
  }

  /** The report, or why there is none. */
  async #read(member: Member): Promise<EngineMetrics | string> {
    const { path, timeout } = this.#options;
    const expired = AbortSignal.timeout(timeout);
    try {
      const { statusCode, body } = await request(urlAt(member.url, path), {
        dispatcher: this.#agent,
        signal: expired,
        headers: ownHeadersOf(member),
      });
      const parser = new EngineMetricsParser();
      // Leaving the loop destroys the body.
      for await (const chunk of body) if (!parser.push(chunk as Uint8Array)) break;
      if (statusCode !== 200) return `${path} answered ${statusCode}`;
      return parser.end() ?? `${path} has none of the metrics of a known engine`;
    } catch (error) {
      if (expired.aborted) return `no metrics page within ${timeout} ms`;
      const { code, message } = error as NodeJS.ErrnoException;
      return code ?? message;
    }
  }
}

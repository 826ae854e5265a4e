/**
 * Health checker: one GET per replica and interval, all in parallel. Runs on the main thread.
 *
 * `unhealthy_after` failures in a row take a replica out, `healthy_after` successes bring it back.
 * A replica that is out or in doubt is asked five times as often, so that it is back soon. A failure
 * seen while this thread itself lagged says nothing about the replica and is thrown away.
 */
import { Agent, request } from 'undici';
import { nowMs } from '../lib/clock.ts';
import type { Member, Membership } from './membership.ts';

export interface HealthOptions {
  readonly path: string;
  readonly interval: number;
  readonly timeout: number;
  readonly unhealthy_after: number;
  readonly healthy_after: number;
}

/** A verdict is void when a timer of this thread fired later than this (RELIABILITY 1). */
const lagLimitMs = 100;
/** Doubtful replicas are probed this many times as often, but no more than once in the minimum. */
const doubtFactor = 5;
const doubtIntervalMsMin = 100;

interface Watch {
  readonly member: Member;
  failures: number;
  successes: number;
  healthy: boolean;
  timer: NodeJS.Timeout | undefined;
}

export type ProbeResult = 'ok' | 'failed' | 'void';

export class HealthChecker {
  readonly #membership: Membership;
  readonly #options: HealthOptions;
  readonly #onProbe: (member: Member, result: ProbeResult) => void;
  readonly #onChange: (member: Member, healthy: boolean) => void;
  readonly #watches = new Map<string, Watch>();
  // One short-lived connection per probe: a probe must see what a fresh connection sees.
  readonly #agent: Agent;
  #stopped = false;

  constructor(
    membership: Membership,
    options: HealthOptions,
    onProbe: (member: Member, result: ProbeResult) => void,
    onChange: (member: Member, healthy: boolean) => void,
  ) {
    this.#membership = membership;
    this.#options = options;
    this.#onProbe = onProbe;
    this.#onChange = onChange;
    this.#agent = new Agent({ connect: { timeout: options.timeout }, pipelining: 0 });
  }

  /** Starts watching; resolves after the first probe. */
  async watch(member: Member): Promise<void> {
    const watch: Watch = { member, failures: 0, successes: 0, healthy: false, timer: undefined };
    this.#watches.set(member.name, watch);
    await this.#round(watch);
  }

  forget(member: Member): void {
    const watch = this.#watches.get(member.name);
    clearTimeout(watch?.timer);
    this.#watches.delete(member.name);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    for (const { member } of [...this.#watches.values()]) this.forget(member);
    await this.#agent.destroy();
  }

  async #round(watch: Watch): Promise<void> {
    const reason = await this.#probe(watch.member);
    if (this.#stopped || this.#watches.get(watch.member.name) !== watch) return;
    if (reason === undefined) this.#onProbe(watch.member, 'void');
    else this.#judge(watch, reason);
    const doubtful = !watch.healthy || watch.failures > 0;
    const { interval } = this.#options;
    const delay = doubtful
      ? Math.min(interval, Math.max(interval / doubtFactor, doubtIntervalMsMin))
      : interval;
    watch.timer = setTimeout(() => void this.#round(watch), delay);
  }

  /** Empty: fit. Text: why not. Undefined: this thread lagged, no verdict. */
  async #probe(member: Member): Promise<string | undefined> {
    const { path, timeout } = this.#options;
    const started = nowMs();
    const expired = AbortSignal.timeout(timeout);
    try {
      const { statusCode, body } = await request(member.url + path, {
        dispatcher: this.#agent,
        signal: expired,
        headersTimeout: timeout,
        bodyTimeout: timeout,
        headers: member.apiKey === '' ? {} : { authorization: `Bearer ${member.apiKey}` },
      });
      await body.dump({ limit: 1 << 20 });
      return statusCode >= 200 && statusCode < 300 ? '' : `probe answered ${statusCode}`;
    } catch (error) {
      if (nowMs() - started > timeout + lagLimitMs) return undefined;
      if (expired.aborted) return `no answer within ${timeout} ms`;
      const { code, message } = error as NodeJS.ErrnoException;
      return code ?? message;
    }
  }

  #judge(watch: Watch, reason: string): void {
    const { unhealthy_after, healthy_after } = this.#options;
    const ok = reason === '';
    this.#onProbe(watch.member, ok ? 'ok' : 'failed');
    watch.failures = ok ? 0 : watch.failures + 1;
    watch.successes = ok ? watch.successes + 1 : 0;
    const healthy = watch.healthy
      ? watch.failures < unhealthy_after
      : watch.successes >= healthy_after;
    const changed = healthy !== watch.healthy;
    watch.healthy = healthy;
    watch.member.reason = healthy ? '' : reason || watch.member.reason;
    if (!changed) return;
    this.#membership.setHealthy(watch.member, healthy, watch.member.reason);
    this.#onChange(watch.member, healthy);
  }
}

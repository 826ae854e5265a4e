/**
 * Health checker: one GET per replica and interval, all in parallel. Runs on the main thread.
 *
 * What a row of answers means is decided by health-verdict.ts. A failure of a probe during which this
 * thread itself lagged says nothing about the replica and is thrown away.
 */
import { Agent, request } from 'undici';
import { replicaLookup } from '../forwarder/replica-lookup.ts';
import { nowMs } from '../lib/clock.ts';
import { urlAt } from '../protocol/replica-base.ts';
import { probeToken, Stillness } from './health-token.ts';
import { HealthVerdict, type ProbeResult, type VerdictOptions } from './health-verdict.ts';
import { LoopLag } from './loop-lag.ts';
import { type Member, type Membership, ownHeadersOf } from './membership.ts';

export interface HealthOptions extends VerdictOptions {
  readonly path: string;
  readonly timeout: number;
  /** Milliseconds without a byte after which a busy replica is asked for a token; 0: never. */
  readonly stall: number;
  readonly token_timeout: number;
}

/** A failure is void when this thread was later than this at any moment of the probe (RELIABILITY 1). */
const lagLimitMs = 100;

/** The probe was too slow, whichever clock saw it first. */
const timeoutCodes = new Set([
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
]);
/** Descriptors or ports of the gateway ran out: that says nothing about a replica. */
const ownShortages = new Set(['EMFILE', 'ENFILE', 'EADDRNOTAVAIL']);

interface Watch {
  readonly member: Member;
  readonly verdict: HealthVerdict;
  readonly stillness: Stillness;
  /** It owed a token at the last look: its path alone does not bring it back. */
  owesToken: boolean;
  timer: NodeJS.Timeout | undefined;
}

export class HealthChecker {
  readonly #membership: Membership;
  readonly #options: HealthOptions;
  readonly #modelOf: (member: Member) => string;
  readonly #onProbe: (member: Member, result: ProbeResult) => void;
  readonly #onChange: (member: Member, healthy: boolean) => void;
  readonly #watches = new Map<Member, Watch>();
  // One short-lived connection per probe: a probe must see what a fresh connection sees.
  readonly #agent: Agent;
  readonly #lag = new LoopLag(lagLimitMs);
  #stopped = false;

  /** `modelOf`: the name of the model that a replica serves. */
  constructor(
    membership: Membership,
    options: HealthOptions,
    modelOf: (member: Member) => string,
    onProbe: (member: Member, result: ProbeResult) => void,
    onChange: (member: Member, healthy: boolean) => void,
  ) {
    this.#membership = membership;
    this.#options = options;
    this.#modelOf = modelOf;
    this.#onProbe = onProbe;
    this.#onChange = onChange;
    this.#agent = new Agent({
      connect: { timeout: options.timeout, lookup: replicaLookup },
      pipelining: 0,
    });
    this.#lag.start();
  }

  /** Starts watching; resolves after the first probe. */
  async watch(member: Member): Promise<void> {
    const watch: Watch = {
      ...{ member, verdict: new HealthVerdict(this.#options), stillness: new Stillness() },
      ...{ owesToken: false, timer: undefined },
    };
    this.#watches.set(member, watch);
    await this.#round(watch);
  }

  forget(member: Member): void {
    clearTimeout(this.#watches.get(member)?.timer);
    this.#watches.delete(member);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#lag.stop();
    for (const member of [...this.#watches.keys()]) this.forget(member);
    await this.#agent.destroy();
  }

  async #round(watch: Watch): Promise<void> {
    const { member, verdict } = watch;
    let reason = await this.#probe(member);
    if (reason === '' && this.#isStill(watch)) reason = await this.#askToken(watch);
    if (this.#stopped || this.#watches.get(member) !== watch) return;
    const result = resultOf(reason, watch.owesToken);
    this.#onProbe(member, result);
    const changed = verdict.add(result);
    if (verdict.healthy) member.reason = '';
    else member.reason = reason || member.reason;
    if (changed) {
      this.#membership.setHealthy(member, verdict.healthy, member.reason);
      this.#onChange(member, verdict.healthy);
    }
    watch.timer = setTimeout(() => void this.#round(watch), verdict.delayMs);
  }

  /** It has requests and sends nothing, or has not given the token that it was asked for. */
  #isStill({ member, stillness, owesToken }: Watch): boolean {
    const { stall } = this.#options;
    if (stall === 0) return false;
    const { inFlight } = this.#membership.state(member);
    const stillMs = stillness.look(nowMs(), inFlight, this.#membership.progressUs(member) / 1000);
    return owesToken || stillMs >= stall;
  }

  async #askToken(watch: Watch): Promise<string | undefined> {
    const { member } = watch;
    const { token_timeout: timeout } = this.#options;
    const started = nowMs();
    try {
      await probeToken(member, this.#agent, { timeout, model: this.#modelOf(member) });
      watch.owesToken = false;
      return '';
    } catch (error) {
      // A byte of an answer meanwhile is the progress that was asked for.
      if (this.#membership.progressUs(member) / 1000 > started) watch.owesToken = false;
      else if (!this.#lag.wasLate(started, nowMs())) watch.owesToken = true;
      if (!watch.owesToken) return undefined;
      return `is well by ${this.#options.path} and gives no token: ${(error as Error).message}`;
    }
  }

  /**
   * Empty: fit. Text: why not. Undefined, no verdict: the fault is ours (lag, descriptors), or a busy
   * replica was too slow to answer and sent tokens meanwhile.
   */
  async #probe(member: Member): Promise<string | undefined> {
    const { path, timeout } = this.#options;
    const started = nowMs();
    const expired = AbortSignal.timeout(timeout);
    try {
      const { statusCode, body } = await request(urlAt(member.url, path), {
        dispatcher: this.#agent,
        signal: expired,
        headersTimeout: timeout,
        bodyTimeout: timeout,
        headers: ownHeadersOf(member),
      });
      await body.dump({ limit: 1 << 20 });
      return statusCode >= 200 && statusCode < 300 ? '' : `probe answered ${statusCode}`;
    } catch (error) {
      if (this.#lag.wasLate(started, nowMs())) return undefined;
      const { code, message } = error as NodeJS.ErrnoException;
      if (expired.aborted || timeoutCodes.has(code ?? '')) {
        const isStreaming = this.#membership.progressUs(member) / 1000 > started;
        return isStreaming ? undefined : `no answer within ${timeout} ms`;
      }
      if (code !== undefined && ownShortages.has(code)) return undefined;
      return code ?? message;
    }
  }
}

function resultOf(reason: string | undefined, owesToken: boolean): ProbeResult {
  if (reason === undefined) return 'void';
  if (reason === '') return 'ok';
  return owesToken ? 'dead' : 'failed';
}

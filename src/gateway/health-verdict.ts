/**
 * What a row of probe results says about one replica. Pure.
 *
 * `unhealthy_after` failures in a row take it out, `healthy_after` successes in a row bring it back; a
 * void probe says nothing. A replica starts out. While it is out or in doubt it is asked five times as
 * often, so that it is back soon.
 */
export interface VerdictOptions {
  readonly interval: number;
  readonly unhealthy_after: number;
  readonly healthy_after: number;
}

/** dead: no further proof is needed. */
export type ProbeResult = 'ok' | 'failed' | 'dead' | 'void';

/** Doubtful replicas are probed this many times as often, but no more than once in the minimum. */
const doubtFactor = 5;
const doubtIntervalMsMin = 100;

export class HealthVerdict {
  readonly #options: VerdictOptions;
  #failures = 0;
  #successes = 0;
  #healthy = false;

  constructor(options: VerdictOptions) {
    this.#options = options;
  }

  get healthy(): boolean {
    return this.#healthy;
  }

  /** Takes a result; true when the verdict has changed. */
  add(result: ProbeResult): boolean {
    if (result === 'void') return false;
    const ok = result === 'ok';
    const { unhealthy_after, healthy_after } = this.#options;
    const most = result === 'dead' ? unhealthy_after - 1 : 0;
    this.#failures = ok ? 0 : Math.max(this.#failures, most) + 1;
    this.#successes = ok ? this.#successes + 1 : 0;
    const before = this.#healthy;
    this.#healthy = before ? this.#failures < unhealthy_after : this.#successes >= healthy_after;
    return this.#healthy !== before;
  }

  /** Milliseconds until the next probe. */
  get delayMs(): number {
    const { interval } = this.#options;
    if (this.#healthy && this.#failures === 0) return interval;
    return Math.min(interval, Math.max(interval / doubtFactor, doubtIntervalMsMin));
  }
}

/**
 * Access sampler: which requests leave a line in the access log.
 *
 * Every error and every slow request; of the rest a share chosen by a hash of the request id and a secret:
 * ids come from clients, and one that knew the hash could be in the log always, or never.
 * Pure; any thread.
 */
import { assert } from '../lib/assert.ts';

export interface AccessSamplerOptions {
  /** Share of fast successes that is kept, 0 to 1. */
  readonly rate: number;
  /** A request that took at least this long is always kept. */
  readonly slowMs: number;
  /** An int32 that clients do not know. */
  readonly secret: number;
}

const hashSpace = 2 ** 32;

export class AccessSampler {
  readonly #rate: number;
  readonly #slowMs: number;
  readonly #secret: number;

  constructor(options: AccessSamplerOptions) {
    assert(options.rate >= 0);
    assert(options.rate <= 1);
    assert(options.slowMs > 0);
    this.#rate = options.rate;
    this.#slowMs = options.slowMs;
    this.#secret = options.secret;
  }

  /** The part of the decision that is known before the request runs. */
  idIsSampled(requestId: string, rate = this.#rate): boolean {
    return hashId(requestId, this.#secret) < Math.round(rate * hashSpace);
  }

  /** `rate`: of its tenant, in place of that of everybody. */
  keeps(
    requestId: string,
    status: number,
    failed: boolean,
    durationMs: number,
    rate = this.#rate,
  ): boolean {
    if (failed || status >= 400 || durationMs >= this.#slowMs) return true;
    return this.idIsSampled(requestId, rate);
  }
}

/**
 * FNV-1a with the finalizer of MurmurHash3: ids of one millisecond differ in a few last characters,
 * and FNV alone leaves the high bits, which decide, nearly equal for them.
 */
function hashId(id: string, secret: number): number {
  let hash = 0x811c9dc5 ^ secret;
  for (let i = 0; i < id.length; i++) hash = Math.imul(hash ^ id.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

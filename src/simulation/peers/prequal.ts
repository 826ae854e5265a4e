/**
 * prequal_like: hot or cold by requests in flight, then latency. A peer's rule, simulator only.
 *
 *   hot    inFlight above the 0.84 quantile of the candidates
 *   pick   lowest latency among the cold, of which there is always one
 *
 * Latency of a replica: moving mean, weight 1/16, of the times to first token of requests that found
 * about as many others there (a power of two) as the next one will. Requests in flight are exact here,
 * so there is no pool of probes; its sizes in the paper serve to be nearly so.
 * Source: Prequal, arXiv 2312.10172.
 */

import type { Candidates } from '../../dispatch/candidates.ts';
import type { Prng } from '../../lib/prng.ts';
import type { RulePolicy, RuleView } from '../rule.ts';
import { lowestAtRandom } from './choices.ts';

const hotQuantile = 0.84;
const newestShare = 1 / 16;

/** Powers of two of requests in flight. */
const loadClasses = 16;

export class Prequal implements RulePolicy {
  readonly #random: Prng;
  /** Per row and class of load; 0 before the first. */
  readonly #latencyUs: Float64Array;
  readonly #sorted: Int32Array;

  constructor({ random, heldTokens }: RuleView) {
    this.#random = random;
    this.#latencyUs = new Float64Array(heldTokens.length * loadClasses);
    this.#sorted = new Int32Array(heldTokens.length);
  }

  observe(row: number, ttftUs: number, inFlight: number): void {
    const at = row * loadClasses + classOf(inFlight);
    const before = this.#latencyUs[at] as number;
    this.#latencyUs[at] = before === 0 ? ttftUs : before + newestShare * (ttftUs - before);
  }

  pick({ length, inFlight, row }: Candidates): number {
    const sorted = this.#sorted.subarray(0, length);
    for (let i = 0; i < length; i++) sorted[i] = inFlight[i] as number;
    sorted.sort();
    const limit = sorted[Math.floor(hotQuantile * (length - 1))] as number;
    return lowestAtRandom(length, this.#random, (i) => {
      const load = inFlight[i] as number;
      return load > limit ? Number.MAX_VALUE : this.#estimateUs(row[i] as number, load);
    });
  }

  /** Of the nearest class that has been seen, fewer requests first. */
  #estimateUs(row: number, inFlight: number): number {
    const base = row * loadClasses;
    const own = classOf(inFlight);
    for (let distance = 0; distance < loadClasses; distance++) {
      for (const near of [own - distance, own + distance]) {
        const known =
          near >= 0 && near < loadClasses ? (this.#latencyUs[base + near] as number) : 0;
        if (known > 0) return known;
      }
    }
    return 0;
  }
}

function classOf(inFlight: number): number {
  return Math.min(loadClasses - 1, 32 - Math.clz32(inFlight));
}

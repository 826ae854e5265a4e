/**
 * peak_ewma: two at random, the lower of latency times load. A peer's rule, simulator only.
 *
 *   cost = ewma (inFlight + 1)                                   microseconds * requests; lower wins
 *   ewma   a response time above it replaces it, below it decays towards it with tau 10 s; 1 s at first
 *
 * The response time is that of the head, which a streaming engine sends with the first token.
 * Source: tower-load, PeakEwma; Finagle.
 */

import type { Candidates } from '../../dispatch/candidates.ts';
import type { Prng } from '../../lib/prng.ts';
import type { RulePolicy, RuleView } from '../rule.ts';
import { twoAtRandom } from './choices.ts';

const tauUs = 10_000_000;
const firstGuessUs = 1_000_000;

export class PeakEwma implements RulePolicy {
  readonly #random: Prng;
  readonly #ewmaUs: Float64Array;
  readonly #seenUs: Float64Array;
  #nowUs = 0;

  constructor({ random, heldTokens }: RuleView) {
    this.#random = random;
    this.#ewmaUs = new Float64Array(heldTokens.length).fill(firstGuessUs);
    this.#seenUs = new Float64Array(heldTokens.length);
  }

  setTime(nowUs: number): void {
    this.#nowUs = nowUs;
  }

  observe(row: number, ttftUs: number, _inFlight: number, nowUs: number): void {
    const ewmaUs = this.#ewmaUs[row] as number;
    const kept = this.#decay(row, nowUs);
    this.#ewmaUs[row] = ttftUs > ewmaUs ? ttftUs : kept * ewmaUs + (1 - kept) * ttftUs;
    this.#seenUs[row] = nowUs;
  }

  pick({ length, inFlight, row }: Candidates): number {
    const [first, second] = twoAtRandom(length, this.#random);
    const cost = (i: number): number => {
      const at = row[i] as number;
      const ewmaUs = this.#decay(at, this.#nowUs) * (this.#ewmaUs[at] as number);
      return ewmaUs * ((inFlight[i] as number) + 1);
    };
    return cost(second) < cost(first) ? second : first;
  }

  #decay(row: number, nowUs: number): number {
    return Math.exp(-(nowUs - (this.#seenUs[row] as number)) / tauUs);
  }
}

/**
 * llm_d: the weighted scorers of llm-d and the inference gateway. A peer's rule, simulator only.
 *
 *   score    3 prefix + 2 queue + 2 kv                            each 0 to 1; higher wins
 *   prefix   matched / prompt, of the first `prefixTokensMax` tokens
 *   queue    (max - waiting) / (max - min) of the scraped queue lengths; all equal: 1
 *   kv       1 - scraped KV usage
 *
 * Ties at random. Approximate: what was sent, in an LRU of 31,250 blocks of 16 tokens a replica, the
 * first 256 blocks of a prompt. Precise: what the cache has room for, whole prompts.
 * Source: kubernetes-sigs/gateway-api-inference-extension, prefix-aware guide; llm-d blog 2025-09-24.
 */

import type { Candidates } from '../../dispatch/candidates.ts';
import type { PickRequest } from '../../dispatch/policies/policy.ts';
import type { Prng } from '../../lib/prng.ts';
import type { RulePolicy, RuleView, ScrapedSignals } from '../rule.ts';
import { lowestAtRandom } from './choices.ts';

const prefixWeight = 3;
const queueWeight = 2;
const kvWeight = 2;

export class LlmD implements RulePolicy {
  readonly #random: Prng;
  readonly #scraped: ScrapedSignals;
  readonly #prefixTokensMax: number;

  constructor({ random, scraped }: RuleView, prefixTokensMax: number) {
    this.#random = random;
    this.#scraped = scraped;
    this.#prefixTokensMax = prefixTokensMax;
  }

  pick({ length, row }: Candidates, { promptTokens, matched }: PickRequest): number {
    const { waiting, kvUsage } = this.#scraped;
    const scored = Math.min(promptTokens, this.#prefixTokensMax);
    let max = 0;
    let min = Number.POSITIVE_INFINITY;
    for (let i = 0; i < length; i++) {
      const queue = waiting[row[i] as number] as number;
      max = Math.max(max, queue);
      min = Math.min(min, queue);
    }
    return lowestAtRandom(length, this.#random, (i) => {
      const at = row[i] as number;
      const prefix = Math.min(matched[i] as number, scored) / scored;
      const queue = max === min ? 1 : (max - (waiting[at] as number)) / (max - min);
      const kv = 1 - (kvUsage[at] as number);
      return -(prefixWeight * prefix + queueWeight * queue + kvWeight * kv);
    });
  }
}

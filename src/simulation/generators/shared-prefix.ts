/**
 * shared-prefix: many tenants, each with one long prompt head of its own. Pure.
 *
 * The load of llm-d's published comparison (blog 2025-09-24): 150 tenants with 6k-token prefixes, a
 * question of 1,200 tokens, an answer of 1,000. Questions and answers are uniform within half of
 * that, tenants equally likely, arrivals Poisson at 1 request/s.
 */
import { createPrng } from '../../lib/prng.ts';
import { between, drawGap, poissonGaps } from '../variates.ts';
import { type Arrival, BlockChain, NO_REQUEST, packWorkload, type Workload } from '../workload.ts';

const blockTokens = 512;
const tenants = 150;
const prefixBlocks = 12;
const questionTokens = [600, 1800] as const;
const answerTokens = [500, 1500] as const;

export function generateSharedPrefix(requests: number, seed: number): Workload {
  const random = createPrng(seed);
  const chain = new BlockChain();
  const prefixes = Array.from({ length: tenants }, (_, tenant) => {
    const blocks = [chain.extend(NO_REQUEST, tenant)];
    while (blocks.length < prefixBlocks) blocks.push(chain.fresh());
    return blocks;
  });
  let us = 0;
  const arrivals = Array.from({ length: requests }, (): Arrival => {
    us += drawGap(random, poissonGaps) * 1e6;
    const tenant = random.below(tenants);
    const promptTokens = prefixBlocks * blockTokens + between(random, ...questionTokens);
    const blocks = [...(prefixes[tenant] as number[])];
    while (blocks.length * blockTokens < promptTokens) blocks.push(chain.fresh());
    const outputTokens = between(random, ...answerTokens);
    return { arrivalUs: us, promptTokens, outputTokens, tenant, blocks };
  });
  const blockCount = chain.count;
  return packWorkload(arrivals, { blockTokens, blockCount, tenantCount: tenants, commonBlocks: 0 });
}

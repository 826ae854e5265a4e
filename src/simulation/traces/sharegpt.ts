/**
 * Reader of ShareGPT token lengths: num_prefill_tokens,num_decode_tokens. Pure.
 *
 * The set has no times: arrivals are Poisson at 1 request/s, and a rate factor makes them any other.
 * Rows keep their order, so the turns of one chat stay near each other.
 */
import { assert } from '../../lib/assert.ts';
import { createPrng } from '../../lib/prng.ts';
import { drawGap, poissonGaps } from '../variates.ts';
import { type Arrival, packWorkload, type Workload } from '../workload.ts';
import { FreshBlocks } from './fresh-blocks.ts';

export function readShareGpt(text: string, seed: number): Workload {
  const random = createPrng(seed);
  const fresh = new FreshBlocks();
  let us = 0;
  const rows = text.split('\n').slice(1).filter(Boolean);
  const arrivals = rows.map((row, index): Arrival => {
    const match = /^(\d+),(\d+)$/.exec(row);
    assert(match !== null, `row ${index + 1} is a pair of lengths`);
    us += drawGap(random, poissonGaps) * 1e6;
    const promptTokens = Math.max(1, Number(match[1]));
    const outputTokens = Math.max(1, Number(match[2]));
    return { arrivalUs: us, promptTokens, outputTokens, tenant: 0, blocks: fresh.of(promptTokens) };
  });
  return packWorkload(arrivals, { ...fresh.shape(), tenantCount: 1 });
}

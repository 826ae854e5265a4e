/**
 * tool-agent: agents that call tools, after a public excerpt of such a trace (ALGORITHMS.md 5). Pure.
 *
 *   40 %   share a 12-block prefix, 3 to 50 output tokens
 *   15 %   share a 5-block prefix, about 20 output tokens
 *   rest   share only the first block, which everybody has; long prompts and answers
 *
 * Lengths behind the shared part are exponential, with means that give the 8,596 prompt and 182
 * output tokens of the full trace. Arrivals are Poisson at 1 request/s.
 */
import { createPrng, type Prng } from '../../lib/prng.ts';
import { uniform } from '../../lib/variates.ts';
import { between, drawGap, drawIndex, poissonGaps } from '../variates.ts';
import { type Arrival, BlockChain, NO_REQUEST, packWorkload, type Workload } from '../workload.ts';

const blockTokens = 512;
/** Longest prompt of the model family the trace comes from, and a usual limit of answers. */
const promptTokensMax = 100_000;
const outputTokensMax = 2000;

interface Kind {
  readonly share: number;
  readonly sharedBlocks: number;
  readonly ownTokensMean: number;
  drawOutput(random: Prng): number;
}

const kinds: readonly Kind[] = [
  { share: 0.4, sharedBlocks: 12, ownTokensMean: 1500, drawOutput: (r) => between(r, 3, 50) },
  { share: 0.15, sharedBlocks: 5, ownTokensMean: 1500, drawOutput: (r) => between(r, 15, 25) },
  { share: 0.45, sharedBlocks: 1, ownTokensMean: 10_440, drawOutput: (r) => exponential(r, 375) },
];

export function generateToolAgent(requests: number, seed: number): Workload {
  const random = createPrng(seed);
  const chain = new BlockChain();
  const common = chain.extend(NO_REQUEST, 0);
  const shared = kinds.map(({ sharedBlocks }, kind) => {
    const blocks = [common];
    // Content 1 to 3: each kind has blocks of its own behind the common one.
    while (blocks.length < sharedBlocks)
      blocks.push(chain.extend(blocks.at(-1) ?? common, kind + 1));
    return blocks;
  });
  let us = 0;
  const arrivals = Array.from({ length: requests }, (): Arrival => {
    us += drawGap(random, poissonGaps) * 1e6;
    const index = drawIndex(
      random,
      kinds.map(({ share }) => share),
    );
    const kind = kinds[index] as Kind;
    const sharedTokens = kind.sharedBlocks * blockTokens;
    const ownTokens = exponential(random, kind.ownTokensMean);
    const promptTokens = Math.min(promptTokensMax, sharedTokens + ownTokens);
    const blocks = [...(shared[index] as number[])];
    while (blocks.length * blockTokens < promptTokens) blocks.push(chain.fresh());
    const outputTokens = Math.min(outputTokensMax, kind.drawOutput(random));
    return { arrivalUs: us, promptTokens, outputTokens, tenant: 0, blocks };
  });
  const blockCount = chain.count;
  return packWorkload(arrivals, { blockTokens, blockCount, tenantCount: 1, commonBlocks: 1 });
}

/** At least 1. */
function exponential(random: Prng, mean: number): number {
  return Math.ceil(-Math.log(uniform(random)) * mean);
}

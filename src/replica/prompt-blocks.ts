/**
 * The ids of a prompt's full blocks, by which the engine model finds what it has in its cache. Pure.
 *
 * A block is `blockTokens` tokens as tokens.ts counts them, 48 bytes of text for 16; its id hashes
 * all tokens from the start, so equal ids mean equal beginnings. Ids have 31 bits: with 28,000
 * blocks in the cache one look-up in 77,000 finds a stranger, which a simulation can bear.
 */
import { mix, promptTokenIds } from './tokens.ts';

/** `content` is the prompt's text, or its token ids when it came as such. */
export function promptBlocks(content: string | readonly number[], blockTokens: number): Int32Array {
  const ids = typeof content === 'string' ? promptTokenIds(content) : content;
  const blocks = new Int32Array(Math.floor(ids.length / blockTokens));
  let hash = 0;
  for (let block = 0; block < blocks.length; block++) {
    const end = (block + 1) * blockTokens;
    for (let i = block * blockTokens; i < end; i++) hash = mix(hash, ids[i] ?? 0);
    blocks[block] = hash & 0x7fffffff;
  }
  return blocks;
}

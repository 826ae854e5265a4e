/**
 * Reader of the Mooncake FAST'25 traces: one JSON object a line. Pure.
 *
 * Times are bins of about 3 s (measured on the slice), so a request is put at a uniform place inside
 * its bin; requests of one bin keep their order, because a chat's turns must not overtake each other.
 * Chats are not named: a prompt that extends an earlier one beyond the common first block is taken
 * for its next turn.
 */
import { assert } from '../../lib/assert.ts';
import { createPrng } from '../../lib/prng.ts';
import { uniform } from '../../lib/variates.ts';
import { type Arrival, BlockChain, NO_REQUEST, packWorkload, type Workload } from '../workload.ts';

interface Line {
  readonly timestamp: number;
  readonly input_length: number;
  readonly output_length: number;
  readonly hash_ids: readonly number[];
}

const blockTokens = 512;
const binMs = 3000;
/** Block 0, a shared system prompt, starts every request. */
const commonBlocks = 1;

export function readMooncake(text: string, seed: number): Workload {
  const lines = text.split('\n').filter(Boolean).map(parseLine);
  const times = spreadTimes(
    lines.map(({ timestamp }) => timestamp),
    seed,
  );
  const chain = new BlockChain();
  const chats = new Chats();
  const arrivals = lines.map((line, i): Arrival => {
    let parent = NO_REQUEST;
    const blocks = line.hash_ids.map((content) => {
      parent = chain.extend(parent, content);
      return parent;
    });
    const { session, previous } = chats.place(i, blocks);
    return {
      arrivalUs: times[i] as number,
      promptTokens: line.input_length,
      outputTokens: Math.max(1, line.output_length),
      tenant: 0,
      blocks,
      session,
      ...(previous === NO_REQUEST ? {} : { previous }),
    };
  });
  return packWorkload(arrivals, {
    blockTokens,
    blockCount: chain.count,
    tenantCount: 1,
    commonBlocks,
  });
}

function parseLine(text: string, index: number): Line {
  const line = JSON.parse(text) as Line;
  assert(
    line.timestamp >= 0 && line.input_length > 0 && Array.isArray(line.hash_ids),
    `line ${index + 1} is a Mooncake request`,
  );
  return line;
}

/** Uniform inside its bin, sorted within the bin. */
function spreadTimes(timestamps: readonly number[], seed: number): number[] {
  const random = createPrng(seed);
  const timesUs = timestamps.map((ms) => (ms + uniform(random) * binMs) * 1000);
  for (let start = 0; start < timesUs.length; ) {
    let end = start + 1;
    while (end < timesUs.length && timestamps[end] === timestamps[start]) end++;
    const bin = timesUs.slice(start, end).sort((a, b) => a - b);
    for (const us of bin) timesUs[start++] = us;
  }
  return timesUs;
}

/** Which chat a prompt belongs to, by the longest earlier prompt that it extends. */
class Chats {
  readonly #lastWith = new Map<number, number>();
  readonly #session: number[] = [];

  place(request: number, blocks: readonly number[]): { session: number; previous: number } {
    let previous = NO_REQUEST;
    for (let depth = blocks.length - 1; depth >= commonBlocks; depth--) {
      previous = this.#lastWith.get(blocks[depth] as number) ?? NO_REQUEST;
      if (previous !== NO_REQUEST) break;
    }
    for (const block of blocks.slice(commonBlocks)) this.#lastWith.set(block, request);
    const session = previous === NO_REQUEST ? request : (this.#session[previous] as number);
    this.#session.push(session);
    return { session, previous };
  }
}

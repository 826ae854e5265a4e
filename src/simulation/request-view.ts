/**
 * What a gateway reads off the requests of a workload. Types, and the view of a trace: token counts are
 * exact, blocks are known by their ids, and that is all there is. Pure.
 */
import type { Arrival } from '../dispatch/arrival.ts';
import { mix32 } from '../lib/mix32.ts';
import { prefixDepths } from '../protocol/prefix-hash.ts';
import type { Workload } from './workload.ts';

export interface RequestView {
  /** Lanes of fair queueing. */
  readonly tenants: number;
  /** Bytes of text in one block. */
  readonly blockBytes: number;
  /** Fills all of `arrival` but slot, generation and the time it was published. */
  read(request: number, nowUs: number, arrival: Arrival): void;
  /** Writes the block hashes as pairs of int32, one for each of prefixDepths; returns how many. */
  writeHashes(request: number, words: Int32Array, at: number): number;
  /** Whether a gateway hears of the first token. */
  streams(request: number): boolean;
  /** Whether the answer says how many tokens it took. */
  tellsUsage(request: number): boolean;
}

/** Bytes of text per token that the brain's estimates begin with. */
const bytesPerToken = 4;

export class TraceView implements RequestView {
  readonly tenants: number;
  readonly blockBytes: number;
  readonly #workload: Workload;

  constructor(workload: Workload) {
    this.#workload = workload;
    this.tenants = workload.tenantCount;
    this.blockBytes = workload.blockTokens * bytesPerToken;
  }

  read(request: number, _nowUs: number, arrival: Arrival): void {
    const { promptTokens, tenant, headBlock } = this.#workload;
    arrival.promptTokens = promptTokens[request] as number;
    arrival.textBytes = arrival.promptTokens * bytesPerToken;
    arrival.tenant = tenant[request] as number;
    arrival.head0 = (headBlock[request] as number) + 1;
  }

  /** A block's id stands for all before it, so its hash is a chained one. */
  writeHashes(request: number, words: Int32Array, at: number): number {
    const { blocks, blockStart } = this.#workload;
    const first = blockStart[request] as number;
    const length = (blockStart[request + 1] as number) - first;
    let to = at;
    let count = 0;
    for (const depth of prefixDepths) {
      if (depth > length) break;
      const block = blocks[first + depth - 1] as number;
      words[to++] = mix32(block);
      words[to++] = mix32(~block);
      count++;
    }
    return count;
  }

  streams(): boolean {
    return true;
  }

  tellsUsage(): boolean {
    return true;
  }
}

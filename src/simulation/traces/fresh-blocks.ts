/** Blocks of prompts that share nothing, for workloads without prefix information. Pure. */
import { BlockChain, type WorkloadShape } from '../workload.ts';

const blockTokens = 512;

export class FreshBlocks {
  readonly #chain = new BlockChain();

  of(promptTokens: number): number[] {
    return Array.from({ length: Math.ceil(promptTokens / blockTokens) }, () => this.#chain.fresh());
  }

  shape(): Omit<WorkloadShape, 'tenantCount'> {
    return { blockTokens, blockCount: this.#chain.count, commonBlocks: 0 };
  }
}

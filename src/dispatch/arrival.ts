/**
 * What the brain is told of a request when it arrives, and where it reads more. Types only.
 *
 * The record is reused by its writer; the brain keeps no reference. Hashes are pairs of int32; 0 0
 * stands for none.
 */
export interface Arrival {
  slot: number;
  generation: number;
  model: number;
  /** The model whose fallbacks it has: that which it came for, or the larger one of its cascade. */
  askedModel: number;
  publishedUs: number;
  deadlineUs: number;
  /** Bytes of the prompt as it came: what a batch holds. */
  promptBytes: number;
  /** Bytes of all that the model is to read but media; the brain turns them into tokens (estimates.ts). */
  textBytes: number;
  /** It has media, or names what is kept elsewhere: its tokens say nothing of those in text. */
  readsMore: boolean;
  /** Exact tokens of the prompt where somebody counted them; 0: estimate. */
  promptTokens: number;
  /** Output limit the client asked for; 0 for none. */
  maxTokens: number;
  /** -100 to 100; higher is served first. */
  priority: number;
  /** Lane of fair queueing, 0 to tenants - 1. */
  tenant: number;
  /** Rows of the limits that it counts in, of its tenant and of its tenant and model; -1 for none. */
  limitRow: number;
  limitModelRow: number;
  /** What it took of them under an earlier brain; -1: nothing. */
  takenInput: number;
  takenOutput: number;
  /** Of what the store of shared limits has leased. */
  takenLeased: boolean;
  /** Its answer has output tokens, of so many choices. */
  generates: boolean;
  choices: number;
  /** Adapter of the model, counted from 1: only replicas that have it may serve; 0 for none. */
  adapter: number;
  /** Row of the only replica that can serve it, and the epoch it was that under; -1: any can (pins.ts). */
  pin: number;
  pinEpoch: number;
  /** The replica says when the first token is out; else its prefill is over after the modelled time. */
  streams: boolean;
  /** The client wants a second exchange so long after the first; below 0: it does not ask for one. */
  hedgeUs: number;
  /** Session key of the client. */
  session0: number;
  session1: number;
  /** The first 64 characters of the prompt. */
  head0: number;
  head1: number;
  /** Requests with the same differ in their prompt alone and may go as one call; 0 0: never so. */
  batch0: number;
  batch1: number;
}

/** The block hashes of each request's prompt, kept by whoever owns the slots. */
export interface PrefixSource {
  /** Pairs of int32, one for each depth the prompt reaches (protocol/prefix-hash.ts). */
  readonly words: Int32Array;
  /** Index in `words` of the first pair. */
  startOf(slot: number): number;
  countOf(slot: number): number;
  /** Depths in blocks, ascending; the same for all prompts. */
  readonly depths: readonly number[];
  /** Bytes of text in one block. */
  readonly blockBytes: number;
}

/**
 * The constants of a modelled LLM engine and how long one of its steps takes. Pure.
 *
 *   T = cbrt(t_w^3 + (t_f + c (x + B))^3) + kappa K + a sum l (s + l/2) + r (B + chunks)    [ms]
 *
 *   x prefill tokens in chunks of l tokens at context offset s, B decodes with K resident tokens.
 *   The cubic mean joins the two roofs of a GPU: reading all weights once, and arithmetic per token.
 *
 * Not modelled: speculative decoding, prefill and decode on different replicas, LoRA swaps, jitter
 * of the host, tokenisation, multimodal input, KV offload.
 */

export interface EngineModel {
  readonly name: string;
  /** t_w: reading the weights once, the least a step costs. */
  readonly weightMs: number;
  /** t_f: kernel launches and scheduling, per step. */
  readonly fixedMs: number;
  /** c: arithmetic of one token. */
  readonly tokenMs: number;
  /** kappa: reading the KV of one resident token of a decode. */
  readonly residentTokenMs: number;
  /** a: attention of one prefill token to one token before it. */
  readonly attentionMs: number;
  /** r: sampling and bookkeeping of one sequence. */
  readonly sequenceMs: number;
  /** o: front end and detokenisation; once a request, before its first token. */
  readonly overheadUs: number;
  /** KV capacity in pages of `pageTokens` tokens. */
  readonly kvPages: number;
  readonly pageTokens: number;
  /** Sequences that run at a time (max_num_seqs). */
  readonly maxNumSeqs: number;
  /** Tokens of one step (max_num_batched_tokens). */
  readonly stepTokensMax: number;
}

/** What one step has to do. The engine fills the same record again and again. */
export interface StepLoad {
  decodes: number;
  /** K: context tokens of the decodes, before the step. */
  residentTokens: number;
  prefillTokens: number;
  chunks: number;
  /** Sum over chunks of l (s + l/2). */
  attendedTokens: number;
}

/** vLLM V1 on a card of the H100 class: page size and API-server defaults of `engine/arg_utils.py`. */
const VLLM_V1 = { pageTokens: 16, maxNumSeqs: 1024, stepTokensMax: 8192 } as const;
/**
 * 0.9 x 79.6 GiB less the weights and about 2 GiB of activations, at 128 KiB a token: 448k tokens.
 * The simulator BLIS has 29,205 pages for the same 8B model.
 */
const H100_KV_PAGES = 28_000;

const models = [
  {
    name: '8b-h100', // Llama-3.1-8B in BF16 on one H100
    weightMs: 6.3, // kernel times measured by Vidur on an H100, and the LM head
    fixedMs: 2.2, // fitted to the same kernels
    tokenMs: 0.0212, // kernels 20.5 us x 1.078; plausible 17 to 27 us
    residentTokenMs: 60e-6, // 128 KiB at 65 % of 3.35 TB/s
    attentionMs: 1.06e-6, // 4 d layers at half of 989.5 TFLOP/s
    sequenceMs: 0.005, // BLIS, beta_6: 4.4 us
    overheadUs: 5000, // BLIS, alpha: 2 to 16 ms
    kvPages: H100_KV_PAGES,
    ...VLLM_V1,
  },
  {
    name: '70b-h100x4', // Llama-3.1-70B in BF16 on four H100, tensor parallel
    weightMs: 17.2, // the same kernels, and 160 all-reduces of about 12 us
    fixedMs: 4,
    tokenMs: 0.068, // kernels 55.3 us and all-reduce 11.2 us; plausible 55 to 76 us
    residentTokenMs: 38e-6, // 80 KiB on each of four cards
    attentionMs: 1.32e-6,
    sequenceMs: 0.005,
    overheadUs: 8000,
    kvPages: H100_KV_PAGES,
    ...VLLM_V1,
  },
] as const satisfies readonly EngineModel[];

export type EngineModelName = (typeof models)[number]['name'];

export const ENGINE_MODELS: ReadonlyMap<string, EngineModel> = new Map(
  models.map((model) => [model.name, Object.freeze(model)]),
);

/** The constants called `name`; for names that come from a user, look in ENGINE_MODELS. */
export function engineModel(name: EngineModelName): EngineModel {
  return ENGINE_MODELS.get(name) as EngineModel;
}

export function stepMs(model: EngineModel, load: StepLoad): number {
  const tokens = load.prefillTokens + load.decodes;
  const arithmeticMs = model.fixedMs + model.tokenMs * tokens;
  return (
    Math.cbrt(model.weightMs ** 3 + arithmeticMs ** 3) +
    model.residentTokenMs * load.residentTokens +
    model.attentionMs * load.attendedTokens +
    model.sequenceMs * (load.decodes + load.chunks)
  );
}

/**
 * What one model's requests have turned out to be: tokens per byte of text and tokens of answers. Pure.
 *
 * Text is all that the model is given to read (protocol/known-keys.ts) without media, the same in what is
 * learnt and in what is estimated.
 *
 *   bytesPerToken  EWMA of textBytes / prompt_tokens     bytes; 4 until one is reported
 *   outputTokens   EWMA of completion_tokens             tokens; 256 until one is reported
 *
 * The n-th report weighs 1 / n, and at least weightMin: a mean of the first hundred, then one that
 * follows the traffic (ALGORITHMS 3: 0.01).
 * Learnt from the usage that replicas report; who reports none leaves the start values, which only
 * shift all replicas alike. Bounded, so that one absurd report cannot make the estimate useless.
 */
export const bytesPerTokenStart = 4; // English text under the tokenizers in use (ALGORITHMS 8)
const bytesPerTokenMin = 1;
const bytesPerTokenMax = 16;
/** Median answer of public chat traces: 129 to 415 tokens (ALGORITHMS 5). */
export const outputTokensStart = 256;
const outputTokensMax = 131_072;
const weightMin = 0.01;

export class Estimates {
  bytesPerToken = bytesPerTokenStart;
  outputTokens = outputTokensStart;
  #ratios = 0;
  #outputs = 0;

  /** At least 1, so that no request is free. */
  promptTokens(textBytes: number): number {
    return Math.max(1, Math.round(textBytes / this.bytesPerToken));
  }

  /** What this request will answer: no more than it allows itself. `maxTokens` 0: no limit. */
  expectedOutput(maxTokens: number): number {
    return maxTokens > 0 ? Math.min(maxTokens, this.outputTokens) : this.outputTokens;
  }

  /** Usage as reported; what is unknown is below 0, and `textBytes` 0 says nothing of the ratio. */
  learn(textBytes: number, promptTokens: number, completionTokens: number): void {
    if (textBytes > 0 && promptTokens > 0) {
      const ratio = clampRatio(textBytes / promptTokens);
      this.bytesPerToken += weightOf(++this.#ratios) * (ratio - this.bytesPerToken);
    }
    if (completionTokens > 0) {
      const output = Math.min(completionTokens, outputTokensMax);
      this.outputTokens += weightOf(++this.#outputs) * (output - this.outputTokens);
    }
  }
}

const weightOf = (reports: number): number => Math.max(weightMin, 1 / reports);

/** Bytes per token as they may be. */
export const clampRatio = (ratio: number): number =>
  Math.min(Math.max(ratio, bytesPerTokenMin), bytesPerTokenMax);

/**
 * What the next request of somebody is to be reckoned with, from those before it: bytes of prompt for a token,
 * tokens of an answer. Pure.
 *
 * It decides what is set aside and billed, so it leans to what costs: what costs more than was reckoned weighs
 * half, what costs less a fiftieth (the 96 % expectile), and no run of short answers makes the next long one
 * look short: below its start an answer is never reckoned. Means that compare replicas are in estimates.ts.
 */
import { bytesPerTokenStart, clampRatio, outputTokensStart } from './estimates.ts';

/** Around a shorter prompt there is more of the template than of it. */
const taughtBytesMin = 1024;
const weightOfMore = 0.5;
const weightOfLess = 0.02;

export class Reckoning {
  #bytesPerToken = bytesPerTokenStart;
  #outputTokens = outputTokensStart;

  /** At least 1, so that no request is free. */
  promptTokens(promptBytes: number): number {
    return Math.max(1, Math.ceil(promptBytes / this.#bytesPerToken));
  }

  /** Of an answer without a limit. */
  get outputTokens(): number {
    return Math.ceil(this.#outputTokens);
  }

  /** Usage as reported; what is not above 0 says nothing. `outputMax`: beyond it all answers are alike. */
  learn(
    promptBytes: number,
    promptTokens: number,
    outputTokens: number,
    outputMax = Number.POSITIVE_INFINITY,
  ): void {
    if (promptBytes >= taughtBytesMin && promptTokens > 0) {
      const more = clampRatio(promptBytes / promptTokens) - this.#bytesPerToken;
      this.#bytesPerToken += (more < 0 ? weightOfMore : weightOfLess) * more;
    }
    if (outputTokens <= 0) return;
    const more = Math.min(outputTokens, outputMax) - this.#outputTokens;
    const next = this.#outputTokens + (more > 0 ? weightOfMore : weightOfLess) * more;
    this.#outputTokens = Math.max(next, outputTokensStart);
  }
}

/**
 * Rule: a policy as the simulator runs it, with what the policy's own system would know. Types only.
 *
 * A rule of a peer sees what that peer sees: its own idea of who holds which prefix, engine metrics as
 * old as its scrape period, response times. The rules of src/dispatch/ ask for no more than a Policy.
 */

import type { Policy } from '../dispatch/policies/policy.ts';
import type { Prng } from '../lib/prng.ts';

/** Engine metrics as of the last scrape, per row. */
export interface ScrapedSignals {
  readonly waiting: Float64Array;
  readonly running: Float64Array;
  readonly kvUsage: Float64Array;
}

/** What a rule may look at besides its candidates. */
export interface RuleView {
  readonly random: Prng;
  readonly scraped: ScrapedSignals;
  /** Tokens of prompts that each row is thought to hold; all zero without a remembered index. */
  readonly heldTokens: Float64Array;
}

export interface RulePolicy extends Policy {
  /** A first token, `ttftUs` after the dispatch of a request that found `inFlight` others there. */
  observe?(row: number, ttftUs: number, inFlight: number, nowUs: number): void;
  /** The time of the next pick, for rules whose state decays. */
  setTime?(nowUs: number): void;
}

export interface Rule {
  readonly name: string;
  /** Tokens per replica that it remembers to have sent there, for `matched`; 0: it does not ask. */
  readonly rememberedTokens: number;
  /** Period of the scrape of engine metrics; undefined: it reads none. */
  readonly scrapeUs?: number;
  create(view: RuleView): RulePolicy;
}

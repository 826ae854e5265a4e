/**
 * The rules a simulation can run, by name: the policies of src/dispatch/ and the rules of peers. Pure.
 *
 * Mooncake's minimal time to first token and LMetric are policies of dispatch/ themselves: min_ttft and
 * lmetric.
 */
import { policyFactory, policyNames } from '../dispatch/policies/registry.ts';
import { Aibrix } from './peers/aibrix.ts';
import { Chwbl } from './peers/chwbl.ts';
import { DualMap } from './peers/dualmap.ts';
import { Dynamo } from './peers/dynamo.ts';
import { LlmD } from './peers/llm-d.ts';
import { PeakEwma } from './peers/peak-ewma.ts';
import { PrefixAware } from './peers/prefixaware.ts';
import { Prequal } from './peers/prequal.ts';
import { SglangCacheAware } from './peers/sglang-cache-aware.ts';
import type { Rule } from './rule.ts';

/** llm-d scrapes its engines this often (gateway-api-inference-extension issue 667). */
const llmdScrapeUs = 50_000;
/** 31,250 blocks of 64 characters, some 16 tokens, a server. */
const llmdIndexTokens = 500_000;
/** The first 256 of those blocks. */
const llmdPrefixTokensMax = 4096;

/** Remembering twice what a replica can hold is level or better than less, and than more (ALGORITHMS.md 3). */
const indexPerCapacity = 2;

const endless = Number.POSITIVE_INFINITY;

/** `kvTokens`: capacity of one replica's cache. */
function peerRules(kvTokens: number): readonly Rule[] {
  return [
    { name: 'chwbl', rememberedTokens: 0, create: () => new Chwbl() },
    {
      name: 'sglang_cache_aware',
      rememberedTokens: endless,
      create: (view) => new SglangCacheAware(view),
    },
    { name: 'prefixaware', rememberedTokens: endless, create: (view) => new PrefixAware(view) },
    { name: 'aibrix', rememberedTokens: kvTokens, create: (view) => new Aibrix(view) },
    { name: 'dualmap', rememberedTokens: kvTokens, create: () => new DualMap() },
    {
      name: 'llm_d_approximate',
      rememberedTokens: llmdIndexTokens,
      scrapeUs: llmdScrapeUs,
      create: (view) => new LlmD(view, llmdPrefixTokensMax),
    },
    {
      name: 'llm_d_precise',
      rememberedTokens: kvTokens,
      scrapeUs: llmdScrapeUs,
      create: (view) => new LlmD(view, endless),
    },
    { name: 'dynamo', rememberedTokens: kvTokens, create: (view) => new Dynamo(view) },
    { name: 'peak_ewma', rememberedTokens: 0, create: (view) => new PeakEwma(view) },
    { name: 'prequal_like', rememberedTokens: 0, create: (view) => new Prequal(view) },
  ];
}

/** A policy of dispatch/ or a peer's rule; undefined for a name nobody knows. */
export function ruleOf(name: string, kvTokens: number): Rule | undefined {
  const factory = policyFactory(name);
  if (factory === undefined) return peerRules(kvTokens).find((rule) => rule.name === name);
  return {
    name,
    rememberedTokens: indexPerCapacity * kvTokens,
    create: ({ random }) => factory(random),
  };
}

export const ruleNames: readonly string[] = [
  ...policyNames,
  ...peerRules(1).map(({ name }) => name),
];

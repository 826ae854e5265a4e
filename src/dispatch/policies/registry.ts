/** Policies by the name the config uses. Pure. */
import { CacheAware } from './cache-aware.ts';
import { LeastInFlight, leastInFlightTerms } from './least-in-flight.ts';
import { Lmetric, lmetricTerms } from './lmetric.ts';
import { MarginalCost, marginalCostTerms } from './marginal-cost.ts';
import { MinTtft, minTtftTerms } from './min-ttft.ts';
import type { PolicyFactory, Terms } from './policy.ts';
import { PowerOfTwo, powerOfTwoTerms } from './power-of-two.ts';
import { PrefixAffinity } from './prefix-affinity.ts';
import { RandomChoice } from './random.ts';
import { RoundRobin } from './round-robin.ts';
import {
  WeightedLeastConnections,
  weightedLeastConnectionsTerms,
} from './weighted-least-connections.ts';

interface Entry {
  readonly create: PolicyFactory;
  /** The rule in one line, for a person who asks why. */
  readonly formula: string;
  /** The score of one candidate; undefined where the rule is no score. */
  readonly terms?: Terms;
}

const entries: ReadonlyMap<string, Entry> = new Map<string, Entry>([
  ['round_robin', { create: () => new RoundRobin(), formula: 'the next higher row, cyclic' }],
  [
    'random',
    { create: (random) => new RandomChoice(random), formula: 'uniform over the candidates' },
  ],
  [
    'least_in_flight',
    {
      create: () => new LeastInFlight(),
      formula: 'score = in_flight; lowest of all',
      terms: leastInFlightTerms,
    },
  ],
  [
    'power_of_two',
    {
      create: (random) => new PowerOfTwo(random),
      formula: 'score = in_flight / weight; lower of two drawn at random',
      terms: powerOfTwoTerms,
    },
  ],
  [
    'weighted_least_connections',
    {
      create: () => new WeightedLeastConnections(),
      formula: 'score = (in_flight + 1) / weight; lowest of all',
      terms: weightedLeastConnectionsTerms,
    },
  ],
  [
    'prefix_affinity',
    {
      create: () => new PrefixAffinity(),
      formula:
        'the owner of the key on the hash ring while in_flight < ceil(1.25 * mean load of its weight); ' +
        'else the less loaded of the next two on the ring; else the least loaded',
    },
  ],
  [
    'cache_aware',
    {
      create: () => new CacheAware(),
      formula:
        'most matched_tokens, at least 0.3 of the prompt, among in_flight <= least + max(8, least / 4); ' +
        'else the least loaded',
    },
  ],
  [
    'lmetric',
    {
      create: () => new Lmetric(),
      formula:
        'score = (pending_tokens + max(1, prompt_tokens - matched_tokens)) * (in_flight + 1) / weight; lowest of all',
      terms: lmetricTerms,
    },
  ],
  [
    'min_ttft',
    {
      create: () => new MinTtft(),
      formula:
        'score = prefill_us * (pending_tokens + max(1, prompt_tokens - matched_tokens)) / weight; lowest of all',
      terms: minTtftTerms,
    },
  ],
  [
    'marginal_cost',
    {
      create: () => new MarginalCost(),
      formula:
        'score = (prefill_us * (pending_tokens + n) + 0.5 * prefill_us * in_flight * n + ' +
        'expected_output_tokens * resident_us * context_tokens) / weight, n = max(1, prompt_tokens - matched_tokens); ' +
        'lowest of all',
      terms: marginalCostTerms,
    },
  ],
]);

/** What places the requests of a session, whatever the policy of the model. */
export const sessionPolicy = 'prefix_affinity';

export const policyNames: readonly string[] = [...entries.keys()];

/** The factory of a policy; undefined for a name nobody knows, which the config refuses. */
export function policyFactory(name: string): PolicyFactory | undefined {
  return entries.get(name)?.create;
}

/** How a policy weighs a candidate, in words and in numbers. */
export function policyScore(name: string): { formula: string; terms: Terms | undefined } {
  const entry = entries.get(name);
  return { formula: entry?.formula ?? '', terms: entry?.terms };
}

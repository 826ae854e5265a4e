/** Policies by the name the config uses. Pure. */
import { CacheAware } from './cache-aware.ts';
import { LeastInFlight } from './least-in-flight.ts';
import { Lmetric } from './lmetric.ts';
import { MarginalCost } from './marginal-cost.ts';
import { MinTtft } from './min-ttft.ts';
import type { PolicyFactory } from './policy.ts';
import { PowerOfTwo } from './power-of-two.ts';
import { PrefixAffinity } from './prefix-affinity.ts';
import { RandomChoice } from './random.ts';
import { RoundRobin } from './round-robin.ts';
import { WeightedLeastConnections } from './weighted-least-connections.ts';

const factories: ReadonlyMap<string, PolicyFactory> = new Map<string, PolicyFactory>([
  ['round_robin', () => new RoundRobin()],
  ['random', (random) => new RandomChoice(random)],
  ['least_in_flight', () => new LeastInFlight()],
  ['power_of_two', (random) => new PowerOfTwo(random)],
  ['weighted_least_connections', () => new WeightedLeastConnections()],
  ['prefix_affinity', () => new PrefixAffinity()],
  ['cache_aware', () => new CacheAware()],
  ['lmetric', () => new Lmetric()],
  ['min_ttft', () => new MinTtft()],
  ['marginal_cost', () => new MarginalCost()],
]);

export const policyNames: readonly string[] = [...factories.keys()];

/** The factory of a policy; undefined for a name nobody knows, which the config refuses. */
export function policyFactory(name: string): PolicyFactory | undefined {
  return factories.get(name);
}

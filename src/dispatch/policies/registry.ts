/** Policies by the name the config uses. Pure. */
import { LeastInFlight } from './least-in-flight.ts';
import type { PolicyFactory } from './policy.ts';
import { PowerOfTwo } from './power-of-two.ts';
import { RandomChoice } from './random.ts';
import { RoundRobin } from './round-robin.ts';
import { WeightedLeastConnections } from './weighted-least-connections.ts';

const factories: ReadonlyMap<string, PolicyFactory> = new Map<string, PolicyFactory>([
  ['round_robin', () => new RoundRobin()],
  ['random', (random) => new RandomChoice(random)],
  ['least_in_flight', () => new LeastInFlight()],
  ['power_of_two', (random) => new PowerOfTwo(random)],
  ['weighted_least_connections', () => new WeightedLeastConnections()],
]);

export const policyNames: readonly string[] = [...factories.keys()];

/** The factory of a policy; undefined for a name nobody knows, which the config refuses. */
export function policyFactory(name: string): PolicyFactory | undefined {
  return factories.get(name);
}

/** S10: the same rule when its state is split over proxies, or old. Pure data. */
import type { Conditions } from './experiment.ts';

export interface NamedConditions extends Conditions {
  readonly name: string;
}

const splits = [2, 4, 8] as const;
const agesMs = [10, 50, 100, 1000] as const;

/** The rule runs by itself in every row, so that rows differ in what it sees and in nothing else. */
export function ablationOf(policy: string): NamedConditions[] {
  const exact = { policy, split: 1, ageUs: 0, ruleAlone: true };
  return [
    { ...exact, name: `${policy}, exact` },
    ...agesMs.map((ms) => ({ ...exact, ageUs: ms * 1000, name: `${policy}, ${ms} ms old` })),
    ...splits.map((split) => ({ ...exact, split, name: `${policy}, ${split} proxies` })),
  ];
}

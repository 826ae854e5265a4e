/**
 * marginal_cost against power_of_two at 8,000 requests per second, one request in twenty with a prompt of
 * 24 blocks.
 */
import type { Scenario } from './bench-context.ts';
import { startReplicas } from './replicas.ts';
import { drive, ratioFigures } from './rounds.ts';
import { startGateway } from './targets.ts';

const longPromptBytes = 24 * 2048;
const longShare = 0.05;

export const policyLoad: Scenario = {
  name: 'policies',
  question: 'Does marginal_cost cost anything against power_of_two at 8,000 requests per second?',
  async run(bench) {
    const fleet = await startReplicas(bench, 4, 'uniform:8ms-24ms');
    const ours = await startGateway(bench, fleet, 'marginal_cost');
    const theirs = await startGateway(bench, fleet, 'power_of_two');
    const rounds = await drive(
      bench,
      [ours, theirs],
      [
        { share: 1 - longShare, connections: 320 },
        { share: longShare, connections: 64, promptBytes: longPromptBytes },
      ],
    );
    const figures = ratioFigures('marginal_cost / power_of_two', rounds);
    return { figures, skipped: [], data: rounds };
  },
};

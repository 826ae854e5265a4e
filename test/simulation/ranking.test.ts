/**
 * What the ranking of policies rests on, stated loosely enough to hold for any seed: if one of these
 * fails, the engine model, a policy or the brain has changed in kind.
 */
import { expect, test } from 'vitest';
import { runExperiment } from '../../src/simulation/experiment.ts';
import type { Measures } from '../../src/simulation/measures.ts';
import { scenarioOf } from '../../src/simulation/scenarios.ts';
import { readTrace } from '../../src/simulation/traces/files.ts';
import { Workloads } from '../../src/simulation/workloads.ts';

const workloads = new Workloads(readTrace);
const exact = { split: 1, ageUs: 0 };

function measured(id: string, rate: number, policy: string, more = {}): Measures {
  const scenario = scenarioOf(id)!;
  const workload = workloads.of(scenario, rate, 1);
  return runExperiment(scenario, workload, { policy, ...exact, ...more }, 1).measures;
}

const goodput = (id: string, rate: number, policy: string, more = {}): number =>
  measured(id, rate, policy, more).goodput[0]!;

test('on S1 counting requests beats taking turns, and counting tokens beats both', () => {
  const turns = goodput('s1', 7.9, 'round_robin');
  const requests = goodput('s1', 7.9, 'least_in_flight');
  const tokens = goodput('s1', 7.9, 'lmetric');
  expect(requests).toBeGreaterThan(turns + 10);
  expect(tokens).toBeGreaterThan(requests + 5);
  expect(goodput('s1', 7.9, 'power_of_two')).toBeLessThan(requests);
});

test('near saturation the delay given to others decides: marginal_cost is ahead of lmetric', () => {
  const own = goodput('s1', 9.2, 'marginal_cost');
  expect(own).toBeGreaterThan(goodput('s1', 9.2, 'lmetric') + 5);
  expect(own).toBeGreaterThan(goodput('s1', 9.2, 'aibrix'));
});

test('the longest prefix alone sends everything to one replica', () => {
  expect(measured('s1', 7.9, 'prefixaware').busyRatio.mean).toBeGreaterThan(7);
});

test('shared prefixes: whoever knows them answers at once, whoever does not never catches up', () => {
  const blind = measured('s5', 14.2, 'round_robin');
  const knowing = measured('s5', 14.2, 'marginal_cost');
  expect(blind.ttftMs.p90).toBeGreaterThan(20_000);
  expect(knowing.ttftMs.p90).toBeLessThan(500);
  expect(knowing.hitShareOfUnlimited).toBeGreaterThan(0.9);
});

test('who waits in the gateway waits for a cache too, as long as the turns stay fair', () => {
  const held = measured('s5', 18, 'marginal_cost', { holdTokens: 16_384 });
  expect(held.hitShareOfUnlimited).toBeGreaterThan(0.85);
});

test('the same rule is worth less the less it sees', () => {
  const alone = { ruleAlone: true };
  const whole = goodput('s1', 9.2, 'marginal_cost', alone);
  expect(goodput('s1', 9.2, 'marginal_cost', { ...alone, ageUs: 1e6 })).toBeLessThan(whole - 10);
  expect(goodput('s1', 9.2, 'marginal_cost', { ...alone, split: 8 })).toBeLessThan(whole - 20);
});

test('the brain decides about as well as its rule alone', () => {
  const alone = goodput('s2', 36.5, 'marginal_cost', { ruleAlone: true });
  expect(Math.abs(goodput('s2', 36.5, 'marginal_cost') - alone)).toBeLessThan(4);
});

test('late binding gives light tenants their turn while one floods', () => {
  const scenario = scenarioOf('s8')!;
  const workload = workloads.of(scenario, 12.7, 1);
  const light = (more = {}): number => {
    const conditions = { policy: 'marginal_cost', ...exact, ...more };
    return runExperiment(scenario, workload, conditions, 1).fairness!.lightTtftMs.p50;
  };
  expect(light({ holdTokens: 16_384 })).toBeLessThan(light() / 5);
});

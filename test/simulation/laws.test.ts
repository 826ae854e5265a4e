/** Laws of every run, whatever the policy: nothing is lost, time runs forward, a seed is a result. */
import { expect, test } from 'vitest';
import { policyNames } from '../../src/dispatch/policies/registry.ts';
import { createPrng } from '../../src/lib/prng.ts';
import { floodShares, withTenants } from '../../src/simulation/generators/tenants.ts';
import { generateToolAgent } from '../../src/simulation/generators/tool-agent.ts';
import { Outcome } from '../../src/simulation/records.ts';
import { ruleNames } from '../../src/simulation/rules.ts';
import { atMeanRate, type Workload } from '../../src/simulation/workload.ts';
import { type SmallRun, smallRun } from '../support/simulation.ts';

// Fixed: some of these laws hold of loads that are large enough to show them, and not of every small one.
const seed = Number(process.env.SEED ?? 20_260_401);
console.info(`SEED=${seed}`);

const load = (requests: number, rate: number): Workload =>
  atMeanRate(withTenants(generateToolAgent(requests, seed), floodShares, seed), rate);

function expectLaws(workload: Workload, run: SmallRun): void {
  const { records } = smallRun(workload, run);
  for (let i = 0; i < workload.count; i++) {
    expect(records.outcome[i]).not.toBe(Outcome.open);
    if (records.outcome[i] !== Outcome.finished) continue;
    expect(records.sentUs[i]).toBeGreaterThanOrEqual(workload.arrivalUs[i]!);
    expect(records.dispatchUs[i]).toBeGreaterThanOrEqual(records.sentUs[i]!);
    expect(records.firstUs[i]).toBeGreaterThan(records.dispatchUs[i]!);
    expect(records.finishUs[i]).toBeGreaterThanOrEqual(records.firstUs[i]!);
    expect(records.hitTokens[i]).toBeLessThan(workload.promptTokens[i]!);
  }
}

test.each(ruleNames)('%s alone serves every request once', (policy) => {
  expectLaws(load(300, 15), { policy });
});

test.each(policyNames)('%s in the brain serves every request once', (policy) => {
  expectLaws(load(300, 15), { policy, inBrain: true });
});

test('nothing is lost under random conditions', () => {
  const random = createPrng(seed);
  for (let round = 0; round < 25; round++) {
    const inBrain = random.below(2) === 0;
    const names = inBrain ? policyNames : ruleNames;
    const policy = names[random.below(names.length)]!;
    const events =
      random.below(2) === 0
        ? []
        : ([
            { atUs: 2e6 + random.below(5e6), row: random.below(4), kind: 'kill' },
            { atUs: 4e6 + random.below(5e6), row: 4, kind: 'add' },
            { atUs: 1e6, row: 2, kind: 'slow', factor: 1 + random.below(9) },
          ] as const);
    expectLaws(load(100 + random.below(200), 5 + random.below(60)), {
      ...{ policy, inBrain, events, seed: random.below(1000), split: 1 + random.below(4) },
      ...(inBrain ? {} : { ageUs: random.below(3) * 100_000 }),
      ...(random.below(2) === 0 ? {} : { thinkUs: random.below(2_000_000) }),
      ...(random.below(2) === 0 ? {} : { holdTokens: 16_384, limitKv: true }),
    });
  }
});

test.each([true, false])('the same seed gives the same run (in the brain: %s)', (inBrain) => {
  const workload = load(400, 30);
  const run = { policy: 'power_of_two', inBrain, split: 2 } as const;
  const first = smallRun(workload, { ...run, seed: 5 });
  expect(smallRun(workload, { ...run, seed: 5 }).records).toEqual(first.records);
  expect(smallRun(workload, { ...run, seed: 6 }).records).not.toEqual(first.records);
});

test('a rule alone gives a request out when it arrives, so each replica is first come, first served', () => {
  const workload = load(400, 40);
  const { records } = smallRun(workload, { policy: 'least_in_flight' });
  for (let i = 0; i < workload.count; i++)
    expect(records.dispatchUs[i]).toBe(workload.arrivalUs[i]);
});

test('requests of one tenant that wait in the gateway leave it in order', () => {
  const workload = load(600, 60);
  const run = { policy: 'marginal_cost', inBrain: true, holdTokens: 16_384 } as const;
  const { records } = smallRun(workload, run);
  const last = new Map<number, number>();
  let held = 0;
  for (let i = 0; i < workload.count; i++) {
    const tenant = workload.tenant[i]!;
    const us = records.dispatchUs[i]!;
    held += us > records.sentUs[i]! ? 1 : 0;
    expect(us).toBeGreaterThanOrEqual(last.get(tenant) ?? 0);
    last.set(tenant, us);
  }
  expect(held).toBeGreaterThan(50);
});

test('split and age change only what a rule sees: where it sees nothing, nothing changes', () => {
  const workload = load(300, 20);
  const exact = smallRun(workload, { policy: 'round_robin' });
  const aged = smallRun(workload, { policy: 'round_robin', ageUs: 500_000 });
  expect(aged.records).toEqual(exact.records);
  const rows = (split: number) => smallRun(workload, { policy: 'lmetric', split }).records.row;
  expect(rows(8)).not.toEqual(rows(1));
  const { sentUs } = smallRun(workload, { policy: 'lmetric', split: 8 }).records;
  expect([...sentUs]).toEqual([...workload.arrivalUs]);
});

test('a killed replica is given nothing until it is back, and loses only what had begun', () => {
  const workload = load(600, 20);
  const [killUs, backUs] = [8e6, 16e6];
  const events = [
    { atUs: killUs, row: 1, kind: 'kill' },
    { atUs: backUs, row: 1, kind: 'add' },
  ] as const;
  for (const inBrain of [true, false]) {
    const { records } = smallRun(workload, { policy: 'marginal_cost', inBrain, events });
    let again = 0;
    for (let i = 0; i < workload.count; i++) {
      const us = records.dispatchUs[i]!;
      again += records.dispatches[i]! > 1 ? 1 : 0;
      if (records.row[i] === 1) expect(us < killUs || us >= backUs).toBe(true);
      if (records.outcome[i] === Outcome.broken) expect(records.firstUs[i]).toBeGreaterThan(0);
      expect(records.outcome[i]).not.toBe(Outcome.refused);
    }
    expect(again).toBeGreaterThan(0);
  }
});

test.each(['marginal_cost', 'least_in_flight'])(
  'a cold replica that joins is used, and not stampeded (%s)',
  (policy) => {
    const workload = load(1000, 12);
    const events = [{ atUs: 10e6, row: 4, kind: 'add' }] as const;
    const { records } = smallRun(workload, { policy, inBrain: true, events });
    const after = [...records.dispatchUs.keys()].filter((i) => {
      return records.dispatchUs[i]! >= 10e6 && records.dispatchUs[i]! < 20e6;
    });
    const given = after.filter((i) => records.row[i] === 4).length;
    // A fifth is fair; half as much again, and one to begin with, is the limit.
    expect(given).toBeGreaterThan(0.05 * after.length);
    expect(given).toBeLessThanOrEqual(1 + 0.3 * after.length);
  },
);

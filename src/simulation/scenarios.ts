/**
 * Scenarios S1 to S9 of ALGORITHMS.md 6, as data: load, fleet, rates and what happens to the fleet. S10
 * is S1, S2 and S5 again, with state that is split or old.
 *
 * A scenario is a function of a seed: arrivals inside a trace's bins, drawn lengths and tenants.
 */
import type { EngineModelName } from '../replica/engine/engine-model.ts';
import type { FleetEvent } from './fleet-events.ts';
import type { GatewaySetup } from './gateway-setup.ts';
import { withBurst } from './generators/burst.ts';
import { generateSharedPrefix } from './generators/shared-prefix.ts';
import { evenShares, floodShares, lightShares, withTenants } from './generators/tenants.ts';
import { generateToolAgent } from './generators/tool-agent.ts';
import { type TraceName, traceNames } from './traces/names.ts';
import type { Workload } from './workload.ts';

/** Reads a trace; handed in, so that scenarios stay free of files. */
export type ReadTrace = (name: TraceName, seed: number) => Workload;

export interface Scenario {
  readonly id: string;
  readonly title: string;
  readonly model: EngineModelName;
  readonly replicas: number;
  /** Requests per second, ascending; the quoted one is marked by `rate`. */
  readonly rates: readonly number[];
  readonly rate: number;
  /** Limits of the time to first token are times this: a large model needs longer for a long prompt. */
  readonly ttftScale: number;
  /** A closed loop in each chat, with this time to think. */
  readonly thinkUs?: number;
  /** Tenant that floods, where fairness is measured. */
  readonly heavyTenant?: number;
  readonly events: readonly FleetEvent[];
  /** The policy and the seed that a config asks for. */
  readonly policy?: string;
  readonly seed?: number;
  /** The gateway under a policy; absent: equal replicas, and a queue without limits. */
  gateway?(policy: string): GatewaySetup;
  workload(readTrace: ReadTrace, seed: number): Workload;
}

/** S9 changes the fleet at this time. */
const changeUs = 300_000_000;
const secondUs = 1_000_000;

const conversation = (readTrace: ReadTrace, seed: number): Workload =>
  readTrace('conversation', seed);

const eight = {
  model: '8b-h100',
  replicas: 8,
  rates: [7.9],
  rate: 7.9,
  ttftScale: 1,
  events: [],
  workload: conversation,
} as const;

const slowed = (factor: number): Scenario => ({
  ...eight,
  id: `s9-slow${factor}`,
  title: `one replica of 8 is ${factor} times slower from 300 s`,
  rates: [6],
  rate: 6,
  events: [{ atUs: changeUs, row: 3, kind: 'slow', factor }],
});

export const scenarios: readonly Scenario[] = [
  {
    ...eight,
    id: 's1',
    title: 'conversation, 8 replicas',
    rates: [5, 6, 7, 7.9, 8.6, 9.2, 9.5],
  },
  {
    ...eight,
    id: 's1-closed',
    title: 'conversation, 8 replicas, closed loop in each chat',
    rates: [7.9, 9.2],
    thinkUs: secondUs,
  },
  {
    ...eight,
    id: 's2',
    title: 'conversation, 32 replicas',
    replicas: 32,
    rates: [30, 36.5],
    rate: 36.5,
  },
  {
    ...eight,
    id: 's3',
    title: 'conversation, 70B on 16 replicas',
    model: '70b-h100x4',
    replicas: 16,
    rates: [5.1, 6.2],
    rate: 6.2,
    // 12k-token prompts take 0.8 s of prefill alone.
    ttftScale: 3,
  },
  {
    ...eight,
    id: 's4',
    title: 'tool agents, 8 replicas',
    rates: [18, 24],
    rate: 24,
    workload: (_, seed) => generateToolAgent(6000, seed),
  },
  {
    ...eight,
    id: 's5',
    title: '150 tenants with 6k-token prefixes, 8 replicas',
    rates: [11, 12.5, 14.2],
    rate: 14.2,
    workload: (_, seed) => generateSharedPrefix(6000, seed),
  },
  {
    ...eight,
    id: 's6',
    title: 'Azure code, bursts, 4 replicas',
    replicas: 4,
    rates: [12, 19],
    rate: 19,
    workload: (readTrace, seed) => readTrace('azure-code', seed),
  },
  {
    ...eight,
    id: 's7',
    title: 'Azure chat, 16 replicas',
    replicas: 16,
    rates: [268, 300],
    rate: 300,
    workload: (readTrace, seed) => readTrace('azure-chat', seed),
  },
  {
    ...eight,
    id: 's7-burst',
    title: 'Azure chat, 4 replicas, a burst at 2.5 times the rate',
    replicas: 4,
    rates: [40],
    rate: 40,
    // In the trace's own time: from 600 s on, 150 s.
    workload: (readTrace, seed) =>
      withBurst(readTrace('azure-chat', seed), 600 * secondUs, 150 * secondUs, 2.5),
  },
  {
    ...eight,
    id: 's8',
    title: 'conversation, one tenant of ten sends 70 %, 1.3 times capacity, 8 replicas',
    rates: [12.7],
    rate: 12.7,
    heavyTenant: 0,
    workload: (readTrace, seed) => withTenants(readTrace('conversation', seed), floodShares, seed),
  },
  {
    ...eight,
    id: 's8-clients',
    title: 'ServeGen clients, 2 replicas',
    replicas: 2,
    rates: [400, 700],
    rate: 700,
    heavyTenant: 0,
    workload: (readTrace, seed) => readTrace('servegen', seed),
  },
  slowed(3),
  slowed(10),
  {
    ...eight,
    id: 's9-kill',
    title: 'one replica of 8 dies at 300 s and is back, cold, at 420 s',
    rates: [6],
    rate: 6,
    events: [
      { atUs: changeUs, row: 3, kind: 'kill' },
      { atUs: changeUs + 120 * secondUs, row: 3, kind: 'add' },
    ],
  },
  {
    ...eight,
    id: 's9-add',
    title: 'a ninth replica joins, cold, at 300 s',
    rates: [9.2],
    rate: 9.2,
    events: [{ atUs: changeUs, row: 8, kind: 'add' }],
  },
];

/** What S8 is compared with: its light tenants without the one that floods, and ten that all do. */
export const comparisons: readonly Scenario[] = [
  {
    ...eight,
    id: 's8-light',
    title: 'conversation, the nine light tenants of S8 alone, 8 replicas',
    rates: [3.81],
    rate: 3.81,
    heavyTenant: 0,
    workload: (readTrace, seed) => withTenants(readTrace('conversation', seed), lightShares, seed),
  },
  {
    ...eight,
    id: 's8-even',
    title: 'conversation, ten tenants alike, 1.3 times capacity, 8 replicas',
    rates: [12.7],
    rate: 12.7,
    heavyTenant: 0,
    workload: (readTrace, seed) => withTenants(readTrace('conversation', seed), evenShares, seed),
  },
];

export function scenarioOf(id: string): Scenario | undefined {
  return [...scenarios, ...comparisons].find((scenario) => scenario.id === id);
}

/** A trace at its own rate over eight replicas; undefined for a name nobody knows. */
export function traceScenario(name: string): Scenario | undefined {
  const trace = traceNames.find((known) => known === name);
  if (trace === undefined) return undefined;
  const rate = traceRates[trace];
  const workload = (readTrace: ReadTrace, seed: number) => readTrace(trace, seed);
  return { ...eight, id: trace, title: `trace ${trace}`, rates: [rate], rate, workload };
}

/** Requests per second of the slices as they were recorded; of those without times, 1. */
const traceRates: Readonly<Record<TraceName, number>> = {
  conversation: 3.18,
  'azure-code': 3.21,
  'azure-chat': 5.62,
  sharegpt: 1,
  servegen: 20.5,
};

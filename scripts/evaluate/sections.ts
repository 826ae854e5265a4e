/** The parts of docs/scheduling.md: what is run for each, its tables and its charts. */
import { ablationOf, type NamedConditions } from '../../src/simulation/ablation.ts';
import { figureBars } from '../../src/simulation/charts/figure-bars.ts';
import { lineChart } from '../../src/simulation/charts/line-chart.ts';
import { fairnessKeys, type Row, shownKeys, tableOf } from '../../src/simulation/figures.ts';
import { ruleNames } from '../../src/simulation/rules.ts';
import { scenarios } from '../../src/simulation/scenarios.ts';
import { numberText } from '../../src/simulation/summary.ts';
import { type Lab, plainly, scenarioNamed } from './lab.ts';

export interface Chart {
  readonly file: string;
  readonly alt: string;
  readonly svg: string;
}

export interface Section {
  readonly heading: string;
  readonly text: string;
  readonly tables: readonly (readonly (readonly string[])[])[];
  readonly charts: readonly Chart[];
}

/** Two engine steps: what ALGORITHMS calls H. */
const holdTokens = 16_384;
/** As many lines as a chart can show apart: the baselines, the best of each kind, and ours. */
const drawn: readonly string[] = [
  ...['round_robin', 'least_in_flight', 'chwbl', 'sglang_cache_aware', 'aibrix', 'dualmap'],
  ...['llm_d_precise', 'dynamo', 'min_ttft', 'lmetric', 'marginal_cost'],
];
const ours = ['marginal_cost', 'lmetric'] as const;
/** Where the state, and the brain around the rule, are varied. */
const ablationCases = [
  ['s1', 9.2],
  ['s2', 36.5],
  ['s5', 12.5],
] as const;
/** Rates between which the search for a capacity looks: an idle fleet, and one nobody holds. */
export const searchRates: Readonly<Record<string, readonly [number, number]>> = {
  s1: [1, 12],
  s2: [4, 48],
};

export function scenarioSections(lab: Lab, policies: readonly string[] = ruleNames): Section[] {
  return scenarios.map(({ id, title, model, rate, rates, ttftScale }): Section => {
    const rows = policies.map((policy) => lab.policy(id, rate, policy));
    const limits = ttftScale === 1 ? '' : ` Limits of the TTFT are times ${ttftScale}.`;
    const charts = [barsOf(id, title, 'goodput', rows)];
    const tables = [tableOf(rows, shownKeys)];
    if (rates.length > 1) {
      tables.push(ratesTable(lab, id, policies));
      const lines = policies.filter((policy) => drawn.includes(policy));
      if (rates.length > 3) charts.push(...curvesOf(lab, id, title, lines));
    }
    const heading = `${id.toUpperCase()}: ${title}`;
    return { heading, text: `Model ${model}, ${rate} requests/s.${limits}`, tables, charts };
  });
}

export function capacitySection(lab: Lab, policies: readonly string[] = ruleNames): Section {
  const ids = Object.keys(searchRates);
  const table = policies.map((policy) => [
    policy,
    ...ids.map((id) => numberText(capacity(lab, id, policy), 2)),
  ]);
  return {
    heading: 'Capacity',
    text:
      'Highest rate, in requests/s, with nine tenths of the goodput (1 s / 50 ms) of an idle fleet. Some ' +
      'tenth of the conversations has prompts too long for a first token within a second on any replica, so ' +
      `an idle fleet has ${ids.map((id) => `${numberText(idleGoodput(lab, id), 1)} % on ${id}`).join(', ')}. ` +
      `The search begins at ${ids.map((id) => searchRates[id]?.[0]).join(' and ')} requests/s.`,
    tables: [[['policy', ...ids.map((id) => `${id}, ${scenarioNamed(id).title}`)], ...table]],
    charts: [],
  };
}

const capacityShare = 0.9;
const capacities = new WeakMap<Lab, Map<string, number>>();

export function capacity(lab: Lab, id: string, policy: string): number {
  const known = capacities.get(lab) ?? new Map<string, number>();
  capacities.set(lab, known);
  const key = `${id} ${policy}`;
  const [low, high] = searchRates[id] ?? [0, 0];
  const goodput = capacityShare * idleGoodput(lab, id);
  const rate = known.get(key) ?? lab.rateWith(id, policy, goodput, low, high);
  known.set(key, rate);
  return rate;
}

function idleGoodput(lab: Lab, id: string): number {
  const [low] = searchRates[id] ?? [0];
  return lab.policy(id, low, 'min_ttft').stats.get('goodput')?.median ?? 0;
}

/** S5 beyond what its replicas can do. */
const cachedRate = 18;

/** S8 again, with the queue of the gateway: late binding, one queue or eight. */
export const fairConditions: readonly NamedConditions[] = [
  { ...plainly('marginal_cost'), name: 'marginal_cost, no hold' },
  { ...plainly('marginal_cost'), name: 'marginal_cost, hold 16k', holdTokens },
  {
    ...plainly('marginal_cost'),
    name: 'marginal_cost, hold 16k, 8 gateways',
    holdTokens,
    split: 8,
  },
  { ...plainly('least_in_flight'), name: 'least_in_flight, hold 16k', holdTokens },
];

/** Late binding with the load of a comparison: light tenants alone, and ten that all want too much. */
export const comparedIds = ['s8-light', 's8-even'] as const;
export function compared(lab: Lab, id: (typeof comparedIds)[number]): Row {
  const { rate } = scenarioNamed(id);
  return lab.row(id, rate, { ...plainly('marginal_cost'), name: `${id}, hold 16k`, holdTokens });
}

export function fairnessSection(lab: Lab): Section {
  const { rate } = scenarioNamed('s8');
  const rows = fairConditions.map((conditions) => lab.row('s8', rate, conditions));
  const cached = fairConditions.map((conditions) => lab.row('s5', cachedRate, conditions));
  return {
    heading: 'S8 and S5 with the queue in the gateway',
    text:
      'Requests wait in the gateway while every replica has more than 16,384 prompt tokens to ' +
      'prefill, and leave it in the order of their tenants’ service (VTC). With eight gateways each ' +
      'has a queue and counters of its own. Order has a price: whoever goes next takes the replica ' +
      'that has room, not the one that holds its prompt. Where many tenants wait (S5, 1.3 times its ' +
      'capacity) those within a quantum of the least served go by their caches (DLPM), and the caches ' +
      'stay warm; where one tenant is most of the queue (S8) its own order leaves nothing to choose.\n\n' +
      'The last table is about fairness: Jain’s index of the service of tenants that wait during a whole ' +
      'window of 10 s, and of 60 s, with the number of such windows; of service over max-min fair share, all ' +
      'tenants (which forgives much: FIFO has 0.98); and the wait of the light tenants in the gateway. S8-LIGHT is the light tenants alone, at the ' +
      'rate they have in S8. Only the tenant that floods waits all along in S8; S8-EVEN is ten tenants ' +
      'that all want more than their share. In 10 s each of ten tenants is given some ten requests of 13k tokens ' +
      'on average and 91k at most: turns that are exact to one request differ by as much as that ' +
      'request, which windows of 60 s even out.',
    tables: [
      withCorner(tableOf(rows, shownKeys), `s8, ${rate} requests/s`),
      withCorner(tableOf(cached, shownKeys), `s5, ${cachedRate} requests/s`),
      tableOf([...rows, ...comparedIds.map((id) => compared(lab, id))], fairnessKeys),
    ],
    charts: [barsOf('s8-hold', 'S8, light tenants', 'light_p50_ms', rows)],
  };
}

/** What the brain adds to the rule, and what it costs: the same policy in several settings. */
export function brainSection(lab: Lab): Section {
  const settings: readonly NamedConditions[] = ours.flatMap((policy) => [
    { ...plainly(policy), name: `${policy}, rule alone`, ruleAlone: true },
    { ...plainly(policy), name: `${policy}, in the brain` },
    { ...plainly(policy), name: `${policy}, in the brain, kv_tokens set`, limitKv: true },
  ]);
  return {
    heading: 'The rule and the brain',
    text:
      'The rule alone has an index of every block; the brain’s has geometric depths. With kv_tokens set ' +
      'the brain lets nothing in beyond 95 % of a cache: what does not fit waits, and takes what has room.',
    tables: ablationCases.map(([id, rate]) => {
      const rows = settings.map((conditions) => lab.row(id, rate, conditions));
      return withCorner(tableOf(rows, shownKeys), `${id}, ${rate} requests/s`);
    }),
    charts: [],
  };
}

export function ablationSection(lab: Lab): Section {
  const parts = ablationCases.map(([id, rate]) => {
    const rows = ours.flatMap(ablationOf).map((conditions) => lab.row(id, rate, conditions));
    const title = `${scenarioNamed(id).title}, ${rate} requests/s`;
    return {
      table: withCorner(tableOf(rows, shownKeys), `${id}, ${rate} requests/s`),
      chart: barsOf(`s10-${id}`, title, 'goodput', rows),
    };
  });
  return {
    heading: 'S10: state that is split or old',
    text:
      'The rule, the replicas and the requests are the same in every row; only what the rule sees ' +
      'differs. Proxies know what they sent themselves; an old view is renewed once in its age.',
    tables: parts.map(({ table }) => table),
    charts: parts.map(({ chart }) => chart),
  };
}

function ratesTable(lab: Lab, id: string, policies: readonly string[]): string[][] {
  const { rates } = scenarioNamed(id);
  const goodput = (policy: string, rate: number): string =>
    numberText(lab.policy(id, rate, policy).stats.get('goodput')?.median ?? 0, 1);
  return [
    ['goodput % at', ...rates.map((rate) => `${rate}/s`)],
    ...policies.map((policy) => [policy, ...rates.map((rate) => goodput(policy, rate))]),
  ];
}

function curvesOf(lab: Lab, id: string, title: string, policies: readonly string[]): Chart[] {
  const { rates } = scenarioNamed(id);
  const curve = (key: string, yLabel: string, logarithmic: boolean): Chart => ({
    file: `${id}-${key}-curve.svg`,
    alt: `${yLabel} over the rate, ${title}`,
    svg: lineChart({
      ...{ title, xLabel: 'requests/s', yLabel, logarithmic },
      lines: policies.map((policy) => ({
        name: policy,
        points: rates.map((rate) => ({
          x: rate,
          y: lab.policy(id, rate, policy).stats.get(key)?.median ?? 0,
        })),
      })),
    }),
  });
  return [curve('goodput', 'goodput %', false), curve('ttft_p99_ms', 'TTFT p99, ms', true)];
}

function barsOf(id: string, title: string, key: string, rows: readonly Row[]): Chart {
  const file = `${id}-${key}.svg`;
  return { file, alt: `${key} of each policy, ${title}`, svg: figureBars(title, key, rows) };
}

function withCorner(table: string[][], corner: string): string[][] {
  const [header = [], ...rest] = table;
  return [[corner, ...header.slice(1)], ...rest];
}

/** Steps of load to 2 and 4 times capacity and back: goodput, refusals, and what is left behind. */
import { quantile } from '../../src/lib/quantile.ts';
import { lineChart } from '../../src/simulation/charts/line-chart.ts';
import { numberText } from '../../src/simulation/summary.ts';
import type { Chart } from '../evaluate/sections.ts';
import type { Target } from '../evaluate/targets.ts';
import {
  acceptedWaitS,
  boundedQueue,
  evenRates,
  type LiveLab,
  ofPhase,
  phaseSeconds,
  singleRate,
  withStage,
} from './lab.ts';
import type { LiveRun, Phase } from './load.ts';
import { goodput, limitsText, secondsOf, tailsOf } from './measures.ts';
import { type LivePart, ms, tailsHeader, tailsRow } from './part.ts';
import type { QueueConfig } from './stage.ts';

const normalLoad = 0.5;
/** A second whose answers are this much slower than normal is not over it yet. */
const backWithin = 2;
const refusalMsMax = 20;
const sampleMs = 100;

interface StepPlan {
  readonly factor: number;
  readonly seconds: number;
  readonly queue: QueueConfig;
  readonly keys: 'one key' | 'ten keys';
}

interface Measured {
  readonly name: string;
  readonly file: string;
  readonly run: LiveRun;
  readonly phases: readonly Phase[];
  readonly depthMax: number;
  /** Of /healthz during the step. */
  readonly healthP99: number;
  /** Most answers per second of as many keys. */
  readonly capacity: number;
}

export async function stepsPart(lab: LiveLab): Promise<LivePart> {
  const bounded = { max: boundedQueue(lab.capacity) };
  const { step, longStep } = lab.seconds;
  const plans: readonly StepPlan[] = [
    { factor: 2, seconds: step, queue: bounded, keys: 'one key' },
    { factor: 4, seconds: longStep, queue: bounded, keys: 'one key' },
    { factor: 4, seconds: step, queue: bounded, keys: 'ten keys' },
    { factor: 4, seconds: step, queue: {}, keys: 'one key' },
  ];
  const steps: Step[] = [];
  for (const plan of plans) {
    const measured = await runStep(lab, plan);
    const isPromised = plan.queue.max !== undefined;
    const targets = isPromised ? targetsOf(measured, bounded.max) : [];
    steps.push({ ...measured, targets });
  }
  return {
    section: {
      heading: 'Step load: half of capacity, 2 and 4 times, half again',
      text:
        `\`queue.max\` is ${bounded.max}: throughput times the ${acceptedWaitS} s that somebody may wait. With its default ` +
        '(1,000) the wait is as long as such a queue takes to be served, which is the last row: the replicas ' +
        `stay busy, with answers too late for the limits (${limitsText}). The default suits a fleet of some ` +
        'hundred answers per second and clients that wait for seconds; those that send ' +
        '`x-sluice-deadline-ms` are refused when half of it has been waited.',
      tables: [
        [tailsHeader, ...steps.flatMap((of) => stepRows(of))],
        [
          ['', 'goodput, % of capacity', 'deepest queue', 'queue.max', 'back after, s'],
          ...steps.map((of) => [
            of.name,
            numberText((100 * stepGoodput(of)) / of.capacity, 1),
            String(of.depthMax),
            of.name.includes('default') ? '1000' : String(bounded.max),
            String(backAfter(of)),
          ]),
        ],
      ],
      charts: steps.flatMap((of) => chartsOf(of)),
    },
    targets: steps.flatMap(({ targets }) => targets),
  };
}

interface Step extends Measured {
  readonly targets: readonly Target[];
}

async function runStep(lab: LiveLab, plan: StepPlan): Promise<Measured> {
  const { seconds } = lab;
  const isOne = plan.keys === 'one key';
  const [spread, capacity] = isOne ? [singleRate, lab.capacityOfOne] : [evenRates, lab.capacity];
  const normal = { seconds: seconds.normal, rates: spread(normalLoad * capacity) };
  const phases = [normal, { seconds: plan.seconds, rates: spread(plan.factor * capacity) }, normal];
  return withStage(lab, plan.queue, async (load, stage) => {
    let depthMax = 0;
    const health: number[] = [];
    const look = setInterval(() => {
      void stage.queueDepth().then((depth) => {
        depthMax = Math.max(depthMax, depth);
      });
      void stage.healthMs().then((ms) => health.push(ms));
    }, sampleMs);
    const run = await load.open(phases).finally(() => clearInterval(look));
    const isDefault = plan.queue.max === undefined;
    const name = `${plan.factor} times, ${plan.keys}${isDefault ? ', default queue' : ''}`;
    const file = name.replaceAll(/[ ,]+/g, '-');
    return { name, file, run, phases, depthMax, capacity, healthP99: quantile(health, 0.99) };
  });
}

function stepRows({ name, run }: Measured): string[][] {
  return ['before', 'during', 'after'].map((when, phase) =>
    tailsRow(`${name}: ${when}`, tailsOf(ofPhase(run, phase))),
  );
}

/** Of the step without its first second, in which the queue fills. */
function stepGoodput({ run, phases }: Measured): number {
  const from = phases[0]?.seconds ?? 0;
  return goodput(run, from + 1, from + (phases[1]?.seconds ?? 0));
}

/** Seconds behind the step until no second is slow or refuses any more. */
function backAfter({ run, phases }: Measured): number {
  const from = (phases[0]?.seconds ?? 0) + (phases[1]?.seconds ?? 0);
  const seconds = secondsOf(run, phaseSeconds(phases));
  const normalP99 = tailsOf(ofPhase(run, 0)).wholeP99;
  const isSlow = ({ p99, refused }: (typeof seconds)[number]): boolean =>
    refused > 0 || p99 > backWithin * normalP99;
  return 1 + seconds.slice(from).findLastIndex(isSlow);
}

function targetsOf(step: Measured, queueMax: number): Target[] {
  const [before, during, after] = [0, 1, 2].map((phase) => tailsOf(ofPhase(step.run, phase)));
  if (before === undefined || during === undefined || after === undefined) return [];
  const share = (100 * stepGoodput(step)) / step.capacity;
  const back = backAfter(step);
  const against = `${step.name}, live`;
  return [
    {
      against,
      wanted: 'goodput >= 90 % of the maximum',
      found: `${numberText(share, 1)} %`,
      met: share >= 90,
      reason: '',
    },
    {
      against,
      wanted: `refused in < ${refusalMsMax} ms, p99`,
      found: `${ms(during.refusalP99)}, median ${ms(during.refusalP50)} of ${during.refused}`,
      met: during.refusalP99 < refusalMsMax,
      reason:
        `/healthz, which waits for nothing, had a p99 of ${ms(step.healthP99)} in the same moments. ` +
        (step.name.includes('ten keys')
          ? 'Some of the refused had waited, and gave their place to a key with fewer waiters.'
          : ''),
    },
    {
      against,
      wanted: 'p99 of those served <= 2 times normal',
      found: `${ms(during.wholeP99)}, normal ${ms(before.wholeP99)}`,
      met: during.wholeP99 <= 2 * before.wholeP99,
      reason: '',
    },
    {
      against,
      wanted: 'queue bound kept, nothing lost, back at once',
      found: `deepest ${step.depthMax} of ${queueMax}, lost ${before.lost + during.lost + after.lost}, back after ${back} s`,
      met: step.depthMax <= queueMax && before.lost + during.lost + after.lost === 0 && back <= 2,
      reason: '',
    },
  ];
}

function chartsOf({ file, name, run, phases }: Measured): Chart[] {
  const seconds = secondsOf(run, phaseSeconds(phases));
  const line = (of: (second: (typeof seconds)[number]) => number, label: string) => ({
    name: label,
    points: seconds.map((second, x) => ({ x, y: of(second) })),
  });
  const axis = { title: name, xLabel: 'seconds' };
  return [
    {
      file: `live-${file}-rates.svg`,
      alt: `offered, good and refused per second, ${name}`,
      svg: lineChart({
        ...axis,
        yLabel: 'requests/s',
        lines: [
          line(({ offered }) => offered, 'offered'),
          line(({ good }) => good, 'good answers'),
          line(({ refused }) => refused, 'refused'),
        ],
      }),
    },
    {
      file: `live-${file}-p99.svg`,
      alt: `p99 of answers by the second they were due, ${name}`,
      svg: lineChart({
        ...axis,
        yLabel: 'answer p99, ms',
        lines: [line(({ p99 }) => p99, 'served')],
      }),
    },
  ];
}

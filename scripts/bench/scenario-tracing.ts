/**
 * What traces cost: the processor time of a gateway that sends spans of one request in a hundred to a
 * collector, against that of one that sends none, one request in ten a stream of 16 tokens. A third one
 * sends none either: its ratio to the second is what this run cannot tell from nothing. The rate is 8,000
 * requests per second, halved until it is held: of more than a machine carries only the queue is seen.
 * The collector takes the bytes and is part of this process, whose processor time is nobody's here.
 */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BenchContext, Scenario } from './bench-context.ts';
import { type Figure, formatNumber, median } from './figures.ts';
import { measure } from './measure.ts';
import { threadNs } from './procfs.ts';
import { type ReplicaFleet, startReplicas } from './replicas.ts';
import { startGateway, type Target } from './targets.ts';

const loads = [
  { share: 0.9, connections: 320 },
  { share: 0.1, connections: 64, stream: true, outputTokens: 16 },
] as const;
/** What the tracer has of a turn is sent by then: it sends once a second. */
const settleMs = 1500;
const promisedRate = 8000;
/** A rate that is held, of what was asked for. */
const heldShare = 0.95;

/** What a gateway did in one turn. */
interface Turn {
  readonly requests: number;
  readonly failed: number;
  readonly perSecond: number;
  /** Microseconds of processor time for each request, of all threads and of each. */
  readonly cpuUs: number;
  readonly threads: Readonly<Record<string, number>>;
}

const kinds = ['traced', 'not', 'control'] as const;
type Kind = (typeof kinds)[number];
type Round = Readonly<Record<Kind, Turn>>;

export const tracing: Scenario = {
  name: 'tracing',
  question: 'What do traces of 1 % of the requests cost at 8,000 requests per second?',
  async run(bench) {
    let bytes = 0;
    const collector = createServer((request, response) => {
      request.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
      });
      request.on('end', () => response.end());
    });
    await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve));
    const { port } = collector.address() as AddressInfo;
    try {
      const endpoint = `http://127.0.0.1:${port}/v1/traces`;
      const fleet = await startReplicas(bench, 4, 'uniform:8ms-24ms');
      const rounds: Round[] = [];
      let rate = bench.parameter({ smoke: 500, full: promisedRate });
      // Two processes of one program differ for as long as they live: each pair is one of several.
      for (let set = 0; set < bench.parameter({ smoke: 1, full: 3 }); set++) {
        rate = await measureSet(bench, fleet, endpoint, rate, rounds);
      }
      return { figures: figuresOf(rounds, rate, bytes), skipped: [], data: rounds };
    } finally {
      collector.closeAllConnections();
      collector.close();
    }
  },
};

/** One gateway of each kind, from its start to its end; returns the rate, which may be lower than asked. */
async function measureSet(
  bench: BenchContext,
  fleet: ReplicaFleet,
  endpoint: string,
  wantedRate: number,
  rounds: Round[],
): Promise<number> {
  const sections = { tracing: { endpoint, sample: 0.01 } };
  const targets: Record<Kind, Target> = {
    traced: await startGateway(bench, fleet, 'marginal_cost', { sections }),
    not: await startGateway(bench, fleet, 'marginal_cost'),
    control: await startGateway(bench, fleet, 'marginal_cost'),
  };
  const turnMs = bench.parameter({ smoke: 1000, full: 2000 });
  let rate = wantedRate;
  for (const kind of kinds) {
    // What is compiled while it runs is slow at first.
    await turnOf(bench, targets[kind], rate / 2, 2 * turnMs);
    const { perSecond } = await turnOf(bench, targets[kind], rate, turnMs);
    if (perSecond < heldShare * rate) rate /= 2;
  }
  for (let round = 0; round < bench.parameter({ smoke: 1, full: 8 }); round++) {
    const turns = new Map<Kind, Turn>();
    // Whoever goes first in one round goes last in the next.
    for (let i = 0; i < kinds.length; i++) {
      const kind = kinds[(i + round) % kinds.length] as Kind;
      turns.set(kind, await turnOf(bench, targets[kind], rate, turnMs));
    }
    rounds.push(Object.fromEntries(turns) as Round);
  }
  for (const { children } of Object.values(targets)) {
    await Promise.all(children.map((child) => child.stop()));
  }
  return rate;
}

async function turnOf(
  bench: BenchContext,
  gateway: Target,
  rate: number,
  durationMs: number,
): Promise<Turn> {
  const pid = gateway.children[0]?.pid as number;
  const before = threadNs(pid);
  const measured = await Promise.all(
    loads.map(({ share, ...shape }) =>
      measure(bench, gateway, { ...shape, requestRate: rate * share, warmupMs: 0, durationMs }),
    ),
  );
  await sleep(settleMs);
  const sum = (of: (load: (typeof measured)[number]) => number): number =>
    measured.reduce((total, load) => total + of(load), 0);
  const requests = sum(({ report }) => report.sluice.sent);
  const threads: Record<string, number> = {};
  for (const [name, ns] of threadNs(pid)) {
    threads[name] = (ns - (before.get(name) ?? 0)) / 1000 / requests;
  }
  return {
    requests,
    failed: sum(({ report }) => report.failed),
    perSecond: sum(({ report }) => report.request_throughput),
    cpuUs: Object.values(threads).reduce((total, us) => total + us, 0),
    threads,
  };
}

function figuresOf(rounds: readonly Round[], rate: number, bytes: number): Figure[] {
  const ratio = (name: string, kind: Kind, floor?: number): Figure => {
    const ratios = rounds.map((round) => round[kind].cpuUs / round.not.cpuUs);
    const us = (of: Kind) => median(rounds.map((round) => round[of].cpuUs)).toFixed(1);
    return {
      ...{ name, value: median(ratios), unit: 'x', better: 'lower' },
      detail: `${us(kind)} over ${us('not')} us; ${spread(ratios)}`,
      ...(floor !== undefined && { floor }),
    };
  };
  const turns = rounds.flatMap((round) => Object.values(round));
  return [
    ratio('CPU per request, traced / not', 'traced', 1.03),
    ratio('CPU per request, not / not', 'control'),
    ...threadFigures(rounds),
    { name: 'rate', value: rate, unit: 'requests/s', better: 'higher' },
    {
      name: 'errors',
      value: turns.reduce((sum, turn) => sum + turn.failed, 0),
      ...{ unit: '', better: 'lower', floor: 0 },
    },
    {
      name: 'spans that reached the collector',
      value: bytes / 1024,
      ...{ unit: 'KiB', better: 'higher' },
    },
  ];
}

/** Where the time goes: medians of the differences within a round. */
function threadFigures(rounds: readonly Round[]): Figure[] {
  const names = new Set(rounds.flatMap(({ traced }) => Object.keys(traced.threads)));
  const more = (kind: Kind, name: string): number[] =>
    rounds.map((round) => (round[kind].threads[name] ?? 0) - (round.not.threads[name] ?? 0));
  return [...names].map((name) => {
    const [traced, control] = [more('traced', name), more('control', name)];
    return {
      ...{ name: `more in ${name} for each request`, value: median(traced), unit: 'us' },
      better: 'lower',
      detail: `${spread(traced)}; not - not ${formatNumber(median(control))}`,
    };
  });
}

/** The middle half, and how many there were. */
function spread(values: readonly number[]): string {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => formatNumber(sorted[Math.floor(share * (sorted.length - 1))] ?? 0);
  return `${at(0.25)} to ${at(0.75)} in the middle half of ${sorted.length} rounds`;
}

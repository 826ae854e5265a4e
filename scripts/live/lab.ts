/** What every live scenario gets: the fleet, its capacity, the length of a phase, and who says how far it is. */
import type { BenchContext } from '../bench/bench-context.ts';
import type { ReplicaFleet } from '../bench/replicas.ts';
import { LiveLoad, type LiveRun, type Phase } from './load.ts';
import { throughput } from './measures.ts';
import { heavy, tenantCount } from './requests.ts';
import { places, type QueueConfig, replicas, type Stage, startStage } from './stage.ts';

export interface LiveLab {
  readonly bench: BenchContext;
  readonly fleet: ReplicaFleet;
  /** Most answers per second: of all keys, and of one, whose few prompts the caches hold. */
  readonly capacity: number;
  readonly capacityOfOne: number;
  /** Seconds of each kind of phase. */
  readonly seconds: LiveSeconds;
}

type Unmeasured = Omit<LiveLab, 'capacity' | 'capacityOfOne'>;

export interface LiveSeconds {
  readonly capacity: number;
  /** Load that is normal: what the others are compared with. */
  readonly normal: number;
  readonly fairness: number;
  readonly step: number;
  readonly longStep: number;
}

/** As many wait as run, so that no place is free while an answer is on its way to the load. */
const saturating = 2 * replicas * places;
/** Connections, code and estimates are warm behind it. */
const warmSeconds = 2;

/** `use` on a gateway of its own, warm; it is ended afterwards. */
export async function withStage<T>(
  lab: Unmeasured,
  queue: QueueConfig,
  use: (load: LiveLoad, stage: Stage) => Promise<T>,
): Promise<T> {
  const stage = await startStage(lab.bench, lab.fleet, queue);
  const load = new LiveLoad(stage.port, lab.bench.seed);
  try {
    await load.closed(saturating / 2, warmSeconds);
    return await use(load, stage);
  } finally {
    load.close();
    await stage.gateway.stop();
  }
}

/**
 * Answers per second with all places taken, late ones as well, for here half of the requests wait; behind
 * the first second. Of several windows the best:
 * other work on the machine only takes away.
 */
export function measureCapacity(lab: Unmeasured, tenants: number): Promise<number> {
  const { capacity: seconds } = lab.seconds;
  return withStage(lab, {}, async (load) => {
    const run = await load.closed(saturating, seconds, tenants);
    const starts = Array.from({ length: seconds - windowSeconds }, (_, i) => i + 1);
    return Math.max(...starts.map((from) => throughput(run, from, from + windowSeconds)));
  });
}
const windowSeconds = 5;

/** As many waiters as the replicas take up within the wait that is accepted. */
export function boundedQueue(capacity: number): number {
  return Math.max(1, Math.round(acceptedWaitS * capacity));
}
export const acceptedWaitS = 0.4;

/** Rates of all tenants: that of the one that may flood, and the sum of the others. */
export function rates(ofHeavy: number, ofLight: number): number[] {
  return Array.from({ length: tenantCount }, (_, tenant) =>
    tenant === heavy ? ofHeavy : ofLight / (tenantCount - 1),
  );
}

/** The same rate for every tenant. */
export function evenRates(total: number): number[] {
  return rates(total / tenantCount, total - total / tenantCount);
}

/** One key sends everything. */
export function singleRate(total: number): number[] {
  return rates(total, 0);
}

export const ofPhase = ({ records }: LiveRun, phase: number) =>
  records.filter((record) => record.phase === phase);

export const phaseSeconds = (phases: readonly Phase[]): number =>
  phases.reduce((sum, { seconds }) => sum + seconds, 0);

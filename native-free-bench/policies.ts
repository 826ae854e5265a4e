/**
 * What does it cost to pick a replica? One pick over N candidates, for every policy, and one whole
 * decision of the brain (arrive, pick, count, release) with a sink that does nothing. Writing down what
 * a decision was made from, as the scheduler does, is a row of its own.
 *
 * The number includes the loop around it and, for each pick, the request that starts on the picked
 * replica and one that ends on a random replica (row `loads change only`: subtract it). Baseline of
 * each N: a scan over objects with the filter inside, the way a pick is usually written.
 * Claims: least_in_flight at 64 replicas stays below 100 ns net of that row, and single decisions at 64
 * replicas, each timed alone less the cost of the timer, stay below 10 µs at p99. Prompts have 24 blocks.
 */
import { performance } from 'node:perf_hooks';
import type { PrefixSource } from '../src/dispatch/arrival.ts';
import { Brain } from '../src/dispatch/brain.ts';
import { Candidates, type ReplicaLoad } from '../src/dispatch/candidates.ts';
import { filterNames } from '../src/dispatch/choice.ts';
import { type DecisionSink, Verdict } from '../src/dispatch/decisions.ts';
import { createArrival, createRelease } from '../src/dispatch/empty-records.ts';
import type { PickRequest } from '../src/dispatch/policies/policy.ts';
import { policyFactory, policyNames } from '../src/dispatch/policies/registry.ts';
import { createPrng } from '../src/lib/prng.ts';
import { prefixBlockBytes, prefixDepths } from '../src/protocol/prefix-hash.ts';
import { Explainer } from '../src/scheduler/explainer.ts';
import { explainRecords } from '../src/shm/explain.layout.ts';
import { createExplain } from '../src/shm/explain.ts';
import { createRequestSlots, RequestSlots } from '../src/shm/request-slots.ts';
import { createBench, type Measurement, netFigure } from './harness.ts';

const bench = createBench('policies', 'What does it cost to pick a replica?');
const picks = bench.parameter('picks_per_call', { smoke: 256, full: 4096 });
const singles = bench.parameter('single_decisions', { smoke: 2000, full: 200_000 });
const sizes = bench.parameter('replicas', { smoke: '4,64', full: '4,64,256,1024' });

/** Prompt of the claims: 24 blocks of 512 tokens, of which a replica may hold any part. */
const promptTokens = 24 * 512;
const request: PickRequest = {
  ...{ promptTokens, outputTokens: 256, matched: new Int32Array(1024), key0: 1, key1: 1 },
};
const costs = { prefillUs: 21.2, residentUs: 0.06 };
const loadWith = (inFlight: number, weight: number): ReplicaLoad => {
  const tokens = { pendingTokens: inFlight * 100, contextTokens: inFlight * promptTokens };
  return { inFlight, weight, ...tokens, roomTokens: Number.POSITIVE_INFINITY, ...costs };
};

/** The cheapest and the dearest way to decide. */
const brainPolicies = ['least_in_flight', 'marginal_cost'];
/** Prompts that begin alike, and the depth down to which they do. */
const prefixGroups = 64;
const sharedDepths = 6;

/** The fleet of the claims. */
const claimedSize = 64;

interface NaiveReplica {
  readonly row: number;
  readonly healthy: boolean;
  readonly maxInFlight: number;
  inFlight: number;
}

for (const size of sizes.split(',').map(Number)) {
  const baseline = measureNaive(size);
  let turn = 0;
  const loop = measurePick(size, 'loads change only', () => ++turn % size, baseline);
  for (const name of policyNames) {
    const factory = policyFactory(name);
    if (factory === undefined) throw new Error(`no policy ${name}`);
    const policy = factory(createPrng(bench.seed));
    const cost = measurePick(
      size,
      name,
      (candidates) => policy.pick(candidates, request),
      baseline,
    );
    const isClaimed = name === 'least_in_flight' && size === claimedSize;
    if (isClaimed) bench.figure(netFigure(cost, loop, 100));
  }
  if (size <= 256) {
    for (const policy of brainPolicies) measureBrain(size, policy, baseline);
  }
  if (size <= 256) measureRecord(size, baseline);
  if (size === claimedSize) for (const policy of brainPolicies) measureSingles(size, policy);
}
bench.finish();

function loadsOf(size: number): number[] {
  const random = createPrng(bench.seed);
  return Array.from({ length: size }, () => 8 + random.below(56));
}

function measureNaive(size: number): Measurement {
  const random = createPrng(bench.seed);
  const replicas: NaiveReplica[] = loadsOf(size).map((inFlight, row) => {
    return { row, healthy: true, maxInFlight: 256, inFlight };
  });
  return bench.measure(`objects, scan and filter, N=${size}`, picks, () => {
    let sum = 0;
    for (let i = 0; i < picks; i++) {
      const able = replicas.filter((r) => r.healthy && r.inFlight < r.maxInFlight);
      const best = able.reduce((a, b) => (b.inFlight < a.inFlight ? b : a));
      best.inFlight++;
      let ending = random.below(size);
      while (replicas[ending]!.inFlight === 0) ending = (ending + 1) % size;
      replicas[ending]!.inFlight--;
      sum += best.row;
    }
    return sum;
  });
}

function measurePick(
  size: number,
  name: string,
  pick: (candidates: Candidates) => number,
  baseline: Measurement,
): Measurement {
  const random = createPrng(bench.seed);
  const candidates = new Candidates(size);
  for (const [row, load] of loadsOf(size).entries())
    candidates.set(row, loadWith(load, 1 + (row % 3)));
  const { inFlight, weight } = candidates;
  return bench.measure(
    `${name}, N=${size}`,
    picks,
    () => {
      let sum = 0;
      for (let i = 0; i < picks; i++) {
        const picked = pick(candidates);
        candidates.set(picked, loadWith(inFlight[picked]! + 1, weight[picked]!));
        let ending = random.below(size);
        while (inFlight[ending] === 0) ending = (ending + 1) % size;
        candidates.set(ending, loadWith(inFlight[ending]! - 1, weight[ending]!));
        sum += picked;
      }
      return sum;
    },
    baseline,
  );
}

/** Prompts of 24 blocks in groups with a common beginning; behind it each is its own. */
function prefixesOf(slots: number): PrefixSource {
  const depths = prefixDepths.filter((depth) => depth * 512 <= promptTokens);
  const random = createPrng(bench.seed);
  const stride = 2 * depths.length;
  const words = Int32Array.from({ length: slots * stride }, () => random.next());
  for (let slot = prefixGroups; slot < slots; slot++) {
    const model = (slot % prefixGroups) * stride;
    words.copyWithin(slot * stride, model, model + 2 * sharedDepths);
  }
  return {
    ...{ words, depths, blockBytes: prefixBlockBytes },
    ...{ startOf: (slot) => slot * stride, countOf: () => depths.length },
  };
}

/** One decision: the oldest request ends, a new one arrives and is dispatched. */
function busyBrain(size: number, policy: string): { brain: Brain; decide(): void } {
  const nothing = (): void => {};
  const sink: DecisionSink = {
    ...{
      placed: nothing,
      admitted: nothing,
      fellBack: nothing,
      settledLimits: nothing,
      mayGoOn: nothing,
      followed: nothing,
      batchBegins: nothing,
      batchEnds: nothing,
      dispatch: nothing,
      hedge: nothing,
      hedgeEnded: nothing,
      dropped: nothing,
      refuse: nothing,
      abort: nothing,
      attemptEnded: nothing,
      retry: nothing,
    },
  };
  const slots = 4096;
  const brain = new Brain(
    {
      ...{ slots, replicaRows: 256, tenants: 1, prefixes: prefixesOf(slots), seed: bench.seed },
      models: [{ policy, sessionAffinity: false, holdTokens: Number.POSITIVE_INFINITY }],
      ...{ queueMax: 1000, queueTimeoutMs: 30_000 },
      retry: { maxAttempts: 3, budget: 0.2, budgetMin: 3 },
      breaker: {
        ...{ mode: 'window', window: 10, failureRate: 0.5, consecutive: 5, openUs: 5e6 },
        ...{ maxEjected: 0.5, panicBelow: 0.5 },
      },
      hedge: { automatic: true, budget: 0.02 },
      slowStartUs: 10e6,
    },
    sink,
  );
  for (let row = 0; row < size; row++) {
    const facts = {
      ...{ epoch: 1, model: 0, active: true, healthy: true, maxInFlight: 256, weight: 1 },
      ...{ identity: row, kvTokens: 0, ...costs },
    };
    brain.updateReplica(row, facts, 0);
  }
  const release = { ...createRelease(), attempt: 1, verdict: Verdict.good, settled: true };
  const arrival = {
    ...createArrival(),
    ...{ promptTokens, maxTokens: 256, streams: true, head0: 1, head1: 1 },
  };
  const running = Math.min(size * 8, slots / 2);
  let now = 1;
  let next = 0;
  const arrive = (): void => {
    now += 10;
    arrival.slot = next % slots;
    arrival.generation = Math.floor(next / slots) + 1;
    arrival.publishedUs = now;
    arrival.deadlineUs = now + 6e9;
    brain.arrive(arrival, now);
    next++;
  };
  while (next < running) arrive();
  const decide = (): void => {
    const oldest = next - running;
    release.slot = oldest % slots;
    release.generation = Math.floor(oldest / slots) + 1;
    brain.release(release, now);
    arrive();
  };
  return { brain, decide };
}

function measureBrain(size: number, policy: string, baseline: Measurement): void {
  const { brain, decide } = busyBrain(size, policy);
  bench.measure(
    `whole decision, ${policy}, N=${size}`,
    picks,
    () => {
      for (let i = 0; i < picks; i++) decide();
      return brain.attempts.running;
    },
    baseline,
  );
}

/** The record of a decision among all candidates. */
function measureRecord(size: number, baseline: Measurement): void {
  const slots = 4096;
  const table = new RequestSlots(createRequestSlots(slots), slots);
  const explainer = new Explainer(createExplain(explainRecords), table, { version: 1 });
  const candidates = new Candidates(size);
  for (const [row, load] of loadsOf(size).entries()) candidates.set(row, loadWith(load, 1));
  const choice = {
    ...{
      candidates,
      index: size - 1,
      request,
      isMatched: true,
      isBySession: false,
      isPinned: false,
    },
    ...{ members: size, filtered: new Int32Array(filterNames.length) },
  };
  let slot = 0;
  bench.measure(
    `record of a decision, N=${size}`,
    picks,
    () => {
      for (let i = 0; i < picks; i++) explainer.placed(slot++ % slots, 1, 0, choice);
      return slot;
    },
    baseline,
  );
}

/** Each decision between two looks at the clock, less the median of looks with nothing between. */
function measureSingles(size: number, policy: string): void {
  const { brain, decide } = busyBrain(size, policy);
  const nothing = (): void => {};
  for (const call of [decide, nothing]) timeEach(singles, call); // warm-up
  const timer = median(timeEach(singles, nothing));
  const sorted = timeEach(singles, decide).map((ns) => Math.max(ns - timer, 0));
  bench.hash(brain.attempts.running);
  const at = (share: number): number => sorted[Math.floor((singles - 1) * share)]!;
  const detail = `${singles} decisions timed one by one, less ${timer.toFixed(0)} ns of the timer`;
  const limits = { unit: 'ns', better: 'lower', floor: 10_000, detail } as const;
  bench.figure({ name: `single decision, ${policy}, N=${size}, p99`, value: at(0.99), ...limits });
  bench.figure({
    name: `single decision, ${policy}, N=${size}, p50`,
    value: at(0.5),
    ...limits,
    aim: 2000,
  });
}

/** Nanoseconds of each call, sorted. */
function timeEach(count: number, call: () => void): Float64Array {
  const times = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    call();
    times[i] = (performance.now() - start) * 1e6;
  }
  return times.sort();
}

function median(sorted: Float64Array): number {
  return sorted[sorted.length >> 1]!;
}

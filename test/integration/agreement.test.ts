/**
 * A gateway and the simulator agree: the same config and seed, the same requests, the same order of
 * arrivals, first tokens and ends, hence the same replica for each request, or none.
 *
 * The simulator runs first and says in which order things happen. The gateway serves the same bytes over
 * modelled engines whose gates let one thing happen at a time, in that order.
 */
import { expect, test } from 'vitest';
import { configFromObject } from '../../src/config/load.ts';
import type { ConfigInput, PolicyName } from '../../src/config/schema.ts';
import { createPrng, type Prng } from '../../src/lib/prng.ts';
import { drawExponential } from '../../src/lib/variates.ts';
import { engineModel } from '../../src/replica/engine/engine-model.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { BrainRouter } from '../../src/simulation/brain-router.ts';
import { simulate } from '../../src/simulation/driver.ts';
import { Outcome } from '../../src/simulation/records.ts';
import { createReplay } from '../../src/simulation/replay/replay.ts';
import { type LoggedRequest, readRequestLog } from '../../src/simulation/replay/request-log.ts';
import type { Router, RouterContext } from '../../src/simulation/router.ts';
import {
  expectQuiet,
  type GatewayProcess,
  type TestEngine,
  withGateway,
} from '../support/gateway.ts';
import { model, openStream, type Reading, withReplicas } from '../support/scenario.ts';
import { eventually } from '../support/until.ts';

const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);
console.info(`SEED=${seed}`);

const requests = 150;
const meanGapMs = 40;
/** More at once than the replicas take: some wait, and not for so long that their age counts. */
const burst = { from: 60, to: 90, gapMs: 2 };
/** Replicas that differ in all that policies weigh, and are full at times. */
const replicaKeys = [
  { max_in_flight: 5 },
  { max_in_flight: 5, weight: 2 },
  { max_in_flight: 6, prefill_us: 40 },
  { max_in_flight: 5, weight: 1.5, resident_us: 0.1 },
];

/** Prompts that share beginnings; sessions, keys, priorities; limits on answers. */
function requestLog(random: Prng): string {
  const text = (bytes: number): string => `${random.next()} `.repeat(bytes).slice(0, bytes);
  const beginnings = Array.from({ length: 8 }, () => text(3000 + random.below(20_000)));
  const oneOf = <T>(list: readonly T[]): T => list[random.below(list.length)] as T;
  let atMs = 0;
  const lines = Array.from({ length: requests }, (_, i) => {
    const isBurst = i > burst.from && i < burst.to;
    atMs += isBurst ? burst.gapMs : drawExponential(random) * meanGapMs;
    const content = `${text(200 + random.below(6000))}[[fault:hold-after=1]]`;
    const usage = random.below(4) > 0 ? { stream_options: { include_usage: true } } : {};
    const session = random.below(4) === 0 ? { session_id: `s${random.below(6)}` } : {};
    const messages = [
      { role: 'system', content: oneOf(beginnings) },
      { role: 'user', content },
    ];
    const limits = { stream: true, max_tokens: 2 + random.below(60) };
    const body = JSON.stringify({ model, messages, ...limits, ...usage, ...session });
    const headers = {
      authorization: `Bearer ${random.below(5)}`,
      ...(random.below(5) === 0 ? { 'x-sluice-priority': oneOf(['-80', '-20', '20', '80']) } : {}),
      ...(random.below(8) === 0 ? { 'x-session-id': `h${random.below(3)}` } : {}),
    };
    return JSON.stringify({ at_ms: atMs, headers, body });
  });
  return lines.join('\n');
}

function configOver(urls: readonly string[], policy: PolicyName, engine: TestEngine): ConfigInput {
  const replicas = replicaKeys.map((keys, i) => ({
    url: urls[i] ?? '',
    name: `r${i + 1}`,
    ...keys,
  }));
  const models = [{ name: model, policy, replicas }];
  return {
    listen: { engine },
    memory: { slots: 128 },
    scheduler: { seed: 1 + (seed % 1000) },
    models,
  };
}

/** What happened, and what the brain had then. */
interface Moment {
  readonly what: 'arrival' | 'first token' | 'end';
  readonly request: number;
  readonly state: { readonly inFlight: readonly number[]; readonly queued: number };
}

/** Everything that happens in the simulation, in its order. */
function simulated(log: readonly LoggedRequest[], input: ConfigInput) {
  const loaded = configFromObject(input);
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.problems));
  const engine = engineModel('8b-h100');
  const { workload, gateway } = createReplay(log, loaded.config, engine);
  const moments: Moment[] = [];
  const { records } = simulate({
    ...{ workload, model: engine, replicas: replicaKeys.length, events: [], warmUpShare: 0 },
    seed: loaded.config.scheduler.seed,
    createRouter: (context) =>
      watched(context, moments, (watching) => {
        return new BrainRouter({ workload, setup: gateway(), split: 1 }, watching);
      }),
  });
  return { moments, records, workload };
}

function watched(
  context: RouterContext,
  moments: Moment[],
  create: (context: RouterContext) => Router,
): Router {
  const inFlight = replicaKeys.map(() => 0);
  const rowOf = new Map<number, number>();
  let queued = 0;
  const router = create({
    ...context,
    sink: {
      dispatch(request, row) {
        context.sink.dispatch(request, row);
        rowOf.set(request, row);
        inFlight[row]! += 1;
        queued--;
      },
      refuse(request) {
        context.sink.refuse(request);
        queued--;
      },
    },
  });
  const note = (what: Moment['what'], request: number): void => {
    moments.push({ what, request, state: { inFlight: [...inFlight], queued } });
  };
  return {
    get nextTimerUs() {
      return router.nextTimerUs;
    },
    tick: (nowUs) => router.tick(nowUs),
    arrive(request, nowUs) {
      queued++;
      router.arrive(request, nowUs);
      note('arrival', request);
    },
    firstToken(request, nowUs) {
      router.firstToken(request, nowUs);
      note('first token', request);
    },
    finished(request, nowUs) {
      inFlight[rowOf.get(request)!]! -= 1;
      router.finished(request, nowUs);
      note('end', request);
    },
    failed: (request, retry, nowUs) => router.failed(request, retry, nowUs),
    replicaUp: (row, nowUs) => router.replicaUp(row, nowUs),
    replicaDown: (row, nowUs) => router.replicaDown(row, nowUs),
  };
}

/** Serves the log in the order of the moments. Returns the answers. */
async function served(
  gateway: GatewayProcess,
  replicas: readonly Replica[],
  log: readonly LoggedRequest[],
  { moments, records }: ReturnType<typeof simulated>,
): Promise<Reading[]> {
  const answers: Promise<Reading>[] = [];
  for (const [i, { what, request, state }] of moments.entries()) {
    const id = `agree-${request}`;
    const gate = replicas[records.row[request]!]?.gate;
    const isHeld = () =>
      eventually(`request ${request} is at its replica`, () => gate?.holds(id) === true);
    if (what === 'arrival') {
      const { body, headers } = log[request]!;
      const all = { ...Object.fromEntries(headers), 'x-request-id': id };
      answers[request] = openStream(gateway.url, body.toString(), all);
      answers[request]?.catch(() => {}); // whoever waits for it says what broke
      if (records.outcome[request] === Outcome.refused) await answers[request];
      else if (records.dispatchUs[request] === records.sentUs[request]) await isHeld();
      else await untilState(gateway, state);
      continue;
    }
    await isHeld();
    gate?.releaseOf(id);
    const answer = await answers[request]!;
    if (what === 'first token') await answer.until((text) => text.includes(':0:'));
    else await answer.ended;
    // News of one forwarder is heard in its order; only an arrival, on its own ring, could overtake it.
    if (moments[i + 1]?.what !== 'arrival') continue;
    if (what === 'first token') await untilHeard(gateway);
    else await untilState(gateway, state);
  }
  return Promise.all(answers);
}

/** The news of a first token is on its way before the token: an empty ring has been heard. */
function untilHeard(gateway: GatewayProcess): Promise<void> {
  return eventually('the news is heard', async () => (await gateway.slots()).rings.event === 0);
}

/** Every end is one request less, so the counts are those of the moment and of none before. */
function untilState(gateway: GatewayProcess, { inFlight, queued }: Moment['state']): Promise<void> {
  return eventually('the scheduler has what the brain has', async () => {
    const { queue_depth, replicas } = await gateway.cluster();
    return queue_depth === queued && replicas.every((row, i) => row.in_flight === inFlight[i]);
  });
}

const policies = [
  'marginal_cost',
  'lmetric',
  'cache_aware',
  'power_of_two',
  'prefix_affinity',
] as const;

test.each([...policies.map((policy) => ['uws', policy] as const), ['node', policies[0]] as const])(
  'on %s, %s sends each request where the simulator sends it',
  { timeout: 60_000 },
  async (engine, policy) => {
    const log = readRequestLog(requestLog(createPrng(seed)));
    const profile = 'engine:8b-h100,speed=1000';
    await withReplicas(replicaKeys.length, { profile, hold: true }, async (replicas) => {
      const config = configOver(
        replicas.map(({ url }) => url),
        policy,
        engine,
      );
      const run = simulated(log, config);
      const { records, workload, moments } = run;
      await withGateway({ config }, async (gateway) => {
        const answers = await served(gateway, replicas, log, run);
        const rows = answers.map(({ headers }) => headers.get('x-sluice-replica'));
        expect(rows).toEqual(Array.from(records.row, (row) => (row < 0 ? null : `r${row + 1}`)));
        for (const [i, answer] of answers.entries()) {
          const usage = /"prompt_tokens":(\d+),"completion_tokens":(\d+)/.exec(answer.text());
          if (usage === null) continue;
          expect(Number(usage[1])).toBe(workload.promptTokens[i]);
          expect(Number(usage[2])).toBe(workload.outputTokens[i]);
        }
        await expectQuiet(gateway);
      });
      // The trace asks something of a policy: all replicas serve, and some requests wait.
      expect(new Set(records.row.filter((row) => row >= 0)).size).toBe(replicaKeys.length);
      expect(moments.some(({ state }) => state.queued > 0)).toBe(true);
    });
  },
);

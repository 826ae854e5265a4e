/**
 * Clients that leave, in front of the whole gateway: T20 in every state, then many at random moments
 * (T21). SOAK_SECONDS=60 runs the random part for a minute, SEED=n repeats one.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nowMs } from '../../src/lib/clock.ts';
import { createPrng, type Prng } from '../../src/lib/prng.ts';
import { quantile } from '../../src/lib/quantile.ts';
import type { AttemptRecord } from '../../src/replica/stats.ts';
import { DeafReplica } from '../support/deaf-replica.ts';
import { figure } from '../support/figures.ts';
import {
  expectQuiet,
  type GatewayProcess,
  gatewayProcess,
  testEngines,
  withGateway,
} from '../support/gateway.ts';
import { inTime } from '../support/in-time.ts';
import { RawClient } from '../support/raw-client.ts';
import { type ReplicaProcess, replicaProcess, withReplicas } from '../support/replica.ts';
import { answerTokens, Call, call, reached } from '../support/traffic.ts';

/** I6: what it may take until the replica sees that the client has left. */
const cancelMsMax = 250;
const inTimeShareMin = 0.99;
const descriptorsSlack = 2;
const rssGrowthMax = 40 * 1024 * 1024;
const soakSeconds = Number(process.env.SOAK_SECONDS ?? 4);
const seed = Number(process.env.SEED ?? Date.now() % 2 ** 31);

describe.each(testEngines)('T20: a client leaves, engine %s', (engine) => {
  let replica: ReplicaProcess;
  let deaf: DeafReplica;
  let gateway: GatewayProcess;
  let nonces = 0;
  beforeAll(async () => {
    replica = await replicaProcess({ model: 'm', profile: 'tokens:ttft=5ms,itl=2ms' });
    deaf = await DeafReplica.start();
    gateway = await gatewayProcess({
      config: {
        listen: { engine },
        timeouts: { connect: '30s' },
        health: { interval: '10m' },
        models: [
          { name: 'm', replicas: [{ url: replica.url }] },
          { name: 'one', replicas: [{ url: replica.url, max_in_flight: 1 }] },
          { name: 'deaf', replicas: [{ url: deaf.url }] },
        ],
      },
    });
    await deaf.deafen();
  });
  afterAll(async () => {
    await gateway.finish();
    await deaf.close();
    await replica.close();
  });

  const start = (tags: string, options: { stream?: boolean; model?: string } = {}): Call =>
    call(gateway.port, { nonce: `t20-${engine}-${nonces++}`, tags, ...options });
  const attemptsOf = ({ nonce }: Call): Promise<AttemptRecord[]> => replica.ledger(nonce);
  const arrived = async (c: Call): Promise<Call> => {
    await reached(
      () => attemptsOf(c),
      (attempts) => attempts.length > 0,
      'the replica has it',
    );
    return c;
  };
  /** Leaves what `begin` has brought so far; `check` is asked of each try. */
  const leaveAndSee = (
    begin: () => Promise<Call>,
    check: (c: Call, attempt: AttemptRecord) => void = () => {},
  ): Promise<void> =>
    inTime(cancelMsMax, async () => {
      const c = await begin();
      c.leave();
      const attempts = await reached(
        () => attemptsOf(c),
        (list) => list.every(({ end }) => end !== 'open'),
        'the replica sees it',
      );
      expect(attempts.length).toBe(1);
      const [attempt] = attempts as [AttemptRecord];
      expect(attempt.end).toBe('aborted');
      await expectQuiet(gateway);
      check(c, attempt);
      return attempt.abortAt - c.leftAt;
    });

  test('while its body is on the way', async () => {
    const client = await RawClient.connect(gateway.port);
    await client.send(
      'POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\ncontent-length: 100000\r\n\r\n{"model"',
    );
    await reached(
      () => gateway.slots(),
      ({ states }) => states.reading === 1,
      'it is being read',
    );
    await client.close();
    await expectQuiet(gateway);
  });

  test('while queued: the replica never hears of it, and the next in line is served', async () => {
    const running = start('[[hold]]', { model: 'one' });
    await arrived(running);
    const queued = start('', { model: 'one' });
    const next = start('', { model: 'one' });
    await reached(
      () => gateway.cluster(),
      (view) => view.queue_depth === 2,
      'two are queued',
    );
    queued.leave();
    await reached(
      () => gateway.cluster(),
      (view) => view.queue_depth === 1,
      'one has left the queue',
      cancelMsMax * 4,
    );
    await replica.release();
    expect((await running.ended).end).toBe('done');
    expect((await next.ended).end).toBe('done');
    expect(await attemptsOf(queued)).toEqual([]);
    await expectQuiet(gateway);
  });

  test('while connecting: the handshake is given up', async () => {
    const idle = (await gateway.slots()).descriptors;
    const connecting = start('', { model: 'deaf' });
    await reached(
      () => gateway.slots(),
      // The client's connection and that to the replica.
      ({ states, descriptors }) => states.dispatched === 1 && descriptors > idle + 1,
      'it is dispatched',
    );
    const { descriptors: before } = await gateway.slots();
    connecting.leave();
    await expectQuiet(gateway);
    await reached(
      () => gateway.slots(),
      ({ descriptors }) => descriptors < before,
      'it is closed',
    );
    expect(await deaf.wake()).toBe(0);
    await deaf.deafen();
  });

  test.each([false, true])('before the head, stream %s', (stream) =>
    leaveAndSee(() => arrived(start('[[hold]]', { stream }))),
  );

  test('between head and first token', () =>
    leaveAndSee(
      () => arrived(start('[[fault:stall=body]]', { stream: true })),
      (prefill, { status, tokens }) =>
        expect([status, tokens, prefill.status]).toEqual([200, 0, 0]),
    ));

  test('in the middle of a stream', () =>
    leaveAndSee(async () => {
      const streaming = start('[[fault:hold-after=5]]', { stream: true });
      await streaming.until(({ tokens }) => tokens === 5, 'five tokens');
      return streaming;
    }));

  test('after the last token and before the end', () =>
    leaveAndSee(async () => {
      const finishing = start(`[[fault:hold-after=${answerTokens}]]`, { stream: true });
      await finishing.until(({ tokens }) => tokens === answerTokens, 'the last token');
      expect(finishing.ledger.sawDone).toBe(false);
      return finishing;
    }));

  test('in the middle of a whole answer', () =>
    leaveAndSee(() => arrived(start('[[fault:hold-after=5]]'))));

  test('after the whole answer nothing is cancelled', async () => {
    const served = start('');
    await served.until(({ bytes }) => bytes > 0);
    served.leave();
    await expectQuiet(gateway);
    expect((await attemptsOf(served))[0]?.end).toBe('served');
  });
});

describe.each(testEngines)('T21: clients leave at random moments, engine %s', (engine) => {
  const title = `${soakSeconds} s leave nothing behind`;
  test(title, { timeout: (soakSeconds + 30) * 2000 }, async () => {
    const profile = 'tokens:ttft=20ms,itl=4ms';
    await withReplicas(2, { model: 'm', profile }, async (replicas) => {
      const gateway = {
        config: {
          listen: { engine },
          health: { interval: '10m' },
          log: { level: 'fatal' as const },
          models: [
            { name: 'm', replicas: replicas.map(({ url }) => ({ url, max_in_flight: 16 })) },
          ],
        },
      };
      await withGateway(gateway, async (running) => {
        const soak = new Soak(running, createPrng(seed));
        const first = await soakRound(engine, running, soak, replicas);
        // What another process does to the machine only adds to a latency: a defect is late twice.
        const times = isInTime(first) ? first : await soakRound(engine, running, soak, replicas);
        expect(times.p99).toBeLessThan(cancelMsMax);
        expect(times.inTimeShare).toBeGreaterThanOrEqual(inTimeShareMin);
      });
    });
  });
});

interface CancelTimes {
  /** By the ledgers of the replicas, in milliseconds. */
  readonly p99: number;
  /** By the gateway's own metric. */
  readonly inTimeShare: number;
}

function isInTime({ p99, inTimeShare }: CancelTimes): boolean {
  return p99 < cancelMsMax && inTimeShare >= inTimeShareMin;
}

/** One soak after which nothing may be left; how long cancels took is for the caller to judge. */
async function soakRound(
  engine: string,
  gateway: GatewayProcess,
  soak: Soak,
  replicas: readonly ReplicaProcess[],
): Promise<CancelTimes> {
  const before = await gateway.slots();
  const cancelsBefore = await cancelCounts(gateway);
  const samples = await soak.run(soakSeconds);
  await expectQuiet(gateway);
  const latencies = await soak.expectHonest(replicas);
  // Idle connections to the replicas close by themselves after some seconds.
  const { descriptors } = await reached(
    () => gateway.slots(),
    (slots) => slots.descriptors <= before.descriptors + descriptorsSlack,
    'the descriptors are closed',
  );
  const rssGrowth = growth(samples);
  figure(
    'T21',
    engine,
    `SEED=${seed}, ${soakSeconds} s, ${soak.summary(latencies)}; ` +
      `RSS by quarter ${quarters(samples).join(' ')} MiB, ` +
      `descriptors ${before.descriptors} -> ${descriptors}`,
  );
  expect(descriptors).toBeGreaterThanOrEqual(before.descriptors - descriptorsSlack);
  expect(rssGrowth).toBeLessThan(rssGrowthMax);
  const cancels = await cancelCounts(gateway);
  const counted = cancels.all - cancelsBefore.all;
  expect(counted).toBeGreaterThan(0);
  return {
    p99: quantile(latencies, 0.99),
    inTimeShare: (cancels.inTime - cancelsBefore.inTime) / counted,
  };
}

const clients = 40;
const tokensMax = 50;
/** The longest a request of these replicas takes when nothing waits. */
const requestMsMax = 20 + 4 * tokensMax;

/** Clients that ask and leave, or stay, as a seed says. Figures are those of the latest run. */
class Soak {
  readonly #gateway: GatewayProcess;
  readonly #random: Prng;
  /** Not the calls: of ten minutes they would be too many to keep. */
  readonly #left: { readonly nonce: string; readonly leftAt: number }[] = [];
  #calls = 0;
  #callsBefore = 0;
  #leftBefore = 0;
  #stayed = 0;

  constructor(gateway: GatewayProcess, random: Prng) {
    this.#gateway = gateway;
    this.#random = random;
  }

  /** Resolves to samples of the gateway's memory. */
  async run(seconds: number): Promise<number[]> {
    const until = nowMs() + seconds * 1000;
    const samples: number[] = [];
    this.#callsBefore = this.#calls;
    this.#leftBefore = this.#left.length;
    this.#stayed = 0;
    const sampler = setInterval(() => {
      void this.#gateway.slots().then(({ rss_bytes }) => samples.push(rss_bytes));
    }, 250);
    await Promise.all(Array.from({ length: clients }, () => this.#client(until)));
    clearInterval(sampler);
    return samples;
  }

  /** Every call that left is gone at the replicas as well. What that took, in milliseconds. */
  async expectHonest(replicas: readonly ReplicaProcess[]): Promise<number[]> {
    const left = new Map(this.#left.map((c) => [c.nonce, c.leftAt]));
    const before = new Set(this.#left.slice(0, this.#leftBefore).map(({ nonce }) => nonce));
    const latencies: number[] = [];
    for (const replica of replicas) {
      const attempts = await replica.ledger(undefined, 16_384);
      expect(attempts.filter(({ end }) => end === 'open')).toEqual([]);
      for (const { id, end, abortAt } of attempts) {
        if (end !== 'aborted') continue;
        const leftAt = left.get(id);
        expect(leftAt, `the client of ${id} stayed and its request was aborted`).toBeDefined();
        if (!before.has(id)) latencies.push(abortAt - leftAt!);
      }
      expect((await replica.stats()).in_flight).toBe(0);
    }
    // Ledgers keep the last 16,384 of each replica.
    expect(latencies.length).toBeGreaterThan(Math.min(this.#leftCount / 10, 5000));
    return latencies;
  }

  summary(latencies: readonly number[]): string {
    const ms = (share: number): string => `${quantile(latencies, share).toFixed(1)} ms`;
    return (
      `${this.#calls - this.#callsBefore} calls, ${this.#leftCount} left, ${this.#stayed} served, ` +
      `${latencies.length} aborts at replicas: p50 ${ms(0.5)}, p99 ${ms(0.99)}, max ${ms(1)}`
    );
  }

  get #leftCount(): number {
    return this.#left.length - this.#leftBefore;
  }

  async #client(until: number): Promise<void> {
    const random = this.#random;
    while (nowMs() < until) {
      const stays = random.below(4) === 0;
      // Looked at here, one by one: kept for the end they would be too many.
      const current = new Call(this.#gateway.port, {
        nonce: `soak-${seed}-${this.#calls++}`,
        stream: random.below(3) > 0,
        tokens: 1 + random.below(tokensMax),
      });
      if (!stays) {
        const how = random.below(2) === 0 ? 'fin' : 'reset';
        const leave = (): void => current.leave(how);
        // Half of them while they wait or connect, half somewhere in the answer.
        const ms = random.below(2) === 0 ? random.below(20) : random.below(requestMsMax);
        setTimeout(leave, ms);
      }
      await current.ended;
      const { nonce, leftAt } = current;
      if (leftAt > 0) this.#left.push({ nonce, leftAt });
      else {
        expect(current.end, current.body.toString()).toBe('done');
        this.#stayed++;
      }
    }
  }
}

/** Medians of the four quarters of a run, in MiB: whether memory levels off. */
function quarters(samples: readonly number[]): string[] {
  const size = samples.length / 4;
  return [0, 1, 2, 3].map((k) => {
    const part = samples.slice(Math.floor(k * size), Math.floor((k + 1) * size));
    return (quantile(part, 0.5) / 2 ** 20).toFixed(0);
  });
}

/** From the first half to the second, by their medians: what a leak would show. */
function growth(samples: readonly number[]): number {
  const half = samples.length >> 1;
  return quantile(samples.slice(half), 0.5) - quantile(samples.slice(0, half), 0.5);
}

/** The gateway's own figures, which must say the same as the replicas' ledgers. */
async function cancelCounts(gateway: GatewayProcess): Promise<{ all: number; inTime: number }> {
  const samples = (await gateway.metrics()).get('sluice_cancel_seconds')?.samples;
  const all = samples?.get('sluice_cancel_seconds_count{}') ?? 0;
  const inTime = [...(samples ?? [])]
    .filter(([name]) => /_bucket\{le="0\.25"\}$/.test(name))
    .map(([, value]) => value);
  expect(inTime.length).toBe(1);
  return { all, inTime: inTime[0]! };
}

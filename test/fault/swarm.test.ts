/**
 * A swarm: in each epoch a random subset of all faults meets random requests, some of whose clients
 * leave, pause or ask for a hedge; after each epoch nothing may be left and nobody may have been lied
 * to. SWARM_SECONDS=1800 runs it for half an hour, SEED=n repeats one: the same faults at the same
 * times, the same requests.
 */
import { expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { createPrng, type Prng } from '../../src/lib/prng.ts';
import { quantile } from '../../src/lib/quantile.ts';
import { endsOf } from '../support/client-load.ts';
import { figure } from '../support/figures.ts';
import { type GatewayProcess, withGateway } from '../support/gateway.ts';
import { expectHonest } from '../support/invariants.ts';
import { expectQuiet } from '../support/quiet.ts';
import { configOf, total } from '../support/scenario.ts';
import { drawFaults, Standing, strike } from '../support/swarm-faults.ts';
import { faultEnv, faultToken } from '../support/thread-faults.ts';
import { type Call, type CallOptions, call, reached } from '../support/traffic.ts';

const seed = Number(process.env.SEED ?? Date.now() % 1e9);
const seconds = Number(process.env.SWARM_SECONDS ?? 30);
const epochMs = 6000;
/** The total clock of a request, and time to spare. */
const endedWithinMs = 20_000;
const clients = 24;
const profile = 'tokens:ttft=10ms,itl=4ms';
const continuation = seed % 2 === 0 ? ('text' as const) : ('token_ids' as const);
/** Of the median of the last third over that of the second; the first one warms up. */
const rssGrowthMax = 40 * 2 ** 20;

const config: Omit<ConfigInput, 'models'> = {
  admin: { token: faultToken },
  threads: { forwarders: 2 },
  timeouts: {
    queue: '3s',
    connect: '500ms',
    first_token: '1s',
    answer: '2s',
    inter_token: '1s',
    total: '8s',
  },
  health: { interval: '500ms', timeout: '500ms' },
  breaker: { mode: 'window', open: '1s' },
  hedge: { automatic: true, budget: 0.02 },
  slow_start: '1s',
  log: { level: 'fatal' },
};

/** What one client does; drawn from its own random numbers. */
class Client {
  readonly calls: Call[] = [];
  readonly #random: Prng;
  readonly #name: string;
  readonly #port: number;

  constructor(port: number, random: Prng, name: string) {
    this.#port = port;
    this.#random = random;
    this.#name = name;
  }

  async run(isOver: () => boolean): Promise<void> {
    for (let turn = 0; !isOver(); turn++) {
      const random = this.#random;
      const options: CallOptions = {
        nonce: `${this.#name}-${turn}`,
        stream: random.below(4) > 0,
        tokens: 5 + random.below(11),
        ...(random.below(10) === 0 && { headers: { 'x-sluice-hedge': '5' } }),
      };
      const leaves = random.below(5) === 0;
      const [leaveAt, how] = [random.below(8), random.below(2)] as const;
      const pauses = random.below(10) === 0;
      const c = call(this.#port, options);
      this.calls.push(c);
      if (leaves) {
        await c.until(({ tokens, endedAt }) => tokens >= leaveAt || endedAt > 0).catch(() => {});
        c.leave(how === 0 ? 'fin' : 'reset');
      } else if (pauses) {
        await c.until(({ bytes, endedAt }) => bytes > 0 || endedAt > 0).catch(() => {});
        c.pause();
        setTimeout(() => c.resume(), 100);
      }
      await c.ended;
    }
  }
}

/** Beyond expectHonest: the process lives, so a bad end has a reason. */
function expectReason(c: Call): void {
  expectHonest(c);
  expect(['done', 'http-error', 'stream-error', 'left'], c.body.toString()).toContain(c.end);
}

/** Tokens of the client: of a call that left, those it had read when it did. */
function tokensOf(c: Call): number {
  if (c.isStream || c.end !== 'done') return c.tokens;
  return (JSON.parse(c.body.toString()) as { usage: { completion_tokens: number } }).usage
    .completion_tokens;
}

async function epoch(
  gateway: GatewayProcess,
  replicas: readonly Standing[],
  number: number,
): Promise<{ calls: readonly Call[]; faults: string[] }> {
  const faults = drawFaults(createPrng(seed + number), epochMs, number);
  let isOver = false;
  const all = Array.from(
    { length: clients },
    (_, i) => new Client(gateway.port, createPrng(seed + 1000 * number + i), `e${number}c${i}`),
  );
  const running = all.map((client) => client.run(() => isOver));
  const texts = faults.map(({ text, atMs }) => `${atMs} ms ${text}`);
  process.stdout.write(`epoch ${number}: ${texts.join('; ') || 'no fault'}\n`);
  try {
    await strike(faults, epochMs, { gateway, replicas });
  } finally {
    isOver = true;
  }
  const calls = () => all.flatMap(({ calls: of }) => of);
  await reached(
    async () => calls().filter(({ endedAt }) => endedAt === 0),
    (open) => open.length === 0,
    `all calls have ended, SEED=${seed}, epoch ${number}: ${texts.join('; ')}`,
    endedWithinMs,
  );
  await Promise.all(running);
  return { calls: calls(), faults: texts };
}

test(`a swarm of faults for ${seconds} s, SEED=${seed}`, {
  timeout: (seconds + 120) * 2000,
}, async () => {
  const replicas: Standing[] = [];
  try {
    for (let i = 0; i < 4; i++) replicas.push(await Standing.start(profile));
    const urls = replicas.map(({ replica }) => ({ url: replica.url }));
    const rules = { continuation };
    await withGateway({ config: configOf(urls, config, rules), env: faultEnv }, async (gateway) => {
      const rss: number[] = [];
      const ends: Record<string, number> = {};
      const endMs = performance.now() + seconds * 1000;
      let number = 0;
      const read = { whole: 0, left: 0, leftMost: 0 };
      do {
        const { calls, faults } = await epoch(gateway, replicas, ++number);
        const told = `SEED=${seed}, epoch ${number}: ${faults.join('; ')}`;
        for (const c of calls) {
          expect(() => expectReason(c), told).not.toThrow();
          if (c.end !== 'left') read.whole += tokensOf(c);
          else {
            read.left += tokensOf(c);
            read.leftMost += c.tokensDue;
          }
        }
        await expectQuiet(gateway, 5000);
        await reached(
          async () => (await gateway.cluster()).replicas.map(({ healthy }) => healthy),
          (healthy) => healthy.length === 4 && healthy.every(Boolean),
          `all replicas are back; ${told}`,
          20_000,
        );
        for (const { replica } of replicas) {
          await reached(
            () => replica.stats(),
            (stats) => stats.in_flight === 0,
            `no replica works for nobody; ${told}`,
          );
        }
        for (const [end, count] of Object.entries(endsOf(calls)))
          ends[end] = (ends[end] ?? 0) + count;
        rss.push((await gateway.slots()).rss_bytes);
      } while (performance.now() < endMs);
      const families = await gateway.metrics();
      for (const name of ['settle_conflicts', 'in_flight_leaks', 'handler_errors']) {
        expect(total(families, `sluice_${name}_total`), name).toBe(0);
      }
      expect(ends.done).toBeGreaterThan(0);
      // I5: billed is what clients got; those that left may have had some more on the way.
      const billed = total(families, 'sluice_tokens_total', { type: 'output' });
      expect(billed).toBeGreaterThanOrEqual(read.whole + read.left);
      expect(billed).toBeLessThanOrEqual(read.whole + read.leftMost);
      const third = Math.floor(rss.length / 3);
      const [before, after] = [rss.slice(third, 2 * third), rss.slice(-third)];
      const growth = third === 0 ? Number.NaN : quantile(after, 0.5) - quantile(before, 0.5);
      process.stdout.write(
        `swarm: SEED=${seed}, ${continuation}, ${number} epochs, ${JSON.stringify(ends)}, ` +
          `RSS growth ${third === 0 ? 'unknown' : `${(growth / 2 ** 20).toFixed(1)} MiB`}\n`,
      );
      expect(third, 'epochs enough to see growth').toBeGreaterThanOrEqual(seconds < 60 ? 0 : 2);
      if (third >= 2) expect(growth).toBeLessThan(rssGrowthMax);
      figure('T21', 'swarm', `${number} epochs, seed ${seed}, ${JSON.stringify(ends)}`);
    });
  } finally {
    for (const { replica } of replicas) {
      replica.cont();
      await replica.close();
    }
  }
});

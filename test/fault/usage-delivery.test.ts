/**
 * Usage from the client to the servers that keep it: over aborts, retries, hedges, continued streams and
 * replicas that are killed, while the servers themselves are killed and started again, and the gateway with
 * them. What is billed is what clients have received, each server has every event, and each of them once
 * by its id. Servers that are not installed are left out.
 */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import { createPrng, type Prng } from '../../src/lib/prng.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import { freePort } from '../support/free-port.ts';
import { type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { type ReplicaProcess, replicaProcess } from '../support/replica.ts';
import { chatBody, post, sum, total } from '../support/scenario.ts';
import { alone, token } from '../support/take-over.ts';
import { Call } from '../support/traffic.ts';
import { eventually } from '../support/until.ts';
import {
  has,
  kafkaServer,
  natsServer,
  redisServer,
  type Stored,
  storedIds,
  type UsageServer,
} from '../support/usage-servers.ts';

const seed = Number(process.env.SEED ?? Date.now() % 1e9) >>> 0;
console.info(`SEED=${seed}`);
const tenants = ['acme', 'other'] as const;
const keys = { acme: newKey(), other: newKey() };
const atOnce = 16;
/** Two gateways and six replicas start in it, one after the other; by itself it takes a third of that. */
const limitMs = 60_000;
const price = { input: 3, cached_input: 0.3, output: 15 };

let folder: string;
const closing: { close(): Promise<void> }[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sluice-delivery-'));
});
afterEach(async () => {
  for (const one of closing.splice(0).reverse()) await one.close();
  rmSync(folder, { recursive: true, force: true });
});

/** How many tokens the client of a call has received. */
function receivedBy(call: Call): number {
  if (call.isStream) return call.tokens;
  return call.end === 'done' ? JSON.parse(call.body.toString()).usage.completion_tokens : 0;
}

/** The one that is killed. */
const mortal = 'c';

/**
 * Three in ten leave a stream that has come to a stop, so that nothing is on its way to them. At a replica that
 * is killed it may go on elsewhere instead, at any moment: whoever is there reads on to the end.
 */
async function ask(port: number, nonce: string, random: Prng): Promise<Call> {
  const isLeaving = random.below(20) < 9;
  const stream = isLeaving || random.below(2) === 0;
  const count = 1 + random.below(9);
  const faults = [
    '',
    '',
    `[[fault@a:status=500]]`,
    stream ? '[[fault@a:truncate-chunk=5]]' : '[[fault@b:status=503]]',
  ];
  const tags = isLeaving ? `[[fault:stall-after=${count}]]` : faults[random.below(faults.length)]!;
  const hedge = random.below(4) === 0 ? { 'x-sluice-hedge': '1' } : {};
  const bearer = { authorization: `Bearer ${keys[tenants[random.below(2)]!]}` };
  const call = new Call(port, { nonce, stream, tags, headers: { ...bearer, ...hedge } });
  if (isLeaving) {
    const stopped = await call
      .until(({ tokens }) => tokens >= count)
      .then(
        () => call.headers['x-sluice-replica'] !== mortal,
        () => false, // it ended before
      );
    if (stopped) call.leave();
  }
  return call.ended;
}

/** A replica was asked. */
const isServed = ({ status, headers }: Call): boolean =>
  status === 200 || Number(headers['x-sluice-attempts'] ?? 0) > 0;

class Run {
  readonly over: Call[] = [];
  readonly #random = createPrng(seed);
  readonly #name: string;
  #begun = 0;

  constructor(name: string) {
    this.#name = name;
  }

  get served(): number {
    return this.over.filter(isServed).length;
  }

  /** So many calls, of which some run at a time; `at` happens once so many of them are over. */
  async calls(
    gateway: GatewayProcess,
    count: number,
    at: Readonly<Record<number, () => Promise<void>>> = {},
  ): Promise<void> {
    let begun = 0;
    let over = 0;
    const happening: Promise<void>[] = [];
    const client = async (): Promise<void> => {
      while (begun < count) {
        const nonce = `${this.#name}-${this.#begun++}`;
        begun++;
        this.over.push(await ask(gateway.port, nonce, this.#random));
        const event = at[++over];
        if (event !== undefined) happening.push(event());
      }
    };
    await Promise.all(Array.from({ length: atOnce }, client));
    await Promise.all(happening);
  }
}

const eventsIn = (): Map<string, Record<string, unknown>> => {
  const lines = readdirSync(folder)
    .filter((name) => name.includes('.ndjson') && !name.includes('ledger'))
    .flatMap((name) => readFileSync(join(folder, name), 'utf8').split('\n'));
  const events = lines.filter((line) => line !== '').map((line) => JSON.parse(line));
  return new Map(events.map((event) => [event.id as string, event]));
};

/** Per request and in sum: what is billed is what was received. */
function expectBilled(calls: readonly Call[], events: ReturnType<typeof eventsIn>): void {
  const byRequest = new Map([...events.values()].map((event) => [event.req_id, event]));
  expect(byRequest.size, 'one event for a request').toBe(events.size);
  const outputOf = (event: Record<string, unknown> | undefined): number =>
    (event?.output_tokens as number | null | undefined) ?? 0;
  for (const call of calls) {
    const event = byRequest.get(call.nonce);
    expect(outputOf(event), `${call.nonce}: ${JSON.stringify(event)}`).toBe(receivedBy(call));
    if (call.end === 'done') expect(event).toMatchObject({ outcome: 'ok' });
  }
  expect(sum([...events.values()].map(outputOf))).toBe(sum(calls.map(receivedBy)));
}

/** Nothing is lost, nothing is there that never was, and ids tell what is there twice. */
function expectDelivered(stored: readonly Stored[], events: ReturnType<typeof eventsIn>): void {
  const byId = new Map(stored.map((each) => [each.id, each]));
  expect(
    [...events.keys()].filter((id) => !byId.has(id)),
    'lost',
  ).toEqual([]);
  expect(byId.size).toBe(events.size);
  for (const [id, { key, event }] of byId) {
    expect(event).toEqual(events.get(id));
    expect(key).toBe(event.tenant);
  }
}

describe.runIf(has.redis || has.nats || has.kafka)('usage events and servers', () => {
  test.each(testEngines)(
    'all are killed and come back, engine %s',
    async (engine) => {
      const servers: UsageServer[] = [];
      const opened = async (open: () => Promise<UsageServer>): Promise<UsageServer> => {
        const server = await open();
        closing.push(server);
        servers.push(server);
        return server;
      };
      const redis = has.redis ? await opened(redisServer) : undefined;
      const nats = has.nats ? await opened(natsServer) : undefined;
      const kafka = has.kafka ? await opened(kafkaServer) : undefined;
      const profile = 'tokens:ttft=5ms,itl=3ms';
      const replicas: ReplicaProcess[] = [];
      for (const name of 'abc') {
        replicas.push(await replicaProcess({ profile, name, port: await freePort() }));
      }
      closing.push({
        close: async () => void (await Promise.all(replicas.map((replica) => replica.close()))),
      });
      let killed = Promise.resolve();
      const killReplica = (): Promise<void> => {
        killed = killed.then(async () => {
          const { port } = replicas[2] as ReplicaProcess;
          await replicas[2]!.kill();
          replicas[2] = await replicaProcess({ profile, name: 'c', port });
        });
        return killed;
      };
      const config: ConfigInput = {
        listen: { engine },
        threads: { acceptors: 2 },
        health: { interval: '200ms', timeout: '200ms' },
        // A stream that stops at a replica nobody leaves goes on elsewhere, and ends.
        timeouts: { inter_token: '2s' },
        retry: { budget: 1, budget_min: 1000 },
        usage: Object.assign(
          { file: join(folder, 'usage.ndjson') },
          ...servers.map((server) => server.config),
        ),
        tenants: tenants.map((name) => {
          return { name, keys: [{ id: 'one', sha256: sha256Of(keys[name]) }] };
        }),
        models: [
          {
            ...{ name: 'm', continuation: 'text', stream_usage: 'continuous', price },
            replicas: replicas.map(({ url }, i) => ({ url, name: 'abc'[i]! })),
          },
        ],
      };
      const run = new Run(engine);
      await withGateway({ config }, async (gateway) => {
        await run.calls(gateway, 60, { 20: killReplica, 45: killReplica });
        // Kafka's stand-in has all in memory: what it has said is stored must be read before it dies.
        await eventually('all is written', () => eventsIn().size >= run.served);
        if (kafka !== undefined) await storedIds(kafka, eventsIn().size);
        await eventually('the gateway knows', async () => {
          return total(await gateway.metrics(), 'sluice_usage_sink_waiting') === 0;
        });
        await kafka?.kill();
        await run.calls(gateway, 100, {
          20: async () => redis?.kill(),
          40: killReplica,
          50: async () => nats?.kill(),
          70: async () => redis?.start(),
          80: killReplica,
          85: async () => nats?.start(),
        });
        await redis?.kill();
        expect((await gateway.stop()).code).toBe(0);
      });
      // Another process, to which two of the servers come back later.
      await withGateway({ config }, async (gateway) => {
        await run.calls(gateway, 50, {
          20: async () => redis?.start(),
          30: killReplica,
          40: async () => kafka?.start(),
        });
        await eventually('all is written', () => eventsIn().size >= run.served);
        for (const server of servers) await storedIds(server, eventsIn().size, 30_000);
        expect((await gateway.stop()).code).toBe(0);
      });
      const events = eventsIn();
      expectBilled(run.over, events);
      for (const server of servers) expectDelivered(await storedIds(server, events.size), events);
      const left = run.over.filter(({ end }) => end === 'left').length;
      expect(left).toBeGreaterThan(30);
      const attempts = [...events.values()].map((event) => event.attempts as number);
      expect(attempts.filter((count) => count > 1).length).toBeGreaterThan(20);
      expect(sum([...events.values()].map((event) => event.hedges as number))).toBeGreaterThan(0);
    },
    limitMs,
  );
});

describe.runIf(has.redis)('usage events and Redis', () => {
  test(
    'a restart that overlaps: the other process goes on with what this one writes',
    async () => {
      const redis = await redisServer();
      closing.push(redis);
      const replica = await replicaProcess({
        profile: 'tokens:ttft=5ms,itl=3ms',
        port: await freePort(),
      });
      closing.push(replica);
      const config: ConfigInput = {
        listen: { port: await freePort() },
        admin: { token, port: await freePort() },
        threads: { acceptors: 2 },
        usage: { file: join(folder, 'usage.ndjson'), ...redis.config },
        tenants: tenants.map((name) => {
          return { name, keys: [{ id: 'one', sha256: sha256Of(keys[name]) }] };
        }),
        models: [
          { name: 'm', stream_usage: 'continuous', price, replicas: [{ url: replica.url }] },
        ],
      };
      const run = new Run('overlap');
      await withGateway({ supervisor: true, config }, async (gateway) => {
        await run.calls(gateway, 200, { 40: async () => gateway.kill('SIGUSR2') });
        await gateway.starts(2);
        await run.calls(gateway, 40);
        await alone(gateway);
        await eventually('all is written', () => eventsIn().size >= run.served);
        await storedIds(redis, eventsIn().size);
        expect((await gateway.stop()).code).toBe(0);
      });
      const events = eventsIn();
      expectBilled(run.over, events);
      expectDelivered(await redis.stored(), events);
    },
    limitMs,
  );

  test('who is not let in says so, and not with what', async () => {
    const redis = await redisServer(['--requirepass', 'right']);
    closing.push(redis);
    const replica = await replicaProcess({ profile: 'instant', port: await freePort() });
    closing.push(replica);
    const url = (redis.config as { redis_stream: { url: string } }).redis_stream.url;
    const password = 'wrong-s3cret';
    const nats = { servers: ['nats://127.0.0.1:1'], token: 'other-s3cret' };
    const sasl = { mechanism: 'plain' as const, username: 'u', password: 'third-s3cret' };
    const config: ConfigInput = {
      usage: {
        file: join(folder, 'usage.ndjson'),
        redis_stream: { url, password },
        kafka: { brokers: ['127.0.0.1:1'], topic: 't', sasl },
        nats,
      },
      models: [{ name: 'm', replicas: [{ url: replica.url }] }],
    };
    await withGateway({ config }, async (gateway) => {
      expect((await post(gateway.url, chatBody('x'))).status).toBe(200);
      for (const name of ['kafka', 'redis_stream', 'nats']) {
        await gateway.said(`usage events wait for ${name}`);
      }
      expect(gateway.output()).toContain('WRONGPASS');
      expect((await gateway.stop()).code).toBe(0);
      expect(gateway.output()).not.toContain('s3cret');
    });
  });
});

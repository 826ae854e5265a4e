/**
 * What the gateway gives up before its memory or its descriptors run out, step by step, and takes up again
 * (`degrade`). The limit is real; what the process uses of it is what a file says.
 */
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Replica } from '../../src/replica/replica.ts';
import {
  expectQuiet,
  type GatewayProcess,
  gatewayProcess,
  testEngines,
  withGateway,
} from '../support/gateway.ts';
import { logged } from '../support/logged.ts';
import { RawClient, rawPost } from '../support/raw-client.ts';
import { replicaInProcess } from '../support/replica.ts';
import { chatBody, chatPath, total } from '../support/scenario.ts';
import { call, heldBack, reached } from '../support/traffic.ts';

const faults = fileURLToPath(new URL('../support/gateway-faults.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'sluice-degrade-'));
const limit = 1024 ** 3;
const stages = [
  'none',
  'keep_alive_off',
  'refuse_requests',
  'cut_slow_readers',
  'refuse_connections',
];
/** Shares in the middle of each stage. */
const shares = [0.5, 0.88, 0.935, 0.96, 0.98];

let replica: Replica;
beforeAll(async () => {
  replica = await replicaInProcess({ model: 'm', profile: 'instant' });
});
afterAll(async () => {
  await replica.close();
  rmSync(folder, { recursive: true });
});

describe.each(testEngines)('memory, engine %s', (engine) => {
  const file = join(folder, `rss-${engine}`);
  let gateway: GatewayProcess;
  beforeAll(async () => {
    use(shares[0]!);
    gateway = await gatewayProcess({
      config: {
        listen: { engine },
        log: { level: 'info', sample: 1, pretty: 'never' },
        degrade: { memory: '1GiB' },
        models: [{ name: 'm', replicas: [{ url: replica.url }] }],
      },
      nodeFlags: ['--import', faults],
      env: { SLUICE_TEST_RSS_FILE: file },
    });
  });
  afterAll(() => gateway.finish());

  /** The process seems to use this share of its limit; never half a number. */
  function use(share: number): void {
    writeFileSync(`${file}.new`, String(Math.round(share * limit)));
    renameSync(`${file}.new`, file);
  }

  async function enter(stage: number): Promise<void> {
    use(shares[stage]!);
    const name = stages[stage]!;
    await reached(
      () => gateway.cluster(),
      ({ overload }) => overload.memory.stage === name,
      `stage ${name}`,
    );
    const pages = await gateway.metrics();
    expect(total(pages, 'sluice_overload_stage', { resource: 'memory' })).toBe(stage);
    const pressure = total(pages, 'sluice_overload_pressure_ratio', { resource: 'memory' });
    expect(pressure).toBeCloseTo(shares[stage]!, 6);
  }

  const ask = rawPost(chatPath, chatBody('x [[len=1]]'));
  /** Status and connection header of an answer on this connection. */
  async function answer(client: RawClient): Promise<[number, string]> {
    await client.send(ask);
    const [response] = (await client.responses(1)).responses;
    return [response!.status, response!.headers.get('connection') ?? ''];
  }

  test('each stage, up and down again', async () => {
    const { port } = gateway;
    const early = await Promise.all(Array.from({ length: 4 }, () => RawClient.connect(port)));
    const stream = call(port, { nonce: `running-${engine}`, stream: true, tags: '[[hold]]' });
    await replica.gate.arrivals(1);

    await enter(1);
    expect(await answer(early[0]!)).toEqual([200, 'close']);
    expect((await gateway.ready()).status).toBe(200);

    await enter(2);
    const refused = await call(port, { nonce: `refused-${engine}` }).ended;
    expect([refused.status, refused.errorCode]).toEqual([503, 'gateway_overloaded']);
    expect(refused.headers).toMatchObject({ 'retry-after': '2', 'retry-after-ms': '2000' });
    expect(await logged(gateway, refused.nonce)).toMatchObject({ status: 503, flag: 'OM' });
    expect(await gateway.ready()).toMatchObject({ status: 503, reason: 'overloaded' });
    expect((await fetch(`${gateway.url}/readyz`)).status).toBe(503);
    expect((await fetch(`${gateway.url}/healthz`)).status).toBe(200);
    expect((await fetch(`${gateway.url}/v1/models`)).status).toBe(200);

    await enter(4);
    const late = await RawClient.connect(port);
    await late.send(ask);
    await late.closed;
    expect(late.received.length).toBe(0);
    // Who is connected is told, and what runs goes on.
    expect((await answer(early[1]!))[0]).toBe(503);
    replica.gate.release();
    expect((await stream.ended).end).toBe('done');
    const pages = await gateway.metrics();
    expect(total(pages, 'sluice_connections_refused_total')).toBeGreaterThanOrEqual(1);

    await enter(1);
    expect((await gateway.ready()).status).toBe(200);
    expect((await call(port, { nonce: `again-${engine}` }).ended).end).toBe('done');
    expect(await answer(early[2]!)).toEqual([200, 'close']);
    await enter(0);
    const [status, connection] = await answer(early[3]!);
    expect([status, connection === 'close']).toEqual([200, false]);
    for (const client of early) await client.close();
    for (const stage of [1, 2, 4]) await gateway.said(`of 1GiB, stage ${stages[stage]}`);
    await gateway.said('overload: memory at 50 % of 1GiB, stage none');
    await expectQuiet(gateway);
  });

  test('the slow reader with the most bytes is cut, and nobody else', async () => {
    const { port } = gateway;
    const tokens = 200_000; // more than the socket buffers on the way take
    const tags = `[[len=${tokens}]]`;
    const slow = call(port, { nonce: `slow-${engine}`, stream: true, tags, tokens });
    const waits = call(port, { nonce: `waits-${engine}`, stream: true, tags: '[[hold]]' });
    await slow.until(({ bytes }) => bytes > 0);
    slow.pause();
    await heldBack(gateway, 1, () => replica.stats().tokens_emitted);
    const before = await gateway.metrics();
    const cut = async (): Promise<number> => {
      const name = 'sluice_slow_readers_cut_total';
      return total(await gateway.metrics(), name) - total(before, name);
    };
    use(shares[3]!);
    await reached(cut, (count) => count === 1, 'one is cut');
    slow.resume();
    await slow.ended;
    expect(slow.isComplete).toBe(false);
    const line = { status: 200, err: 'slow_reader', flag: 'OM' };
    expect(await logged(gateway, slow.nonce)).toMatchObject(line);
    replica.gate.release();
    expect((await waits.ended).end).toBe('done');
    expect(await cut()).toBe(1);
    await enter(0);
    await expectQuiet(gateway);
  });
});

test('a limit below what the process really uses: it starts, says so and takes nobody', async () => {
  const models = [{ name: 'm', replicas: [{ url: replica.url }] }];
  const config = { degrade: { memory: '64MiB' as const }, models };
  await withGateway({ config, unquiet: 'it takes no connection' }, async (gateway) => {
    const { overload } = await gateway.cluster();
    expect(overload.memory).toMatchObject({ stage: 'refuse_connections', limit: 64 * 1024 ** 2 });
    expect(overload.memory.share).toBeGreaterThan(1);
    const client = await RawClient.connect(gateway.port);
    await client.closed;
    expect(client.received.length).toBe(0);
    expect(gateway.output()).toContain('lower memory.arena or raise the limit');
    expect(gateway.output()).toMatch(/overload: memory at \d{3} % of 64MiB, stage refuse_conn/);
  });
});

test('by default the limit is what the process may have; off: there is none', async () => {
  const models = [{ name: 'm', replicas: [{ url: replica.url }] }];
  await withGateway({ config: { models } }, async (gateway) => {
    const { memory, descriptors } = (await gateway.cluster()).overload;
    expect(memory.limit).toBeGreaterThan(64 * 1024 ** 2);
    for (const { stage, share } of [memory, descriptors]) {
      expect(stage).toBe('none');
      expect(share).toBeGreaterThan(0);
      expect(share).toBeLessThan(0.85);
    }
  });
  const degrade = { memory: 'off', descriptors: false };
  await withGateway({ config: { degrade, models } }, async (gateway) => {
    const off = { stage: 'none', share: 0, limit: null };
    expect((await gateway.cluster()).overload).toEqual({ memory: off, descriptors: off });
    expect((await call(gateway.port, { nonce: 'off' }).ended).end).toBe('done');
  });
});

test.runIf(process.platform === 'linux').each(testEngines)(
  'descriptors: new connections are closed while they run out, engine %s',
  async (engine) => {
    const hog = join(folder, `hog-${engine}`);
    const replicas = [{ url: replica.url, max_in_flight: 16 }];
    const options = {
      config: { listen: { engine, max_connections: 50 }, models: [{ name: 'm', replicas }] },
      nodeFlags: ['--import', faults],
      // Some are left, so that no limit but this one closes a connection.
      env: { SLUICE_TEST_HOG_FILE: hog, SLUICE_TEST_SPARE: '40' },
      wrapper: ['prlimit', '--nofile=4000:4000'],
    };
    await withGateway(options, async (gateway) => {
      const { port } = gateway;
      const stage = async (): Promise<string> =>
        (await gateway.cluster()).overload.descriptors.stage;
      expect(await stage()).toBe('none');
      const early = await RawClient.connect(port);
      writeFileSync(hog, '');
      await reached(stage, (name) => name === 'refuse_connections', 'they run out');
      const late = await RawClient.connect(port);
      await late.closed;
      expect(late.received.length).toBe(0);
      await early.send(rawPost(chatPath, chatBody('x [[len=1]]')));
      const [response] = (await early.responses(1)).responses;
      expect([response?.status, response?.headers.get('connection')]).toEqual([200, 'close']);
      await early.close();
      rmSync(hog);
      await reached(stage, (name) => name === 'none', 'they are back');
      expect((await call(port, { nonce: `back-${engine}` }).ended).end).toBe('done');
      await expectQuiet(gateway);
    });
  },
);

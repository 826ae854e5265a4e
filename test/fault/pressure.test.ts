/**
 * The whole gateway at its limits: descriptors (T28, T29), large and hostile bodies (T30 to T32), a full
 * slot table behind a stalled scheduler (T38), lost wake-ups (T39).
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { discardBytesMax } from '../../src/acceptor/listener.ts';
import { quantile } from '../../src/lib/quantile.ts';
import { figure } from '../support/figures.ts';
import {
  expectQuiet,
  type GatewayProcess,
  GatewayStartError,
  gatewayProcess,
  testEngines,
  withGateway,
} from '../support/gateway.ts';
import { parseResponses, RawClient, rawPost, rawRequest } from '../support/raw-client.ts';
import { type ReplicaProcess, replicaProcess } from '../support/replica.ts';
import { call, reached } from '../support/traffic.ts';
import { eventually } from '../support/until.ts';

const faults = fileURLToPath(new URL('../support/gateway-faults.ts', import.meta.url));
const tickMs = 10; // USER_HZ is 100 on every Linux we run on
/** What the gateway keeps for files, pipes and probes (src/gateway/descriptors.ts). */
const marginDescriptors = 128;
const capBytes = 6 * 1024 * 1024;
/** What lost wake-ups may add to the p99 of an answer. */
const addedMsMax = 60;
const sha = (text: string): string =>
  createHash('sha256').update(Buffer.from(text, 'utf8')).digest('hex');

let replica: ReplicaProcess;
let folder: string;
beforeAll(async () => {
  replica = await replicaProcess({ model: 'm', profile: 'instant' });
  folder = mkdtempSync(join(tmpdir(), 'sluice-pressure-'));
});
afterAll(async () => {
  await replica.close();
  rmSync(folder, { recursive: true, force: true });
});

const modelOf = (maxInFlight = 256) => [
  { name: 'm', replicas: [{ url: replica.url, max_in_flight: maxInFlight }] },
];

describe.runIf(process.platform === 'linux').each(testEngines)(
  'descriptors, engine %s',
  (engine) => {
    const connections = 60;
    const options = (descriptors: number) => ({
      config: { listen: { engine, max_connections: connections }, models: modelOf(connections) },
      wrapper: ['prlimit', `--nofile=${descriptors}:${descriptors}`],
    });
    // Forwarders have room for a quarter more connections than may be in flight.
    const needed = connections + connections * 1.25 + marginDescriptors;

    test('T29: a gateway whose caps exceed the limit does not start and says why', async () => {
      const error = await gatewayProcess(options(needed - 1)).then(
        async (gateway) => gateway.close(),
        (reason: unknown) => reason,
      );
      expect(error).toBeInstanceOf(GatewayStartError);
      const { exit, output } = error as GatewayStartError;
      expect(exit.code).toBe(1);
      expect(output).toContain(`needs up to ${needed} open files`);
      expect(output).toContain(`the limit is ${needed - 1}`);
      expect(output).toContain('listen.max_connections');
    });

    test('T28, T29: at the limit it sheds without spinning, and the streams it has go on', async () => {
      await withGateway(options(needed), async (gateway) => {
        const tags = '[[hold]]';
        const held = Array.from({ length: connections }, (_, i) =>
          call(gateway.port, { nonce: `t29-${engine}-${i}`, tags, stream: i % 2 === 0 }),
        );
        await replica.arrivals(connections);
        const excess = await Promise.all(
          Array.from({ length: 200 }, () => RawClient.connect(gateway.port)),
        );
        await Promise.all(excess.map(({ closed }) => closed));
        const before = cpuMs(gateway.pid);
        await new Promise((resolve) => setTimeout(resolve, 1000));
        const share = (cpuMs(gateway.pid) - before) / 1000;
        expect(share, 'of one core, by the whole process').toBeLessThan(0.2);
        await reached(
          () => gateway.slots(),
          ({ threads }) => threads.every(({ lagMs }) => lagMs < 50),
          'every loop lags less than 50 ms',
        );
        await replica.release();
        for (const c of held) expect((await c.ended).end).toBe('done');
        expect((await call(gateway.port, { nonce: `t29-${engine}-after` }).ended).end).toBe('done');
        await expectQuiet(gateway);
      });
    });
  },
);

/** How long /healthz takes, on a connection of its own as every call has. */
async function healthzMs(url: string): Promise<number> {
  const started = performance.now();
  const response = await fetch(`${url}/healthz`, { headers: { connection: 'close' } });
  await response.text();
  return performance.now() - started;
}

/** Processor time a process has used. */
function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) * tickMs;
}

describe.each(testEngines)('bodies, engine %s', (engine) => {
  let gateway: GatewayProcess;
  let requests = 0;
  beforeAll(async () => {
    gateway = await gatewayProcess({
      config: {
        listen: { engine, max_body: '6MiB' },
        memory: { arena: '64MiB' },
        models: modelOf(),
      },
    });
  });
  afterAll(() => gateway.finish());

  /** Status of the answer, and checksum of the body that the replica got, if it got one. */
  async function send(body: string): Promise<{ status: number; arrived: string[] }> {
    const id = `body-${engine}-${requests++}`;
    const request = rawPost('/v1/chat/completions', body, `x-request-id: ${id}\r\n`);
    const { responses } = await rawRequest(gateway.port, request);
    const attempts = await replica.ledger(id);
    return {
      status: responses[0]?.status ?? 0,
      arrived: attempts.map(({ bodySha256 }) => bodySha256),
    };
  }

  const sized = (bytes: number): string => {
    const empty = '{"model":"m","messages":[{"role":"user","content":""}],"max_tokens":1}';
    return empty.replace('"content":""', `"content":"${'x'.repeat(bytes - empty.length)}"`);
  };

  test('T30: a prompt of 5 MB, and bodies up to the cap', async () => {
    for (const bytes of [5_000_000, capBytes - 1, capBytes]) {
      const body = sized(bytes);
      expect(await send(body), `${bytes} bytes`).toEqual({ status: 200, arrived: [sha(body)] });
    }
    await expectQuiet(gateway);
  });

  test('T30: a length above the cap is refused before the body, and an endless one at the cap', async () => {
    const head = 'POST /v1/chat/completions HTTP/1.1\r\nhost: h\r\n';
    const early = await rawRequest(gateway.port, `${head}content-length: ${capBytes + 1}\r\n\r\n`);
    expect(early.responses[0]?.status).toBe(413);
    expect(JSON.parse(early.responses[0]!.body.toString())).toMatchObject({
      error: { code: 'body_too_large' },
    });
    const endless = await RawClient.connect(gateway.port);
    await endless.send(`${head}transfer-encoding: chunked\r\n\r\n`);
    let sent = 0;
    let isOver = false;
    void endless.closed.then(() => {
      isOver = true;
    });
    const piece = `10000\r\n${'x'.repeat(0x10000)}\r\n`;
    const sentMax = capBytes + 2 * discardBytesMax;
    while (!isOver && sent < sentMax) {
      await Promise.race([endless.send(piece), endless.closed]);
      sent += 0x10000;
      const { threads } = await gateway.slots();
      for (const { arenaBytes } of threads) expect(arenaBytes).toBeLessThanOrEqual(2 * capBytes);
    }
    await endless.closed;
    const { responses } = parseResponses(endless.received, true);
    expect(responses.map(({ status }) => status)).toEqual([413]);
    expect(sent).toBeLessThan(sentMax);
    await expectQuiet(gateway);
  });

  const user = '[{"role":"user","content":"a"}]';
  test.each([
    ['a million brackets', '['.repeat(1_000_000), 400],
    [
      '400,000 keys',
      `{"model":"m","messages":${user},${Array.from({ length: 400_000 }, (_, k) => `"${k}":1`).join()}}`,
      400,
    ],
    [
      'an escaped string of 6 MB',
      `{"model":"m","messages":[{"role":"user","content":"${'\\u0041'.repeat(1_000_000)}"}]}`,
      200,
    ],
    [
      '100,000 messages',
      `{"model":"m","messages":[${'{"role":"user","content":"a"},'.repeat(99_999)}${user.slice(1)}}`,
      200,
    ],
    ['two models', `{"model":"m","model":"other","messages":${user}}`, 400],
    ['two models, one escaped', `{"model":"m","mode\\u006c":"other","messages":${user}}`, 400],
    ['__proto__', `{"__proto__":{"model":"other"},"model":"m","messages":${user}}`, 200],
    ['a lone surrogate', `{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}`, 200],
    ['seed of 2^63-1', `{"model":"m","messages":${user},"seed":9223372036854775807}`, 200],
    ['1e400', `{"model":"m","messages":${user},"temperature":1e400}`, 200],
    ['unicode keys', `{"model":"m","messages":${user},"ключ🙂":"é"}`, 200],
    ['odd spacing', `\n\t { "messages" :\r\n${user} ,"max_tokens":1, "model"\t:"m" } \n`, 200],
  ])('T31, T32: %s', async (name, body, status) => {
    const answer = await send(body);
    expect(answer).toEqual({ status, arrived: status === 200 ? [sha(body)] : [] });
    // Noise of the machine only adds: one calm run of three shows what the body itself costs.
    const lag = await calmestLag(body, 3);
    if (body.length > 100_000) {
      process.stdout.write(
        `T31 ${engine}: ${name}, ${body.length} bytes, loop lag ${lag.toFixed(1)} ms\n`,
      );
    }
    expect(lag, 'loop lag of the acceptor in ms').toBeLessThan(50);
    await expectQuiet(gateway);
  });

  /** The least of some worst lags, each of a second in which the body was sent. */
  async function calmestLag(body: string, tries: number): Promise<number> {
    let least = Number.POSITIVE_INFINITY;
    for (let i = 0; i < tries && least >= 50; i++) {
      if (i > 0) await new Promise((resolve) => setTimeout(resolve, 1100));
      await send(body);
      await new Promise((resolve) => setTimeout(resolve, 150)); // three heartbeats
      const { threads } = await gateway.slots();
      const { lagMs } = threads.find(({ name }) => name === 'acceptor-0')!;
      least = Math.min(least, lagMs);
    }
    return least;
  }
});

describe.each(testEngines)('threads, engine %s', (engine) => {
  test('T38: behind a stalled scheduler the table fills, the rest is refused, nothing is lost', async () => {
    const stallFile = join(folder, `stall-${engine}`);
    const options = {
      config: { listen: { engine }, memory: { slots: 16 }, models: modelOf() },
      nodeFlags: ['--import', faults],
      env: { SLUICE_TEST_STALL_FILE: stallFile },
    };
    await withGateway(options, async (gateway) => {
      writeFileSync(stallFile, '');
      const waiting = Array.from({ length: 16 }, (_, i) =>
        call(gateway.port, { nonce: `t38-${engine}-${i}`, stream: i % 2 === 0 }),
      );
      await reached(
        () => gateway.slots(),
        ({ states }) => states.queued === 16,
        'the table is full',
      );
      const times: number[] = [];
      const healthTimes: number[] = [];
      for (let i = 0; i < 50; i++) {
        healthTimes.push(await healthzMs(gateway.url));
        const refused = await call(gateway.port, { nonce: `t38-${engine}-no-${i}` }).ended;
        times.push(refused.endedAt - refused.startedAt);
        expect([refused.end, refused.status, refused.errorCode]).toEqual([
          'http-error',
          503,
          'slots_full',
        ]);
        expect(Number(refused.headers['retry-after'])).toBeGreaterThanOrEqual(1);
        expect(Number(refused.headers['retry-after-ms'])).toBeGreaterThan(0);
      }
      await eventually('readiness is off', async () => (await gateway.ready()).status === 503);
      rmSync(stallFile);
      for (const c of waiting) expect((await c.ended).end).toBe('done');
      await eventually('readiness is back', async () => (await gateway.ready()).status === 200);
      await expectQuiet(gateway);
      expect(quantile(times, 0.5), 'a refusal takes less than 20 ms').toBeLessThan(20);
      // The simplest answer there is takes its share of the machine's noise in the same moments.
      const added = quantile(times, 0.95) - quantile(healthTimes, 0.95);
      expect(added, 'p95 above that of /healthz').toBeLessThan(20);
    });
  });

  test('T39: with every 10th wake-up of every thread lost nothing hangs and nothing is lost', async () => {
    const report = join(folder, `lost-${engine}`);
    const run = async (env: Record<string, string>): Promise<number[]> => {
      const config = { listen: { engine }, models: modelOf() };
      return withGateway({ config, nodeFlags: ['--import', faults], env }, async (gateway) => {
        const times: number[] = [];
        for (let i = 0; i < 300; i++) {
          const c = await call(gateway.port, { nonce: `t39-${i}`, stream: i % 2 === 0 }).ended;
          expect(c.end, c.body.toString()).toBe('done');
          times.push(c.endedAt - c.startedAt);
        }
        const many = Array.from({ length: 200 }, (_, i) =>
          call(gateway.port, { nonce: `t39-many-${i}`, stream: true }),
        );
        for (const c of many) expect((await c.ended).end).toBe('done');
        await expectQuiet(gateway);
        return times;
      });
    };
    const normal = await run({});
    const addedBy = async (): Promise<number> => {
      const lossy = await run({ SLUICE_TEST_LOSE_NOTIFY: '10', SLUICE_TEST_REPORT_FILE: report });
      return quantile(lossy, 0.99) - quantile(normal, 0.99);
    };
    // Three losses in one request and a busy machine can pass the limit; a defect does so twice.
    const first = await addedBy();
    const added = first < addedMsMax ? first : await addedBy();
    expect(existsSync(report)).toBe(true);
    const losers = new Set(readFileSync(report, 'utf8').trim().split('\n'));
    expect([...losers].sort()).toEqual(['acceptor', 'forwarder', 'scheduler']);
    figure('T39', `${engine}, added p99`, added, 'ms');
    expect(added).toBeLessThan(addedMsMax);
  });
});

/**
 * More than the replicas can take, through the whole gateway: T37, T40 to T42. Gates hold the replicas, so
 * what is admitted, refused and served next is exact, whatever the machine does.
 */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { createPrng } from '../../src/lib/prng.ts';
import { quantile } from '../../src/lib/quantile.ts';
import { newKey, sha256Of } from '../../src/protocol/api-key.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { expectQuiet, type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { inTime } from '../support/in-time.ts';
import { configOf, expectServedOnce, sum, total, withReplicas } from '../support/scenario.ts';
import { type Call, call, reached } from '../support/traffic.ts';
import { eventually } from '../support/until.ts';

const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 31));
console.info(`SEED=${seed}`);

const faults = fileURLToPath(new URL('../support/gateway-faults.ts', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'sluice-overload-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

interface Limits {
  readonly replicas: number;
  readonly inFlight: number;
  readonly queue: number;
  /** With keys: each has two. Without, whatever is sent as a key names its tenant. */
  readonly tenants?: readonly string[];
}

interface Overload {
  readonly gateway: GatewayProcess;
  readonly replicas: readonly Replica[];
  /** A request of a tenant, which takes one of its keys after the other. */
  ask(nonce: string, key?: string): Call;
  /** Resolves once that many are in flight and that many wait. */
  settled(inFlight: number, queued: number): Promise<void>;
}

function withOverload(
  engine: (typeof testEngines)[number],
  { replicas: count, inFlight, queue, tenants = [] }: Limits,
  use: (overload: Overload) => Promise<void>,
  env: Readonly<Record<string, string>> = {},
): Promise<void> {
  return withReplicas(count, { hold: true }, async (replicas) => {
    const rows = replicas.map(({ url }, i) => ({
      url,
      name: `r${i + 1}`,
      max_in_flight: inFlight,
    }));
    const keys = new Map(tenants.map((name) => [name, [newKey(), newKey()] as const]));
    const common = {
      ...{ listen: { engine }, queue: { max: queue } },
      tenants: [...keys].map(([name, own]) => ({
        ...{ name, keys: own.map((key, i) => ({ id: `k${i}`, sha256: sha256Of(key) })) },
      })),
    };
    let asked = 0;
    const config = configOf(replicas, common, { replicas: rows });
    const nodeFlags = Object.keys(env).length === 0 ? [] : ['--import', faults];
    await withGateway({ config, nodeFlags, env }, async (gateway) => {
      await use({
        gateway,
        replicas,
        ask: (nonce, tenant) => {
          const key = keys.get(tenant ?? '')?.[asked++ % 2] ?? tenant;
          const headers = key === undefined ? {} : { authorization: `Bearer ${key}` };
          return call(gateway.port, { nonce: `${engine}-${nonce}`, headers });
        },
        settled: async (running, waiting) => {
          const isSo = (view: Awaited<ReturnType<GatewayProcess['cluster']>>): boolean =>
            sum(view.replicas.map(({ in_flight }) => in_flight)) === running &&
            view.queue_depth === waiting;
          await reached(() => gateway.cluster(), isSo, `${running} run, ${waiting} wait`);
        },
      });
      for (const replica of replicas) {
        replica.gate.holdAll = false;
        replica.gate.release();
      }
      await expectQuiet(gateway);
    });
  });
}

/** What a client is told that is turned away at the door. */
async function expectRefused(calls: readonly Call[]): Promise<void> {
  for (const one of calls) {
    const { end, status, errorCode, headers } = await one.ended;
    expect([end, status, errorCode]).toEqual(['http-error', 429, 'rate_limit_exceeded']);
    expect(Number(headers['retry-after-ms'])).toBeGreaterThan(0);
  }
}

async function expectServed(calls: readonly Call[]): Promise<void> {
  for (const one of calls) expect((await one.ended).end).toBe('done');
}

describe.each(testEngines)('engine %s', (engine) => {
  test('T40: when all places are taken and the queue is full the rest is refused, without a replica', async () => {
    const limits = { replicas: 2, inFlight: 2, queue: 6 };
    await withOverload(engine, limits, async ({ gateway, replicas, ask, settled }) => {
      const running = Array.from({ length: 4 }, (_, i) => ask(`run-${i}`));
      await settled(4, 0);
      const waiting = Array.from({ length: 6 }, (_, i) => ask(`wait-${i}`));
      await settled(4, 6);
      let refused = 0;
      await inTime(20, async () => {
        const times: number[] = [];
        for (let i = 0; i < 20; i++) {
          const one = ask(`refused-${refused++}`);
          await expectRefused([one]);
          times.push(one.endedAt - one.startedAt);
        }
        return quantile(times, 0.5);
      });
      await settled(4, 6);
      expect(sum(replicas.map((replica) => replica.stats().started))).toBe(4);
      for (const replica of replicas) {
        replica.gate.holdAll = false;
        replica.gate.release();
      }
      await expectServed([...running, ...waiting]);
      // No collapse behind it: there is room for everybody, at once.
      await expectServed(Array.from({ length: 10 }, (_, i) => ask(`after-${i}`)));
      expectServedOnce(replicas, 20);
      await expectQuiet(gateway);
      const metrics = await gateway.metrics();
      expect(total(metrics, 'sluice_requests_total', { code: '200' })).toBe(20);
      expect(total(metrics, 'sluice_requests_total', { code: '429' })).toBe(refused);
    });
  });

  const lights = Array.from({ length: 4 }, (_, i) => `light-${i}`);
  test.each([
    ['without keys', []],
    ['with keys', ['flood', ...lights]],
  ])(
    'T42: who floods a full queue is refused itself; the others wait, and are served in turn, %s',
    async (_, tenants) => {
      const limits = { replicas: 1, inFlight: 1, queue: 8, tenants };
      await withOverload(engine, limits, async ({ replicas: [replica], ask, settled }) => {
        const first = ask('first', 'flood');
        await settled(1, 0);
        const flood: Call[] = [];
        for (let i = 0; i < 8; i++) {
          flood.push(ask(`flood-${i}`, 'flood'));
          await settled(1, i + 1); // so that which is the newest is known
        }
        await expectRefused([ask('over-1', 'flood'), ask('over-2', 'flood')]);
        const light: Call[] = [];
        for (let i = 0; i < 4; i++) {
          light.push(ask(`light-${i}`, `light-${i}`));
          await expectRefused([flood[7 - i]!]);
        }
        await expectRefused([ask('over-3', 'flood')]);
        await settled(1, 8);
        const served = [...flood.slice(0, 4), ...light];
        for (let i = 0; i < 9; i++) {
          await replica!.gate.arrivals(1);
          replica!.gate.release(1);
        }
        await expectServed([first, ...served]);
        // As the replica saw them: clients may hear of their ends in another order.
        const order = replica!.ledger().map(({ id }) => id);
        // The flood was first in line and has one turn before those who came behind it.
        const places = light.map(({ nonce }) => order.indexOf(nonce));
        expect(places.toSorted()).toEqual([2, 3, 4, 5]);
        expectServedOnce([replica!], 9);
      });
    },
  );

  test('whatever arrives and ends in whatever order: admitted and refused are all, within the bounds', async () => {
    const limits = { replicas: 2, inFlight: 3, queue: 5 };
    await withOverload(engine, limits, async ({ gateway, replicas, ask, settled }) => {
      const random = createPrng(seed);
      const calls: Call[] = [];
      const arrived = async (count: number): Promise<void> => {
        await settled(Math.min(6, count), Math.max(0, count - 6));
        await eventually(
          'the replicas have what is in flight',
          () => sum(replicas.map(({ gate }) => gate.held)) === Math.min(6, count),
        );
      };
      let inside = 0;
      let finished = 0;
      for (let round = 0; round < 10; round++) {
        const burst = 1 + random.below(8);
        for (let i = 0; i < burst; i++) {
          calls.push(ask(`any-${calls.length}`, `key-${random.below(5)}`));
        }
        inside = Math.min(11, inside + burst);
        await eventually('the rest has been refused', () => {
          const refused = calls.filter(({ endedAt, status }) => endedAt > 0 && status === 429);
          return refused.length === calls.length - inside - finished;
        });
        await arrived(inside);
        const { replicas: rows } = await gateway.cluster();
        expect(Math.max(...rows.map(({ in_flight }) => in_flight))).toBeLessThanOrEqual(3);
        for (let going = random.below(Math.min(6, inside) + 1); going > 0; going--) {
          const holding = replicas.filter(({ gate }) => gate.held > 0);
          holding[random.below(holding.length)]!.gate.release(1);
          inside--;
          finished++;
          await arrived(inside);
        }
      }
      for (const replica of replicas) {
        replica.gate.holdAll = false;
        replica.gate.release();
      }
      const ends = await Promise.all(calls.map(async (one) => (await one.ended).status));
      const admitted = ends.filter((status) => status === 200).length;
      expect(ends.filter((status) => status === 429).length).toBe(calls.length - admitted);
      expectServedOnce(replicas, admitted);
    });
  });

  test('T41: who has waited half of its time is refused, before a replica has seen it', async () => {
    const limits = { replicas: 1, inFlight: 1, queue: 4 };
    await withOverload(engine, limits, async ({ gateway, replicas: [replica], ask, settled }) => {
      const running = ask('running');
      await settled(1, 0);
      const headers = { 'x-sluice-deadline-ms': '600' };
      const late = call(gateway.port, { nonce: `${engine}-late`, headers });
      const { status, errorCode, endedAt, startedAt } = await late.ended;
      expect([status, errorCode]).toEqual([503, 'queue_timeout']);
      expect(endedAt - startedAt).toBeGreaterThan(290);
      expect(replica!.stats().started).toBe(1);
      replica!.gate.release();
      await expectServed([running]);
    });
  });

  test('T37: behind a stalled scheduler requests wait, readiness is off, and then the bounds hold', async () => {
    const stall = join(folder, `stall-${engine}`);
    const limits = { replicas: 1, inFlight: 2, queue: 4 };
    const env = { SLUICE_TEST_STALL_FILE: stall };
    await withOverload(
      engine,
      limits,
      async ({ gateway, replicas: [replica], ask, settled }) => {
        const queuedSlots = (count: number) =>
          reached(
            () => gateway.slots(),
            ({ states }) => states.queued === count,
            `${count} in the table`,
          );
        writeFileSync(stall, '');
        const short = [ask('short-0'), ask('short-1')];
        await queuedSlots(2);
        rmSync(stall);
        await settled(2, 0); // a stall drops nothing that there is room for
        writeFileSync(stall, '');
        const calls = Array.from({ length: 12 }, (_, i) => ask(`long-${i}`));
        await queuedSlots(12);
        await eventually('readiness is off', async () => (await gateway.ready()).status === 503);
        expect(calls.filter(({ endedAt }) => endedAt > 0)).toEqual([]);
        expect(replica!.stats().started).toBe(2);
        rmSync(stall);
        await eventually('readiness is back', async () => (await gateway.ready()).status === 200);
        await settled(2, 4);
        replica!.gate.holdAll = false;
        replica!.gate.release();
        await expectServed(short);
        const statuses = await Promise.all(calls.map(async (one) => (await one.ended).status));
        expect(statuses.filter((status) => status === 200)).toHaveLength(4);
        expect(statuses.filter((status) => status === 429)).toHaveLength(8);
        expectServedOnce([replica!], 6);
      },
      env,
    );
    expect(existsSync(stall)).toBe(false);
  });
});

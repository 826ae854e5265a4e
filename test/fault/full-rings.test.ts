/**
 * T38 through the whole gateway: a full request ring refuses, a full response ring holds replicas back,
 * and a ring that only requests fill never gets full.
 */
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { Flood } from '../support/flood.ts';
import { expectQuiet, type GatewayProcess, testEngines, withGateway } from '../support/gateway.ts';
import { jsonAnswer, RawReplica, type RawRequest } from '../support/raw-replica.ts';
import { configOf, total, withReplicas } from '../support/scenario.ts';
import { Call, call, reached } from '../support/traffic.ts';
import { eventually } from '../support/until.ts';

const faults = fileURLToPath(new URL('../support/gateway-faults.ts', import.meta.url));
const nodeFlags = ['--import', faults];
const folder = mkdtempSync(join(tmpdir(), 'sluice-rings-'));
afterAll(() => rmSync(folder, { recursive: true }));

const ringFull = async (gateway: GatewayProcess, ring: string): Promise<number> =>
  total(await gateway.metrics(), 'sluice_ring_full_total', { ring });

async function expectRefused(asked: Call, code: string): Promise<void> {
  const refused = await asked.ended;
  expect([refused.end, refused.status, refused.errorCode]).toEqual(['http-error', 503, code]);
  expect(Number(refused.headers['retry-after'])).toBeGreaterThanOrEqual(1);
  expect(Number(refused.headers['retry-after-ms'])).toBeGreaterThan(0);
}

describe.each(testEngines)('rings of engine %s', (engine) => {
  const slots = 8;
  const config = { listen: { engine }, memory: { slots, stream_window: '16MiB' } };

  test('T38: a full request ring answers 503, and what it held is served', async () => {
    const stall = join(folder, `stall-${engine}`);
    const fill = join(folder, `fill-${engine}`);
    const env = { SLUICE_TEST_STALL_FILE: stall, SLUICE_TEST_FILL_FILE: fill };
    await withReplicas(1, {}, (replicas) =>
      withGateway({ config: configOf(replicas, config), nodeFlags, env }, async (gateway) => {
        writeFileSync(stall, '');
        const nonce = `held-${engine}`;
        const held = Array.from({ length: 3 }, (_, i) =>
          call(gateway.port, { nonce: `${nonce}-${i}`, stream: i % 2 === 0 }),
        );
        await reached(
          () => gateway.slots(),
          ({ rings }) => rings.request === held.length,
          'they wait in the ring',
        );
        writeFileSync(fill, '');
        await reached(
          () => gateway.slots(),
          ({ rings }) => rings.request === 2 * slots,
          'the ring is full',
        );
        // A cancel that finds no room is not lost either.
        held[2]!.leave();
        for (let i = 0; i < 20; i++) {
          const stream = i % 2 === 0;
          await expectRefused(
            call(gateway.port, { nonce: `${nonce}-no-${i}`, stream }),
            'ring_full',
          );
        }
        const { states } = await gateway.slots();
        expect(states).toMatchObject({ queued: held.length, free: slots - held.length });
        // Every refusal, and at least one try of the cancel.
        expect(await ringFull(gateway, 'request')).toBeGreaterThan(20);
        rmSync(fill);
        rmSync(stall);
        for (const c of held.slice(0, 2)) expect((await c.ended).end).toBe('done');
        expect((await call(gateway.port, { nonce: `${nonce}-after` }).ended).end).toBe('done');
        await expectQuiet(gateway);
        // The cancel may come behind the start; whoever stayed is served once.
        expect(replicas[0]!.stats()).toMatchObject({ in_flight: 0, ids_repeated: 0 });
      }),
    );
  });

  test('T38: arrivals and cancels of every slot fill the request ring and do not overfill it', async () => {
    const stall = join(folder, `brim-${engine}`);
    const env = { SLUICE_TEST_STALL_FILE: stall };
    await withReplicas(1, {}, (replicas) =>
      withGateway({ config: configOf(replicas, config), nodeFlags, env }, async (gateway) => {
        writeFileSync(stall, '');
        const gone = Array.from({ length: slots }, (_, i) =>
          call(gateway.port, { nonce: `gone-${engine}-${i}` }),
        );
        await reached(
          () => gateway.slots(),
          ({ states }) => states.queued === slots,
          'every slot waits',
        );
        for (const c of gone) c.leave();
        await reached(
          () => gateway.slots(),
          ({ rings }) => rings.request === 2 * slots,
          'each slot has two messages in the ring',
        );
        await expectRefused(call(gateway.port, { nonce: `brim-${engine}` }), 'slots_full');
        expect(await ringFull(gateway, 'request')).toBe(0);
        rmSync(stall);
        await expectQuiet(gateway);
        expect(replicas[0]!.stats().started).toBe(0);
      }),
    );
  });

  test('T38: a full response ring holds the replicas back, and every stream comes whole', async () => {
    const deaf = join(folder, `deaf-${engine}`);
    const bytes = 5 * 1024 * 1024; // one of them is more than the ring holds
    const asked: RawRequest[] = [];
    const replica = await RawReplica.listen((request) => {
      const { socket } = request.connection;
      if (request.method === 'GET') socket.write(jsonAnswer({ data: [] }));
      else asked.push(request);
    });
    const options = {
      config: configOf([replica], config),
      nodeFlags,
      env: { SLUICE_TEST_DEAF_FILE: deaf },
    };
    try {
      await withGateway(options, async (gateway) => {
        const streams = Array.from(
          { length: 3 },
          (_, i) => new Call(gateway.port, { nonce: `flood-${engine}-${i}`, stream: true }),
        );
        await replica.until(() => asked.length === streams.length);
        writeFileSync(deaf, ''); // whatever is written now meets acceptors that stand still
        const floods = new Map(
          asked.map((one) => [one.headers['x-request-id'], new Flood(one, bytes)]),
        );
        await eventually('the ring is full', async () => (await ringFull(gateway, 'response')) > 0);
        const { rings } = await gateway.slots();
        expect(rings.response).toBeGreaterThan(3 * 1024 * 1024);
        rmSync(deaf);
        for (const c of streams) {
          const { end, body } = await c.ended;
          expect(end).toBe('done');
          expect(createHash('sha256').update(body).digest('hex')).toBe(floods.get(c.nonce)!.sha);
        }
        expect(asked.length).toBe(streams.length);
        await expectQuiet(gateway);
      });
    } finally {
      await replica.close();
    }
  });
});

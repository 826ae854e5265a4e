/** Gateways whose process is replaced by another on the same addresses. */
import { expect } from 'vitest';
import type { ConfigInput } from '../../src/config/schema.ts';
import type { Replica } from '../../src/replica/replica.ts';
import { freePort } from './free-port.ts';
import { type Gate, gatedHealth, withGate } from './gate.ts';
import { type GatewayProcess, type TestEngine, withGateway } from './gateway.ts';
import {
  chatBody,
  chatSeries,
  configOf,
  openStream,
  post,
  type Reading,
  withReplicas,
} from './scenario.ts';
import { readSse } from './sse-ledger.ts';
import { eventually } from './until.ts';

export const token = 'restart-token';
/** Two process starts on a busy machine. */
export const startMs = 60_000;
const length = 40;
/** Stops at the gate of the replica in the middle of its answer. */
export const heldPrompt = (i: number): string =>
  `nonce=n${i} [[len=${length}]] [[fault:hold-after=20]]`;

type More = Omit<ConfigInput, 'models'>;

/** One on fixed ports, as both processes must have the same. */
export async function supervised(
  more: More,
  use: (gateway: GatewayProcess, replica: Replica, config: More) => Promise<void>,
  engine: TestEngine = 'uws',
): Promise<void> {
  const config: More = {
    ...more,
    listen: { engine, port: await freePort(), ...more.listen },
    admin: { token, port: await freePort() },
    log: { level: 'info' },
    retry: { max_attempts: 1 },
  };
  await withReplicas(1, { profile: 'tokens:ttft=2ms,itl=2ms' }, ([replica]) =>
    withGateway({ supervisor: true, config: configOf([replica!], config) }, (gateway) =>
      use(gateway, replica!, config),
    ),
  );
}

/** The same with replicas whose probes wait at a gate that is shut behind the first start. */
export async function gated(
  more: More,
  use: (gateway: GatewayProcess, gate: Gate) => Promise<void>,
): Promise<void> {
  await withGate(async (gate) => {
    gate.release();
    const listen = { port: await freePort() };
    const admin = { port: await freePort() };
    const config = configOf([gate], { health: gatedHealth, listen, admin, ...more });
    await withGateway({ supervisor: true, config }, async (gateway) => {
      gate.shut();
      await use(gateway, gate);
    });
  });
}

export const alone = (gateway: GatewayProcess): Promise<void> =>
  eventually('one process is left', () => gateway.servingPids.length === 1, startMs);

export async function heldStreams(gateway: GatewayProcess, replica: Replica, count: number) {
  const held = Array.from({ length: count }, async (_, i) => {
    const reading = await openStream(gateway.url, chatBody(heldPrompt(i), { max_tokens: length }));
    await reading.until((text) => text.includes(':19:'));
    return reading;
  });
  const readings = await Promise.all(held);
  expect(replica.stats().in_flight).toBe(count);
  return readings;
}

export async function expectWhole(readings: readonly Reading[]): Promise<void> {
  for (const [i, reading] of readings.entries()) {
    const { text, cut } = await reading.ended;
    const ledger = readSse(new TextEncoder().encode(text), chatSeries(heldPrompt(i)));
    expect(cut).toBe(false);
    expect(ledger).toMatchObject({ tokens: length, exact: true, sawDone: true, errors: [] });
  }
}

export const serves = async (gateway: GatewayProcess): Promise<number> =>
  (await post(gateway.url, chatBody('x [[len=2]]', { max_tokens: 2 }))).status;

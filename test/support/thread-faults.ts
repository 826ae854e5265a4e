/** Faults of the threads of a gateway process, through its admin listener (SLUICE_FAULT_HOOKS=1). */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { expect } from 'vitest';
import type { FaultStage } from '../../src/lib/fault-point.ts';
import type { CrashKind } from '../../src/shm/threads.ts';
import type { GatewayProcess } from './gateway.ts';
import { total } from './scenario.ts';
import { reached } from './traffic.ts';
import { eventually } from './until.ts';

export const faultToken = 'faults';
/** What a gateway needs in its environment and config to take faults. */
export const faultEnv = { SLUICE_FAULT_HOOKS: '1' };

export async function inject(
  gateway: GatewayProcess,
  fault: object,
  token = faultToken,
): Promise<void> {
  const response = await fetch(`${gateway.adminUrl}/admin/fault`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}` },
    body: JSON.stringify(fault),
  });
  expect(response.status, await response.text()).toBe(200);
}

export function crash(
  gateway: GatewayProcess,
  thread: string,
  stage: FaultStage,
  how: CrashKind,
  after = 0,
  token = faultToken,
): Promise<void> {
  return inject(gateway, { kind: 'crash', thread, stage, how, after }, token);
}

/**
 * The thread dies at a request, for the first time, and is started again. It hears of the fault at its next beat, so
 * that the first requests may be served before: they come until one has met it.
 */
export async function dieAt(
  gateway: GatewayProcess,
  [thread, kind, stage]: readonly [string, 'scheduler' | 'forwarder', FaultStage],
  request: () => Promise<unknown>,
  { how = 'throw', token = faultToken }: { how?: CrashKind; token?: string } = {},
): Promise<void> {
  await crash(gateway, thread, stage, how, 0, token);
  do await request();
  while ((await restarts(gateway, kind)) === 0);
  await restarted(gateway, kind, 1);
}

export async function restarts(gateway: GatewayProcess, thread: string): Promise<number> {
  return total(await gateway.metrics(), 'sluice_thread_restarts_total', { thread });
}

/** Resolves with how long the thread was away, by the log, once it has been restarted `count` times. */
export async function restarted(
  gateway: GatewayProcess,
  kind: 'scheduler' | 'forwarder' | 'limiter',
  count: number,
): Promise<number> {
  await reached(
    () => restarts(gateway, kind),
    (n) => n >= count,
    `${kind} is started again ${count} times`,
    30_000,
  );
  const said = (): string[] =>
    [...gateway.output().matchAll(/serves again after (\d+) ms/g)].map(([, ms]) => ms as string);
  await eventually('the log says so', async () => said().length >= count, 10_000);
  return Number(said()[count - 1]);
}

/**
 * What a restart may take: a second, or on a machine that is busy with other things eight times what a
 * thread needs there to load the largest part of a forwarder.
 */
export async function restartMsMax(): Promise<number> {
  const start = performance.now();
  const worker = new Worker("require('undici')", { eval: true });
  await once(worker, 'exit');
  return Math.max(1000, 8 * (performance.now() - start));
}

/** Nothing leaked, nobody settled twice, no replica was blamed. */
export async function expectNoBlame(gateway: GatewayProcess): Promise<void> {
  const families = await gateway.metrics();
  for (const name of ['in_flight_leaks', 'settle_conflicts', 'replica_errors', 'handler_errors']) {
    expect(total(families, `sluice_${name}_total`), name).toBe(0);
  }
  for (const { breaker } of (await gateway.cluster()).replicas) expect(breaker).toBe('closed');
}

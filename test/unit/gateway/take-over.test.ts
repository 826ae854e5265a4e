/** How long a process that is to take over waits for replicas. */
import { beforeEach, expect, test } from 'vitest';
import { Membership, type ReplicaSpec } from '../../../src/gateway/membership.ts';
import { untilReplicasServe } from '../../../src/gateway/take-over.ts';
import { createMemory } from '../../../src/shm/memory.ts';
import type { Readiness } from '../../../src/shm/readiness.ts';
import type { Logger } from '../../../src/telemetry/log.ts';

const spec = (name: string): ReplicaSpec => ({
  ...{ name, url: `http://${name}:1`, api_key: '', weight: 1, max_in_flight: 8 },
  ...{ prefill_us: 21.2, resident_us: 0.06, kv_tokens: 0, adapters: [] },
});
const logger = { warn: () => {} } as unknown as Logger;
let membership: Membership;

beforeEach(() => {
  const sizes = { acceptors: 1, forwarders: 1, slots: 8 };
  const memory = createMemory({ ...sizes, arenaBytes: 64 * 1024, responseRingBytes: 64 * 1024 });
  membership = new Membership(memory);
  for (const model of [0, 1]) membership.activate(membership.add(spec(`r${model}`), model)!);
  membership.setHealthy([...membership][0]!, true, '');
});

/** Model 1 has no replica; `problem` is what readiness says. */
const wait = (limitMs: number, problem: string, isHurried: boolean, assertOpen = () => {}) =>
  untilReplicasServe({
    ...{ membership, logger, limitMs, assertOpen },
    readiness: { problem: () => problem } as Readiness,
    isHurried: () => isHurried,
  });

test('for a replica of each model half of the limit, then those that can be are served', async () => {
  const sinceMs = performance.now();
  await wait(200, '', false);
  expect(performance.now() - sinceMs).toBeGreaterThanOrEqual(90);
});

test('for nobody once there is nobody to take over from', async () => {
  await wait(3_600_000, 'no replica is healthy', true);
});

test('until the start is taken back', async () => {
  let looks = 0;
  const taken = wait(3_600_000, '', false, () => {
    if (++looks === 2) throw new Error('taken back');
  });
  await expect(taken).rejects.toThrow('taken back');
});

/** The event loop that probes is late: what it then says of a replica. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, test } from 'vitest';
import { HealthChecker } from '../../src/gateway/health.ts';
import type { ProbeResult } from '../../src/gateway/health-verdict.ts';
import { Membership } from '../../src/gateway/membership.ts';
import { createMemory } from '../../src/shm/memory.ts';

const sizes = { acceptors: 1, forwarders: 1, slots: 8 };
const nobody = new Int32Array(new SharedArrayBuffer(4));
const blockLoop = (ms: number): void => void Atomics.wait(nobody, 0, 0, ms);

test('a probe that timed out is void when the loop was late at any time of it', async () => {
  let asked = 0;
  const server = createServer(() => {
    // In the middle of the first probe, and long over when its time is up. Nobody is ever answered.
    if (asked++ === 0) blockLoop(250);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const membership = new Membership(
    createMemory({ ...sizes, arenaBytes: 64 * 1024, responseRingBytes: 64 * 1024 }),
  );
  const limits = { api_key: '', weight: 1, max_in_flight: 8 };
  const costs = { prefill_us: 1, resident_us: 1, kv_tokens: 0, adapters: [] };
  const member = membership.add({ name: 'deaf', url, ...limits, ...costs }, 0)!;
  const results: ProbeResult[] = [];
  const options = {
    path: '/',
    interval: 1000,
    timeout: 1000,
    unhealthy_after: 2,
    healthy_after: 1,
    stall: 0,
    token_timeout: 1000,
  };
  const health = new HealthChecker(
    membership,
    options,
    () => 'm',
    (_, result) => results.push(result),
    () => {},
  );
  try {
    await health.watch(member);
    expect(results).toEqual(['void']);
    // Without lag the same silence is a failure; a busy machine may make some of these void as well.
    await expect.poll(() => results, { timeout: 20_000 }).toContain('failed');
  } finally {
    await health.stop();
    server.closeAllConnections();
    server.close();
  }
});

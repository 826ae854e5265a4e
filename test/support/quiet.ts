/** A gateway at rest: I3 of the invariants (RELIABILITY.md 8.1). */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'vitest';
import type { GatewayProcess } from './gateway.ts';

/**
 * All slots free, all rings empty, nothing in flight, no request body in the arena, within `withinMs`
 * of the last request's end.
 */
export async function expectQuiet(gateway: GatewayProcess, withinMs = 2000): Promise<void> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const left = await leftovers(gateway);
    if (Object.keys(left).length === 0) return;
    if (performance.now() > deadline) {
      expect(left, `not quiet after ${withinMs} ms`).toEqual({});
    }
    await sleep(20);
  }
}

/** Whatever is not at rest, by name. */
async function leftovers(gateway: GatewayProcess): Promise<Record<string, unknown>> {
  const [slots, cluster] = await Promise.all([gateway.slots(), gateway.cluster()]);
  const left: Record<string, unknown> = {};
  const note = (name: string, count: number): void => {
    if (count !== 0) left[name] = count;
  };
  for (const [state, count] of Object.entries(slots.states)) {
    if (state === 'free') note('slots not free', slots.count - count);
    else note(`slots ${state}`, count);
  }
  for (const [ring, depth] of Object.entries(slots.rings)) note(`ring ${ring}`, depth);
  for (const replica of cluster.replicas) note(`in flight on ${replica.name}`, replica.in_flight);
  note('queued', cluster.queue_depth);
  for (const { name, arenaBytes } of slots.threads) note(`arena of ${name}`, arenaBytes);
  return left;
}

/**
 * When a process may take over from the one that serves: it must not refuse what the other serves.
 * Main thread, between its first probes and its first connection.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { nowMs } from '../lib/clock.ts';
import type { Readiness } from '../shm/readiness.ts';
import type { Logger } from '../telemetry/log.ts';
import { isRoutable } from './handover.ts';
import type { Membership } from './membership.ts';

export interface TakeOverParts {
  readonly membership: Membership;
  readonly readiness: Readiness;
  readonly logger: Logger;
  /** `restart.timeout`. */
  readonly limitMs: number;
  /** There is nobody left to take over from. */
  isHurried(): boolean;
  /** Throws once the start is taken back. */
  assertOpen(): void;
}

const pollMs = 20;
/**
 * A replica of each model is waited for so long, or half of what there is, since its first probe may have
 * failed by chance; then any will do.
 */
const everyModelMsMax = 10_000;

/** Resolves once requests could be served; it is the supervisor who loses patience. */
export async function untilReplicasServe(parts: TakeOverParts): Promise<void> {
  const { membership, readiness, logger, limitMs, isHurried, assertOpen } = parts;
  const everyModelMs = Math.min(everyModelMsMax, limitMs / 2);
  const sinceMs = nowMs();
  for (let isFirst = true; ; isFirst = false) {
    assertOpen();
    if (isHurried()) return;
    const problem = readiness.problem();
    const isEnough = isEveryModelServed(membership) || nowMs() - sinceMs > everyModelMs;
    if (problem === '' && isEnough) return;
    if (isFirst) logger.warn('waits for healthy replicas before it takes over', { err: problem });
    await sleep(pollMs);
  }
}

/** Of the models that have replicas with weight. */
function isEveryModelServed(membership: Membership): boolean {
  const wanted = new Set<number>();
  const served = new Set<number>();
  for (const member of membership) {
    const state = { ...member, ...membership.state(member) };
    if (isRoutable({ ...state, healthy: true })) wanted.add(member.model);
    if (isRoutable(state)) served.add(member.model);
  }
  return served.size === wanted.size;
}

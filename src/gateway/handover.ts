/**
 * When a replica that a reload took out of the config may leave. Pure.
 *
 * It serves until another replica of its model can take a request: a server that still loads its
 * model must not be waited for by refusing what the old one could have served.
 */
import { ReplicaAdmin } from '../shm/replica-table.layout.ts';
import type { MemberState } from './membership.ts';

export interface Standing extends Pick<MemberState, 'admin' | 'healthy'> {
  readonly model: number;
  readonly weight: number;
}

/** Large models take minutes to load; what is not there after this does not come by itself. */
const waitMsMax = 15 * 60_000;

/** `late`: it leaves although nobody can serve in its place. */
export type Handover = 'wait' | 'leave' | 'late';

/** `staying` are the replicas of the new config, of any model. */
export function handoverOf(
  leaving: Standing,
  staying: readonly Standing[],
  waitedMs: number,
): Handover {
  // Drained by hand or without weight it serves nobody. Unhealthy it may be back before the others.
  if (!isRoutable({ ...leaving, healthy: true })) return 'leave';
  if (staying.some((other) => other.model === leaving.model && isRoutable(other))) return 'leave';
  return waitedMs > waitMsMax ? 'late' : 'wait';
}

/** The rule of the scheduler (dispatch/fleet.ts). */
export function isRoutable({ admin, healthy, weight }: Standing): boolean {
  return admin === ReplicaAdmin.active && healthy && weight > 0;
}

/** Gives a workload tenants: each chat belongs to one, drawn with the given shares. Pure. */
import { createPrng } from '../../lib/prng.ts';
import { drawIndex } from '../variates.ts';
import type { Workload } from '../workload.ts';

/** Tenant 0 sends 70 % of the chats, nine others the rest in equal parts (ALGORITHMS.md 6, figure 7). */
export const floodShares: readonly number[] = [0.7, ...new Array<number>(9).fill(0.3 / 9)];

/** The nine others alone, and all ten alike. */
export const lightShares: readonly number[] = [0, ...new Array<number>(9).fill(1 / 9)];
export const evenShares: readonly number[] = new Array<number>(10).fill(1 / 10);

export function withTenants(workload: Workload, shares: readonly number[], seed: number): Workload {
  const random = createPrng(seed);
  const ofSession = new Map<number, number>();
  const tenant = workload.session.map((session) => {
    const known = ofSession.get(session);
    if (known !== undefined) return known;
    const drawn = drawIndex(random, shares);
    ofSession.set(session, drawn);
    return drawn;
  });
  return { ...workload, tenant, tenantCount: shares.length };
}

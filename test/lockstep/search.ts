/** What a suite of searches is, and the modules of src/shm that it runs: shipped, or a mutant of them. */
import { explore, type Report, type World } from './explorer.ts';

export interface ShmModules {
  readonly requestRing: typeof import('../../src/shm/request-ring.ts');
  readonly spscRing: typeof import('../../src/shm/spsc-ring.ts');
  readonly byteRing: typeof import('../../src/shm/byte-ring.ts');
  readonly doorbell: typeof import('../../src/shm/doorbell.ts');
  readonly requestSlots: typeof import('../../src/shm/request-slots.ts');
  readonly explain: typeof import('../../src/shm/explain.ts');
  readonly heartbeat: typeof import('../../src/shm/heartbeat.ts');
  readonly storedResponses: typeof import('../../src/shm/stored-responses.ts');
}

export interface Search {
  readonly name: string;
  /** Searches of more than a second; the mutation run leaves them out. */
  readonly isLarge?: boolean;
  world(): World;
}

/** Runs a search; throws on a violation and on a state without a way to an end. */
export function prove(search: Search): Report {
  const report = explore(search.world());
  if (report.ends === 0) throw new Error(`${search.name}: no end was reached`);
  if (report.stuck > 0) throw new Error(`${search.name}: ${report.stuck} ${report.stuckTrace}`);
  return report;
}

/** Positions at which int32 arithmetic changes its sign, and 0. */
export const starts = [0, 2 ** 31 - 1, -1] as const;

export const bitCount = (mask: number): number => {
  let count = 0;
  for (let rest = mask; rest !== 0; rest &= rest - 1) count++;
  return count;
};

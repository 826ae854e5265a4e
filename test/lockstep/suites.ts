/** Which searches and which plain checks prove which file of src/shm. */

import { doorbellSearches } from './doorbell.searches.ts';
import { explainSearches } from './explain.searches.ts';
import { heartbeatSearches } from './heartbeat.searches.ts';
import { requestRingSearches } from './request-ring.searches.ts';
import { requestSlotsSearches } from './request-slots.searches.ts';
import type { Search, ShmModules } from './search.ts';
import { byteRingSearches, spscRingSearches } from './spsc-ring.searches.ts';
import { storedResponsesSearches } from './stored-responses.searches.ts';

export interface Suite {
  readonly file: string;
  searches(m: ShmModules): Search[];
}

export const suites: readonly Suite[] = [
  { file: 'request-ring', searches: requestRingSearches },
  { file: 'spsc-ring', searches: spscRingSearches },
  { file: 'byte-ring', searches: byteRingSearches },
  { file: 'doorbell', searches: doorbellSearches },
  { file: 'request-slots', searches: requestSlotsSearches },
  { file: 'explain', searches: explainSearches },
  { file: 'heartbeat', searches: heartbeatSearches },
  { file: 'stored-responses', searches: storedResponsesSearches },
];

/** The modules of src/shm below `folder`, a URL that ends with a slash. */
export async function loadModules(folder: URL): Promise<ShmModules> {
  const load = (name: string) => import(new URL(`shm/${name}.ts`, folder).href);
  return {
    requestRing: await load('request-ring'),
    spscRing: await load('spsc-ring'),
    byteRing: await load('byte-ring'),
    doorbell: await load('doorbell'),
    requestSlots: await load('request-slots'),
    explain: await load('explain'),
    heartbeat: await load('heartbeat'),
    storedResponses: await load('stored-responses'),
  } as ShmModules;
}

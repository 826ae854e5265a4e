/** A request as the brain is told of it, with nothing special about it. */
import type { Arrival } from '../../src/dispatch/arrival.ts';
import { createArrival } from '../../src/dispatch/empty-records.ts';

export const plainArrival: Arrival = {
  ...createArrival(),
  ...{ promptBytes: 400, textBytes: 400, streams: true },
};

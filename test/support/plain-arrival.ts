/** A request as the brain is told of it, with nothing special about it. */
import type { Arrival } from '../../src/dispatch/arrival.ts';
import { unlimited } from '../../src/dispatch/limit-rows.ts';
import { unpinned } from '../../src/dispatch/pins.ts';

export const plainArrival: Arrival = {
  ...{ slot: 0, generation: 0, model: 0, askedModel: 0, publishedUs: 0, deadlineUs: 0 },
  ...{
    promptBytes: 400,
    textBytes: 400,
    readsMore: false,
    promptTokens: 0,
    maxTokens: 0,
    priority: 0,
    tenant: 0,
    adapter: 0,
  },
  ...{ streams: true, hedgeUs: -1 },
  ...{ session0: 0, session1: 0, head0: 0, head1: 0, batch0: 0, batch1: 0 },
  ...unlimited,
  ...unpinned,
};

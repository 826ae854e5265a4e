/** What the brain is told of requests, with nothing in it: whoever tells it fills such a record, over and over. Pure. */
import type { Arrival } from './arrival.ts';
import { Ended, type Release, RetryRule, Verdict } from './decisions.ts';
import { unlimited } from './limit-rows.ts';
import { unpinned } from './pins.ts';

/** Nobody waits for the end of its prefill, and any replica may serve it. */
export const createArrival = (): Arrival => ({
  ...{ slot: 0, generation: 0, model: 0, askedModel: 0, publishedUs: 0, deadlineUs: 0 },
  ...{ promptBytes: 0, textBytes: 0, readsMore: false, promptTokens: 0, maxTokens: 0 },
  ...{ priority: 0, tenant: 0, adapter: 0, streams: false, hedgeUs: -1 },
  ...unlimited,
  ...unpinned,
  ...{ session0: 0, session1: 0, head0: 0, head1: 0, batch0: 0, batch1: 0 },
});

/** Its replica has ended the attempt, and the brain decides what follows. */
export const createRelease = (): Release => ({
  ...{ slot: 0, generation: 0, attempt: 0, hedge: false, busy: false, verdict: Verdict.none },
  ...{ retryAfterMs: 0, error: 0, retry: RetryRule.never, settled: false, continues: false },
  ...{ promptTokens: -1, completionTokens: -1, refused: false, ended: Ended.told },
});
